package reader

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hogstream/hogstream/schemas"
)

// Position is a place on a partition, found when reading begins. The zero value
// is the start of the log.
type Position struct {
	at     positionKind
	offset int64
	time   time.Time
}

type positionKind int

const (
	atStart positionKind = iota
	atEnd
	atOffset
	atTime
)

// AtStart is the first record that the log still has.
func AtStart() Position { return Position{at: atStart} }

// AtEnd is the next record to come.
func AtEnd() Position { return Position{at: atEnd} }

// AtOffset is an offset, the same on every partition; a negative one counts back
// from the end.
func AtOffset(offset int64) Position { return Position{at: atOffset, offset: offset} }

// AtTime is the first record appended at or after t, or the end without one.
func AtTime(t time.Time) Position { return Position{at: atTime, time: t} }

// ParsePosition reads a place as people write it, in commands and in the API: start or
// earliest, end or latest, an offset, a negative one back from the end, or a time
// ([schemas.ParseMoment]), of which now is the end. -2 and -1 are what they are for Kafka's
// tools: the earliest and the latest.
func ParsePosition(text string, now time.Time) (Position, error) {
	text = strings.TrimSpace(text)
	switch strings.ToLower(text) {
	case "start", "earliest", "-2":
		return AtStart(), nil
	case "end", "latest", "now", "-1":
		return AtEnd(), nil
	}
	if offset, err := strconv.ParseInt(text, 10, 64); err == nil {
		return AtOffset(offset), nil
	}
	if t, ok := schemas.ParseMoment(text, now); ok {
		return AtTime(t), nil
	}
	return Position{}, fmt.Errorf("%q is no place on the log: write start, latest, an offset (-10 is ten before the end), %s", text, schemas.MomentForms)
}

// String is the place as [ParsePosition] reads it, whenever it does.
func (p Position) String() string {
	switch p.at {
	case atEnd:
		return "latest"
	case atOffset:
		return strconv.FormatInt(p.offset, 10)
	case atTime:
		return p.time.UTC().Format(time.RFC3339Nano)
	}
	return "start"
}

// Offset is the offset that the place is, if it is one.
func (p Position) Offset() (int64, bool) { return p.offset, p.at == atOffset }

// Time is the time that the place is, if it is one.
func (p Position) Time() (time.Time, bool) { return p.time, p.at == atTime }

// Resolve returns the offset of the position on a partition that spans [start,
// end); timed is what the broker said of the position's time.
func (p Position) Resolve(start, end, timed int64) int64 {
	switch p.at {
	case atEnd:
		return end
	case atTime:
		return min(max(timed, start), end)
	case atOffset:
		if p.offset < 0 {
			return max(end+p.offset, start)
		}
		return min(max(p.offset, start), end)
	}
	return start
}
