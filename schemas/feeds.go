package schemas

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// Feed is a topic that destinations are sent. All of them are keyed by contact id.
type Feed struct {
	Topic Topic
	// Answers says that its records are addressed to one destination each, and that whoever
	// asked is told what came of them. What was asked for once is not sent again: there is no
	// rewind, backfill or skip of it.
	Answers bool

	wanted  func(Subscription) bool               // whether a destination reads it
	named   func(typ string) bool                 // whether the type in a header is one of its records'
	decode  func(*Codec, []byte) (Message, error) // a value
	message func(text []byte) (Message, error)    // what Codec.JSON renders; nil where none is read
}

// feeds is the table, in the order in which the records of a contact are delivered that
// wait beside each other: what was asked for, then facts before events.
var feeds = []Feed{
	{
		Topic: TopicOutbox, Answers: true, wanted: Subscription.WantsOutbox, decode: decoded((*Codec).DecodeOutbox),
		named: func(typ string) bool { _, addressed := AddressOf(typ); return addressed },
	},
	{
		Topic: TopicLifecycle, wanted: Subscription.WantsFacts, decode: decoded((*Codec).DecodeFact), message: messageOf[Fact],
		named: func(typ string) bool { return slices.Contains(factTypes, typ) },
	},
	{
		Topic: TopicEvents, wanted: Subscription.WantsEvents, decode: decoded((*Codec).DecodeEvent), message: messageOf[Event],
		named: func(typ string) bool { return strings.HasPrefix(typ, TypeEventTracked+":") },
	},
}

var factTypes = slices.DeleteFunc(Catalog(), func(typ string) bool { return typ == TypeEventTracked })

// Feeds lists the topics that destinations are sent. The slice is a fresh copy at each call.
func Feeds() []Feed { return slices.Clone(feeds) }

// FedTopics are the topics of [Feeds]. The slice is a fresh copy at each call.
func FedTopics() []Topic {
	topics := make([]Topic, len(feeds))
	for i, f := range feeds {
		topics[i] = f.Topic
	}
	return topics
}

// FeedOf finds a feed by its topic; false for a topic that destinations are not sent.
func FeedOf(topic Topic) (Feed, bool) {
	for _, f := range feeds {
		if f.Topic == topic {
			return f, true
		}
	}
	return Feed{}, false
}

// Answering are the topics of [Feeds] that answer.
func Answering(topics []Topic) []Topic {
	return slices.DeleteFunc(slices.Clone(topics), func(t Topic) bool { f, ok := FeedOf(t); return !ok || !f.Answers })
}

// Replayable are the topics that do not answer.
func Replayable(topics []Topic) []Topic {
	return slices.DeleteFunc(slices.Clone(topics), func(t Topic) bool { f, ok := FeedOf(t); return !ok || f.Answers })
}

// AddressOf is the id of the destination that an outbox record is addressed to, by the type in
// its header: `<kind>:<destination>`. false for another type.
func AddressOf(typ string) (destination string, ok bool) {
	kind, destination, found := strings.Cut(typ, ":")
	return destination, found && kind != "" && kind != TypeEventTracked && uuid.Validate(destination) == nil && len(destination) == 36
}

// Names says whether a type in a header is one that records of the feed have.
func (f Feed) Names(typ string) bool { return f.named(typ) }

// DecodeSent decodes a value of a topic that destinations are sent, see [Feeds]. It
// returns the topic's own message; errors as DecodeInput.
func (c *Codec) DecodeSent(topic Topic, value []byte) (Message, error) {
	f, ok := FeedOf(topic)
	if !ok {
		return nil, fmt.Errorf("topic %s holds nothing for destinations", topic)
	}
	return f.decode(c, value)
}

func decoded[M Message](decode func(*Codec, []byte) (M, error)) func(*Codec, []byte) (Message, error) {
	return func(c *Codec, value []byte) (Message, error) {
		m, err := decode(c, value)
		if err != nil {
			return nil, err // no typed nil
		}
		return m, nil
	}
}

// MessageFromJSON reads what JSON renders of a topic that destinations are sent:
// an [*Event] or a [*Fact]. JSON documents may be embedded or strings; fields that
// this program does not know are passed over.
func MessageFromJSON(topic Topic, text []byte) (Message, error) {
	var readable []string
	for _, f := range feeds {
		switch {
		case f.message == nil:
		case f.Topic == topic:
			return f.message(text)
		default:
			readable = append(readable, string(f.Topic))
		}
	}
	return nil, fmt.Errorf("topic %q: only records of %s can be read from JSON", topic, strings.Join(readable, " and "))
}

func messageOf[T any, P interface {
	*T
	Message
}](text []byte) (Message, error) {
	m := P(new(T))
	return m, readMessage(text, m)
}
