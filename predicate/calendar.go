package predicate

import (
	"fmt"
	"sync"
	"time"
)

// dayOf is the calendar date of a time in its zone, in days since 1970.
func dayOf(t time.Time) int64 {
	year, month, day := t.Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix() / 86400
}

// dayStart is the first instant at which the zone's calendar shows the date or a later
// one. Where midnight is skipped that is when the gap ends, and a date that a zone never
// had begins with the next.
func dayStart(day int64, zone *time.Location) int64 {
	midnight := day * 86400
	// No zone was ever more than 16 hours from UTC.
	for t := time.Unix(midnight-16*3600, 0).In(zone); ; {
		_, offset := t.Zone()
		_, end := t.ZoneBounds()
		start := max(midnight-int64(offset), t.Unix())
		if end.IsZero() || start < end.Unix() {
			return start * 1e6
		}
		t = end
	}
}

// LoadZone finds an IANA time zone by its name, such as Europe/Berlin or UTC. What is empty
// or means the machine's own zone is an error, which says what to write.
func LoadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" || len(name) > 64 {
		return nil, fmt.Errorf("%q is no time zone: write an IANA name such as Europe/Berlin", name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%q is no time zone: write an IANA name such as Europe/Berlin", name)
	}
	return zone, nil
}

// zones remembers the zones that contacts named, and the names that are none, for
// loading one reads files. It is bounded: a contact may name anything.
type zones struct {
	deployment *time.Location
	mu         sync.RWMutex
	known      map[string]*time.Location // nil: no zone
}

const maxZones = 2000

// of is the zone of the contact, else of the deployment. An event that is being filtered
// has that of the deployment: what was filtered stays filtered when a contact moves.
func (z *zones) of(v view) *time.Location {
	if v.event != nil {
		return z.deployment
	}
	if name := readValue(v.state.raw(zoneID)); name.kind == typeText {
		if zone := z.find(name.text); zone != nil {
			return zone
		}
	}
	return z.deployment
}

func (z *zones) find(name string) *time.Location {
	z.mu.RLock()
	zone, known := z.known[name]
	z.mu.RUnlock()
	if known {
		return zone
	}
	zone, err := LoadZone(name)
	if err != nil {
		zone = nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.known == nil || len(z.known) >= maxZones {
		z.known = map[string]*time.Location{}
	}
	z.known[name] = zone
	return zone
}
