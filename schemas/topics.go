package schemas

import "time"

// Topic is the name of a topic without the deployment's prefix ("hogstream."
// by default), which package stream adds and takes away.
type Topic string

// The topics, in the order a record passes them.
const (
	TopicIngest        Topic = "ingest"
	TopicResolved      Topic = "resolved"
	TopicEvents        Topic = "events"
	TopicLifecycle     Topic = "lifecycle"
	TopicContacts      Topic = "contacts"
	TopicSignals       Topic = "signals"
	TopicEmailRequests Topic = "email-requests"
	TopicOutbox        Topic = "outbox"
	TopicDeadLetters   Topic = "dead-letters"
)

// TopicSpec is what a topic must be when the process starts.
type TopicSpec struct {
	Topic Topic
	// Compact says that the topic keeps the newest record of each key for ever;
	// otherwise records are deleted after Retention.
	Compact   bool
	Retention time.Duration
	// ContactKeyed topics are keyed by contact id and have the same number of
	// partitions, so that one member can own partition i of all of them.
	ContactKeyed bool
}

// Topics lists every topic with its cleanup policy and default retention, the newest
// last: without a registry the order gives schemas their ids. The slice is a fresh copy
// at each call.
func Topics() []TopicSpec {
	const day = 24 * time.Hour
	return []TopicSpec{
		{Topic: TopicIngest, Retention: 7 * day},
		{Topic: TopicResolved, Retention: 7 * day, ContactKeyed: true},
		{Topic: TopicEvents, Retention: 30 * day, ContactKeyed: true},
		{Topic: TopicLifecycle, Retention: 90 * day, ContactKeyed: true},
		{Topic: TopicContacts, Compact: true, ContactKeyed: true},
		{Topic: TopicSignals, Retention: 30 * day, ContactKeyed: true},
		{Topic: TopicEmailRequests, Retention: 7 * day, ContactKeyed: true},
		{Topic: TopicDeadLetters, Retention: 90 * day},
		{Topic: TopicOutbox, Retention: 30 * day, ContactKeyed: true},
	}
}
