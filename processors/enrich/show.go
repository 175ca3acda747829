package enrich

import (
	"time"

	"github.com/hogstream/hogstream/schemas"
)

// Shown is what is known of a contact and one enrichment.
type Shown struct {
	Enrichment string           `json:"enrichment"`
	Holds      bool             `json:"holds"` // the condition, when it was looked at last
	Calls      int64            `json:"calls"` // so far
	UnderWay   bool             `json:"underWay"`
	AskedAt    *schemas.ISOTime `json:"askedAt" format:"date-time"`
	Outcome    string           `json:"outcome,omitempty"`         // of the last call that ended
	Detail     string           `json:"detail,omitempty"`          // of a failure
	Failures   int              `json:"failures"`                  // in a row
	NextAt     *schemas.ISOTime `json:"nextAt" format:"date-time"` // when it is asked, unless something else triggers it
	Because    string           `json:"because,omitempty"`         // why then
}

// Show is what is known of a contact, by enrichment.
func (s *State) Show() []Shown {
	out := make([]Shown, 0, len(s.entries))
	for i := range s.entries {
		en := &s.entries[i]
		if en.blank() {
			continue
		}
		shown := Shown{
			Enrichment: en.enrichment, Holds: en.holds, Calls: en.epoch, UnderWay: s.open(en), AskedAt: iso(en.asked),
			Outcome: en.outcome, Detail: en.detail, Failures: en.failures,
		}
		if !shown.UnderWay && en.due != 0 {
			shown.NextAt, shown.Because = iso(en.due), en.why.String()
		}
		out = append(out, shown)
	}
	return out
}

func iso(at int64) *schemas.ISOTime {
	if at == 0 {
		return nil
	}
	return &schemas.ISOTime{Time: time.UnixMicro(at).UTC()}
}
