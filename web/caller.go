package web

import (
	"time"

	"github.com/hogstream/hogstream/storage"
)

// Caller is who sent a request: an API key.
type Caller struct {
	ID     string // of the key; "bootstrap" for the one from the settings
	Name   string
	Scopes []string

	ExpiresAt *time.Time // nil for never
}

// Bootstrap reports whether the caller is the key from the settings, which has
// no row.
func (c *Caller) Bootstrap() bool { return c.ID == BootstrapID }

// BootstrapID stands for the id of the key from the settings.
const BootstrapID = "bootstrap"

// Holds reports whether the caller may do what asks for a scope. The ranked
// scopes include the lower ones; full-admin holds all.
func (c *Caller) Holds(scope string) bool {
	for _, held := range c.Scopes {
		if held == scope || held == storage.ScopeFullAdmin || rank(scope) > 0 && rank(held) >= rank(scope) {
			return true
		}
	}
	return false
}

// rank is 0 for scopes that stand beside the ranked ones.
func rank(scope string) int {
	switch scope {
	case storage.ScopeRead:
		return 1
	case storage.ScopeJourneyAdmin:
		return 2
	case storage.ScopeFullAdmin:
		return 3
	}
	return 0
}
