package storage

import (
	"encoding/json"
	"time"
)

// DestinationStatus says whether a destination is delivered to.
type DestinationStatus string

// The states of a destination.
const (
	DestinationActive    DestinationStatus = "active"
	DestinationPaused    DestinationStatus = "paused"    // by an operator
	DestinationSuspended DestinationStatus = "suspended" // by the rules: the receiver refuses everything
)

// Destination is a configured instance of a sink. Secrets are in the clear here
// and only here: they are sealed in the table and never serialised.
type Destination struct {
	ID          string
	Name        string // unique; the name of its mirrored group
	Kind        string // webhook | posthog | segment | slack | …
	URL         string
	Description *string
	EventTypes  []string        // catalog names and patterns
	Config      json.RawMessage // of its kind; may hold vendor keys
	Secret      string          // "" for kinds without one
	// PreviousSecret signs beside Secret until PreviousSecretUntil.
	PreviousSecret      string
	PreviousSecretUntil *time.Time
	// SigningKey is the private key of destinations that sign with one beside the
	// secret, and PreviousSigningKey the one before, until PreviousSecretUntil.
	SigningKey, PreviousSigningKey string
	Status                         DestinationStatus
	StatusReason                   string
	Filter                         string // jq, "" for none
	// Selector is the condition on records instead of a filter in jq: the JSON of a
	// predicate.Selector, "" for none.
	Selector       string
	Transform      string // jq, "" for none
	RateLimit      float64
	Concurrency    int           // requests in flight in one process; 0 means the default
	RetryHorizon   time.Duration // 0 means the default
	DeliveryLog    string        // all | failures | off; "" means the default
	LastDeliveryAt *time.Time
	CreatedAt      time.Time
	UpdatedAt      time.Time
	// Revision grows with every change; instances compare it to see changes.
	Revision int64
	// Unreadable says why secret and config could not be opened, "" when they
	// were. Such a destination is listed but cannot be delivered to or updated.
	Unreadable string
}
