package definition

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/predicate"
)

// written is a bucket as it is written, without what is a default. The order of the fields
// is that of the canonical form.
type written struct {
	ID             string              `json:"id"`
	Name           string              `json:"name,omitempty"`
	Description    string              `json:"description,omitempty"`
	Enabled        bool                `json:"enabled"`
	Kind           string              `json:"kind,omitempty"`
	Criteria       predicate.Condition `json:"criteria,omitzero"`
	EntryLimit     string              `json:"entryLimit,omitempty"`
	EntryPeriod    duration            `json:"entryPeriod,omitempty"`
	MinDwell       duration            `json:"minDwell,omitempty"`
	MaxDwell       duration            `json:"maxDwell,omitempty"`
	ReconcileJoins *bool               `json:"reconcileJoins,omitempty"`
	Dwell          []writtenDwell      `json:"dwell,omitempty"`
	Joins          string              `json:"joins,omitempty"`
	TimeBased      *bool               `json:"timeBased,omitempty"`
	FastExpiry     bool                `json:"fastExpiry,omitempty"`
	ReconcileEvery duration            `json:"reconcileEvery,omitempty"`
}

type writtenDwell struct {
	After duration `json:"after,omitempty"`
	Every duration `json:"every,omitempty"`
}

// duration is exact, and of whole seconds what a file may say too.
type duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	read, err := time.ParseDuration(string(text))
	*d = duration(read)
	return err
}

// write is the bucket without its defaults.
func (b Bucket) write() written {
	w := written{
		ID: b.ID, Name: b.Name, Description: b.Description, Enabled: b.Enabled,
		Kind: unless(KindDynamic, b.Kind), Criteria: b.Criteria,
		EntryLimit: unless(EntryUnlimited, b.EntryLimit), EntryPeriod: duration(b.EntryPeriod),
		MinDwell: duration(b.MinDwell), MaxDwell: duration(b.MaxDwell),
		Joins: unless(JoinsSilent, b.Joins), TimeBased: b.TimeBased,
		FastExpiry: b.FastExpiry, ReconcileEvery: duration(b.ReconcileEvery),
	}
	if b.ReconcileJoins != nil && !*b.ReconcileJoins {
		w.ReconcileJoins = b.ReconcileJoins
	}
	for _, d := range b.Dwell {
		w.Dwell = append(w.Dwell, writtenDwell{duration(d.After), duration(d.Every)})
	}
	return w
}

// unless is the word, or nothing when it is the default.
func unless(byDefault, word string) string {
	if word == byDefault {
		return ""
	}
	return word
}

// read is the bucket that was written, with its defaults filled in.
func (w written) read() Bucket {
	b := Bucket{
		ID: w.ID, Name: w.Name, Description: w.Description, Enabled: w.Enabled,
		Kind: w.Kind, Criteria: w.Criteria,
		EntryLimit: w.EntryLimit, EntryPeriod: time.Duration(w.EntryPeriod),
		MinDwell: time.Duration(w.MinDwell), MaxDwell: time.Duration(w.MaxDwell),
		ReconcileJoins: w.ReconcileJoins, Joins: w.Joins, TimeBased: w.TimeBased,
		FastExpiry: w.FastExpiry, ReconcileEvery: time.Duration(w.ReconcileEvery),
	}
	for _, d := range w.Dwell {
		b.Dwell = append(b.Dwell, Dwell{time.Duration(d.After), time.Duration(d.Every)})
	}
	return b.withDefaults()
}

// Canonical is the one JSON text of the bucket: defaults left out, durations and the
// criteria in one form. Two buckets that say the same have the same text.
func (b Bucket) Canonical() string { return canonicalText(b.write()) }

// evaluated is the canonical text of what members and facts depend on.
func (b Bucket) evaluated() string {
	w := b.write()
	w.Name, w.Description, w.Enabled = "", "", false
	return canonicalText(w)
}

func canonicalText(v any) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("definition: what was read cannot be written: %v", err)) // text, booleans and conditions
	}
	return string(bytes.TrimSuffix(out.Bytes(), []byte("\n")))
}

// body is a set as it is stored.
type body struct {
	Buckets []bodyBucket `json:"buckets"`
}

type bodyBucket struct {
	Bucket   written `json:"bucket"`
	Revision int64   `json:"revision"`
	Switched *bool   `json:"switched,omitempty"`
	Built    bool    `json:"built,omitempty"` // in Go
	File     string  `json:"file,omitempty"`
}

// encode is the set as it is stored, and the hash of what counts of it: neither the names
// of files nor the revisions.
func encode(buckets []BucketInUse) (text, hash string) {
	stored, counts := body{}, body{}
	for _, b := range buckets {
		declared := b.Bucket
		declared.Enabled = b.Declared
		one := bodyBucket{Bucket: declared.write(), Revision: b.Revision, Switched: b.Switched, Built: b.File == "", File: b.File}
		stored.Buckets = append(stored.Buckets, one)
		one.Revision, one.File = 0, ""
		counts.Buckets = append(counts.Buckets, one)
	}
	sum := sha256.Sum256([]byte(canonicalText(counts)))
	return canonicalText(stored), hex.EncodeToString(sum[:])
}

// decode reads what encode wrote.
func decode(text string) ([]BucketInUse, error) {
	var stored body
	if err := json.Unmarshal([]byte(text), &stored); err != nil {
		return nil, fmt.Errorf("read the definitions in use: %w", err)
	}
	out := make([]BucketInUse, len(stored.Buckets))
	for i, one := range stored.Buckets {
		b := one.Bucket.read()
		b.File = one.File
		out[i] = newInUse(b, one.Switched)
		out[i].Revision = one.Revision
	}
	return out, nil
}
