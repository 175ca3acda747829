package buckets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/packed"
)

// ErrKept says that bytes are not what is kept of a transition.
var ErrKept = errors.New("buckets: not what is kept of a transition")

// keptVersion is the first byte of what is kept of a transition. A new layout has another
// number, and the old ones are read for ever.
const keptVersion = 1

// Flags of what is kept of a transition.
const (
	keptTold = 1 << iota
	keptCause
	keptPlace
	keptLeaves
	keptFlags
)

// Kept is what is kept of a transition, to explain it later.
type Kept struct {
	// Version is that of the definitions that were in use.
	Version int64
	Told    bool
	// Cause is the id of the record that was stepped; empty when a bucket was filled or the
	// contact was merged away. Place is where that stands; the zero one is not known.
	Cause string
	Place derive.Place

	leaves []byte // nil without criteria
}

// Explain is what the criteria said; nil of a bucket that was not evaluated. The definition
// is that of Version, and at is when the transition was.
func (k *Kept) Explain(b *definition.BucketInUse, at time.Time) (*predicate.Explanation, error) {
	if k.leaves == nil || b == nil || b.Criteria.IsZero() {
		return nil, nil
	}
	e, err := b.Criteria.Explain(k.leaves, at)
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// keepWhy is what is kept of a transition: its cause and the leaves of the criteria as they are
// now. It is made of transitions alone, for records that change nothing cost nothing.
func (w *work) keepWhy(bucketID string, told bool) []byte {
	number := w.d.set.Index(bucketID)
	flags := uint64(0)
	for i, set := range []bool{told, w.cause != "", w.place != derive.Place{}, number >= 0} {
		if set {
			flags |= 1 << i
		}
	}
	out := binary.AppendUvarint(append(make([]byte, 0, 192), keptVersion), flags)
	out = binary.AppendVarint(out, w.l.version)
	if w.cause != "" {
		out = packed.AppendText(out, w.cause)
	}
	if flags&keptPlace != 0 {
		out = packed.AppendText(out, string(w.place.Topic))
		out = binary.AppendVarint(binary.AppendVarint(out, int64(w.place.Partition)), w.place.Offset)
		out = binary.AppendVarint(out, packed.Micros(w.place.AppendedAt))
	}
	if number >= 0 {
		out = w.d.set.AppendLeaves(out, number, &w.s.facts, &w.s, packed.Instant(w.at))
	}
	return out
}

// DecodeKept reads what was kept of a transition. The error is [ErrKept].
func DecodeKept(data []byte) (Kept, error) {
	d := packed.NewReader(data, ErrKept)
	if version := d.Byte(); version != keptVersion {
		return Kept{}, fmt.Errorf("%w: version %d, this program knows %d", ErrKept, version, keptVersion)
	}
	flags := d.Uint()
	if flags >= keptFlags {
		d.Fail("unknown flags")
	}
	k := Kept{Version: d.Int(), Told: flags&keptTold != 0}
	if flags&keptCause != 0 {
		k.Cause = d.Text()
	}
	if flags&keptPlace != 0 {
		k.Place = derive.Place{Topic: schemas.Topic(d.Text()), Partition: int32(d.Int()), Offset: d.Int(), AppendedAt: packed.Instant(d.Int())}
	}
	if k.leaves = d.Rest(); flags&keptLeaves == 0 {
		if len(k.leaves) > 0 {
			d.Fail("something follows")
		}
		k.leaves = nil
	}
	if err := d.Err(); err != nil {
		return Kept{}, err
	}
	return k, nil
}
