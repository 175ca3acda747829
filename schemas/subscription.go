package schemas

import (
	"fmt"
	"slices"
	"strings"
)

// Subscription is what a destination wants to receive, compiled from catalog
// names and patterns by [ParseSubscription]. It is immutable and safe for
// concurrent use; the zero value wants nothing.
type Subscription struct {
	facts         map[string]bool
	allEvents     bool
	events        map[string]bool
	eventPrefixes []string
	outbox        bool
	addressee     string // of outbox records; "" for nobody
}

// SubscribeOutbox is the entry of a destination that takes outbox records.
const SubscribeOutbox = "outbox"

// ParseSubscription compiles the event types of a destination:
//
//	contact.created                  one catalog type
//	contact.*, *                     patterns; they cover facts only, and neither
//	                                 journey.step nor journey.skipped
//	event.tracked                    every product event
//	event.tracked:order.completed    product events of one name
//	event.tracked:order.*            product events whose name starts so
//	outbox                           what processors ask this destination for
//
// An error names the entry at fault and what to write instead.
func ParseSubscription(eventTypes []string) (Subscription, error) {
	s := Subscription{facts: map[string]bool{}, events: map[string]bool{}}
	if len(eventTypes) == 0 {
		return Subscription{}, fmt.Errorf("eventTypes: at least one is needed: a catalog name such as %q, a pattern such as \"contact.*\", or \"*\" for all facts", FactContactCreated)
	}
	for i, entry := range eventTypes {
		if err := s.add(entry); err != nil {
			return Subscription{}, fmt.Errorf("eventTypes[%d]: %w", i, err)
		}
	}
	return s, nil
}

func (s *Subscription) add(entry string) error {
	name, isEvent := strings.CutPrefix(entry, TypeEventTracked)
	switch {
	case entry == SubscribeOutbox:
		s.outbox = true
		return nil
	case entry == TypeWebhookTest:
		return fmt.Errorf("%q cannot be subscribed to: the test operation sends it whatever the subscription says", entry)
	case isEvent && name == "":
		s.allEvents = true
		return nil
	case isEvent && strings.HasPrefix(name, ":"):
		return s.addEvent(entry, name[1:])
	}
	return s.addFacts(entry)
}

func (s *Subscription) addEvent(entry, name string) error {
	prefix, pattern := strings.CutSuffix(name, "*")
	switch {
	case name == "":
		return fmt.Errorf("%q names no event after the colon: write %q for all product events", entry, TypeEventTracked)
	case pattern && prefix == "":
		s.allEvents = true
	case pattern:
		s.eventPrefixes = append(s.eventPrefixes, prefix)
	default:
		s.events[name] = true
	}
	return nil
}

// addFacts expands a pattern at once, so that a record of a type that is not in
// the catalog is never sent.
func (s *Subscription) addFacts(entry string) error {
	prefix, pattern := strings.CutSuffix(entry, "*")
	found := false
	for _, typ := range Catalog() {
		if typ == TypeEventTracked {
			continue
		}
		covered := pattern && strings.HasPrefix(typ, prefix) && (prefix == "" || strings.HasSuffix(prefix, ".")) && !slices.Contains(namedOnly, typ)
		if typ == entry || covered {
			s.facts[typ] = true
			found = true
		}
	}
	if found {
		return nil
	}
	if strings.HasPrefix(entry, "event.") || entry == "event" {
		return fmt.Errorf("%q: patterns cover facts only; write %q for product events, or %q for those of one name", entry, TypeEventTracked, TypeEventTracked+":<name>")
	}
	return fmt.Errorf("%q is not in the catalog: use one of %s, a pattern such as \"contact.*\", or %q for a product event of that name",
		entry, strings.Join(Catalog(), ", "), TypeEventTracked+":"+entry)
}

// For is the subscription of the destination with an id: the outbox records that it takes are
// those that are addressed to it. Without it none are.
func (s Subscription) For(destinationID string) Subscription {
	if s.outbox {
		s.addressee = destinationID
	}
	return s
}

// Matches reports whether a record is wanted, given the type in its header: a
// fact's type, `event.tracked:<name>`, or that of an outbox record.
func (s Subscription) Matches(typ string) bool {
	if s.facts[typ] {
		return true
	}
	if s.addressee != "" {
		if to, addressed := AddressOf(typ); addressed {
			return to == s.addressee
		}
	}
	if !s.WantsEvents() {
		return false
	}
	name, isEvent := strings.CutPrefix(typ, TypeEventTracked+":")
	if !isEvent {
		return false
	}
	return s.allEvents || s.events[name] ||
		slices.ContainsFunc(s.eventPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// WantsFacts reports whether any fact is wanted.
func (s Subscription) WantsFacts() bool { return len(s.facts) > 0 }

// WantsEvents reports whether any product event is wanted.
func (s Subscription) WantsEvents() bool {
	return s.allEvents || len(s.events) > 0 || len(s.eventPrefixes) > 0
}

// WantsOutbox reports whether the destination takes outbox records.
func (s Subscription) WantsOutbox() bool { return s.outbox }

// Topics are the topics that hold what is wanted, in the order of [Feeds].
func (s Subscription) Topics() []Topic {
	var topics []Topic
	for _, f := range feeds {
		if f.wanted(s) {
			topics = append(topics, f.Topic)
		}
	}
	return topics
}
