package derive

import "slices"

// Since is as of which record of a contact a later definition was filled from Postgres. A
// processor keeps one for each such definition with its state of the contact. The zero
// Since covers nothing: the definition was there from the start.
type Since struct {
	Seq int64 `json:"seq,omitempty"`
	Era int64 `json:"era,omitempty"`
	// Losers are the contacts whose events the filling found under this one.
	Losers []string `json:"losers,omitempty"`
}

// Covers says that what a numbered record tells was in Postgres when the definition was
// filled: it is not applied to it once more.
func (s Since) Covers(seq, era int64) bool { return era < s.Era || era == s.Era && seq <= s.Seq }

// CoversLoser says that the loser's part of the definition was there, too.
func (s Since) CoversLoser(loser string) bool { return slices.Contains(s.Losers, loser) }
