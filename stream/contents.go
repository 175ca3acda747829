package stream

import (
	"errors"

	"github.com/hogstream/hogstream/schemas"
)

// Contents decodes what destinations are sent, for records whose headers do not say
// what they are. Implemented by *schemas.Codec.
type Contents interface {
	// DecodeSent decodes a value of a topic of [schemas.Feeds]. An error that is
	// [schemas.ErrRegistryUnavailable] says nothing about the value.
	DecodeSent(topic schemas.Topic, value []byte) (schemas.Message, error)
}

var errNoValue = errors.New("the record has no value")

// Describe takes what the headers of a record do not say from its content: whoever
// restores a topic may have kept neither headers nor keys. Of one that says it nowhere
// it notes why. It returns an error when the schema registry must be asked and is away.
func Describe(r *Record, contents Contents) error {
	if contents == nil || saysAll(r) {
		return nil
	}
	r.Unreadable = errNoValue
	if r.Value == nil {
		return nil
	}
	m, err := contents.DecodeSent(r.Topic, r.Value)
	if errors.Is(err, schemas.ErrRegistryUnavailable) {
		return err
	}
	if r.Unreadable = err; err != nil {
		return nil
	}
	meta := m.Meta()
	r.ID, r.Type, r.OccurredAt, r.Seq, r.Era = meta.ID, meta.Type, meta.OccurredAt, meta.Seq, meta.Era
	if len(r.Key) == 0 {
		r.Key = []byte(m.Key())
	}
	return nil
}

// saysAll says whether headers and key of a record tell all that is asked of them, or
// the record is none that destinations are sent.
func saysAll(r *Record) bool {
	feed, ok := schemas.FeedOf(r.Topic)
	if !ok {
		return true
	}
	return feed.Names(r.Type) && len(r.ID) == uuidLen && !r.OccurredAt.IsZero() && len(r.Key) > 0
}

const uuidLen = 36
