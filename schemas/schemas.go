// Package schemas is what stands on the wire: the records' Go types, their Avro
// schemas, the codec, the registry client and the topic table.
//
// It promises the other packages that bytes once written decode for ever, that a
// published schema only grows, and that customer properties travel byte for
// byte as the JSON that was sent.
package schemas

import "errors"

// ErrUndecodable marks bytes that are no record of their topic: not the
// Confluent wire format, an unknown schema id, or Avro that does not fit the
// writer's schema. It is deterministic: reading again gives the same.
var ErrUndecodable = errors.New("undecodable record")

// ErrRegistryUnavailable marks an outage: the schema registry had to be asked
// and did not answer, or its ids are not known yet. Callers wait and try again.
var ErrRegistryUnavailable = errors.New("schema registry unavailable")

// Limits, in bytes.
const (
	MaxEvent      = 256 << 10 // an event as sent
	MaxProperties = 512 << 10 // a contact's properties after any patch or merge
	MaxRecord     = 4 << 20   // an encoded record

	MaxIdentifiers = 1000 // of each kind that a contact shows
	MaxLists       = 1000 // that a contact's addresses have said something about
)
