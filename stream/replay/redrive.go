package replay

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/storage"
)

// Redriven is what came of a redrive of many.
type Redriven struct {
	Retried int      `json:"retried"`
	Failed  int      `json:"failed"`
	Errors  []string `json:"errors"` // of the first few
	// Next is where to go on, "" when all were looked at.
	Next string `json:"nextCursor"`
}

// redrivePatience is for how long a call begins attempts: each may take as long as
// the destination is given, and the caller wants to hear what was done.
const redrivePatience = 5 * time.Second

// RedriveAll redrives the pending letters that match, oldest first within what one
// call looks at; at most limit of them, and for some seconds. With failures it goes
// on. The cursor that it returns leads past all that it tried, whatever became of it.
func (d *DeadLetters) RedriveAll(ctx context.Context, f LetterFilter, cursor string, limit int) (*Redriven, error) {
	began := time.Now()
	f.Status = storage.LetterPending
	at, err := readRedriveCursor(cursor)
	if err != nil {
		return nil, err
	}
	if at.From == "" { // what is given up from now on is not of this round
		if at.From, err = d.newest(ctx, f); err != nil || at.From == "" {
			return &Redriven{Errors: []string{}}, err
		}
	}
	at.Limit = max(at.Limit, limit)
	page, err := d.List(ctx, f, at.From, at.Limit)
	if err != nil {
		return nil, err
	}
	if at.Then == nil {
		at.Then = &page.Next
	}
	todo, err := at.rest(page.Letters)
	if err != nil {
		return nil, err
	}
	out := &Redriven{Errors: []string{}, Next: *at.Then}
	for i, l := range todo {
		if _, err := d.Redrive(ctx, l.Place); errors.Is(ctx.Err(), context.Canceled) {
			return out, err // nobody listens any more
		} else if !errors.Is(err, ErrLetterDone) && !errors.Is(err, ErrLetterErased) {
			out.count(l, err)
		}
		at.tried(l)
		if i+1 < len(todo) && (ctx.Err() != nil || time.Since(began) >= d.Patience) {
			out.Next = at.String()
			break
		}
	}
	return out, nil
}

func (r *Redriven) count(l *Letter, err error) {
	if err == nil {
		r.Retried++
		return
	}
	r.Failed++
	if len(r.Errors) < 5 {
		r.Errors = append(r.Errors, l.Place+": "+err.Error())
	}
}

// newest is the cursor at which a list begins now, "" when it is empty.
func (d *DeadLetters) newest(ctx context.Context, f LetterFilter) (string, error) {
	scan, err := d.open(ctx, "", f)
	if err != nil {
		return "", err
	}
	return scan.cursor(), nil
}

// A redriveCursor says where a redrive of many goes on: in a part of the list of
// which the oldest were tried. In each partition letters are tried in the order of
// their offsets.
type redriveCursor struct {
	From  string          `json:"from"`  // the cursor of the part
	Limit int             `json:"limit"` // so many letters make the part
	Tried map[int32]int64 `json:"tried"` // everything up to here
	Then  *string         `json:"then"`  // the cursor of the part behind it; nil when the part was not begun
}

// redriveMark tells such a cursor from that of a list, which begins a part.
const redriveMark = "r."

func readRedriveCursor(cursor string) (c redriveCursor, err error) {
	packed, within := strings.CutPrefix(cursor, redriveMark)
	if !within {
		return redriveCursor{From: cursor}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(packed)
	if err != nil || json.Unmarshal(raw, &c) != nil || c.Then == nil {
		return c, ErrLetterCursor
	}
	return c, nil
}

// String is the cursor as it is handed out.
func (c *redriveCursor) String() string {
	raw, _ := json.Marshal(c) // strings and numbers cannot fail
	return redriveMark + base64.RawURLEncoding.EncodeToString(raw)
}

// rest are the letters of the part that were not tried, oldest first. The letters are
// those from the beginning of the part on, and may go beyond its end.
func (c *redriveCursor) rest(letters []*Letter) ([]*Letter, error) {
	ends, err := readLetterCursor(*c.Then)
	if err != nil {
		return nil, err
	}
	var todo []*Letter
	for _, l := range slices.Backward(letters) {
		partition, offset, _ := parsePlace(l.Place)
		last, begun := c.Tried[partition]
		if offset >= ends[partition] && !(begun && offset <= last) {
			todo = append(todo, l)
		}
	}
	return todo, nil
}

func (c *redriveCursor) tried(l *Letter) {
	partition, offset, _ := parsePlace(l.Place)
	if c.Tried == nil {
		c.Tried = map[int32]int64{}
	}
	c.Tried[partition] = offset
}
