package predicate

import (
	"fmt"
	"maps"
	"slices"
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

// zoneProperties are those of a contact that may name its time zone.
var zoneProperties = [...]string{"$timezone", "$geoip_time_zone", "timezone"}

var zoneIDs = func() (ids [len(zoneProperties)]uint64) {
	for i, property := range zoneProperties {
		ids[i] = pathID(Path{property})
	}
	return ids
}()

// ZoneProperties are the properties of a contact that may name its time zone: what the
// browser says, where its address lies, what the product wrote. The first that names a zone
// counts, for conditions as for schedules. The slice is a fresh copy at each call.
func ZoneProperties() []string { return slices.Clone(zoneProperties[:]) }

// zones remembers the zones that contacts named, and the names that are none, for
// loading one reads files.
var zones struct {
	sync.RWMutex
	known map[string]*time.Location // nil: no zone
}

// maxZones is more than there are. A contact may name anything, so names that are none are
// forgotten beyond it.
const maxZones = 2000

// LoadZone finds an IANA time zone by its exact name, each at one address. UTC has a name; what
// is empty or means the machine's own zone has not, nor have offsets such as +05:30. The
// error says what to write. It is safe for concurrent use.
func LoadZone(name string) (*time.Location, error) {
	zone := findZone(name)
	if zone == nil {
		return nil, fmt.Errorf("%q is no time zone: write an IANA name such as Europe/Berlin", name)
	}
	return zone, nil
}

// findZone is nil for a name that is none.
func findZone(name string) *time.Location {
	if name == "" || name == "Local" || len(name) > 64 {
		return nil
	}
	zones.RLock()
	zone, known := zones.known[name]
	zones.RUnlock()
	if known {
		return zone
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		zone = nil
	}
	return rememberZone(name, zone)
}

// rememberZone returns the one that was remembered first.
func rememberZone(name string, zone *time.Location) *time.Location {
	zones.Lock()
	defer zones.Unlock()
	if before := zones.known[name]; before != nil {
		return before
	}
	if zones.known == nil {
		zones.known = map[string]*time.Location{}
	}
	if len(zones.known) >= maxZones {
		maps.DeleteFunc(zones.known, func(_ string, zone *time.Location) bool { return zone == nil })
	}
	zones.known[name] = zone
	return zone
}

// zoneOf is the zone of the contact, else of the deployment. An event that is being
// filtered has that of the deployment: what was filtered stays filtered when a contact
// moves.
func zoneOf(v view, deployment *time.Location) *time.Location {
	if v.event != nil {
		return deployment
	}
	for _, id := range zoneIDs {
		if name := readValue(v.state.raw(id)); name.kind == typeText {
			if zone := findZone(name.text); zone != nil {
				return zone
			}
		}
	}
	return deployment
}
