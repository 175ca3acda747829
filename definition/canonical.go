package definition

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hogstream/hogstream/journeys"
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
	On             journeys.Reactions  `json:"on,omitempty"`
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
		Kind: unlessIs(KindDynamic, b.Kind), Criteria: b.Criteria,
		EntryLimit: unlessIs(EntryUnlimited, b.EntryLimit), EntryPeriod: duration(b.EntryPeriod),
		MinDwell: duration(b.MinDwell), MaxDwell: duration(b.MaxDwell),
		Joins: unlessIs(JoinsSilent, b.Joins), TimeBased: b.TimeBased,
		FastExpiry: b.FastExpiry, ReconcileEvery: duration(b.ReconcileEvery), On: b.On,
	}
	if b.ReconcileJoins != nil && !*b.ReconcileJoins {
		w.ReconcileJoins = b.ReconcileJoins
	}
	for _, d := range b.Dwell {
		w.Dwell = append(w.Dwell, writtenDwell{duration(d.After), duration(d.Every)})
	}
	return w
}

// read is the bucket that was written, with its defaults filled in.
func (w written) read() Bucket {
	b := Bucket{
		ID: w.ID, Name: w.Name, Description: w.Description, Enabled: w.Enabled,
		Kind: w.Kind, Criteria: w.Criteria,
		EntryLimit: w.EntryLimit, EntryPeriod: time.Duration(w.EntryPeriod),
		MinDwell: time.Duration(w.MinDwell), MaxDwell: time.Duration(w.MaxDwell),
		ReconcileJoins: w.ReconcileJoins, Joins: w.Joins, TimeBased: w.TimeBased,
		FastExpiry: w.FastExpiry, ReconcileEvery: time.Duration(w.ReconcileEvery), On: w.On,
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

// stored is a definition as a set has it, beside its own text.
type stored struct {
	Revision int64  `json:"revision"`
	Switched *bool  `json:"switched,omitempty"`
	Paused   bool   `json:"paused,omitempty"`
	Built    bool   `json:"built,omitempty"` // in Go
	File     string `json:"file,omitempty"`
}

// encode is the set as it is stored, and the hash of what counts of it: neither the names
// of files nor the revisions. It is an object with a list for each kind, in the order of the
// table; only buckets have one when there are none.
func encode(list []entry) (text, hash string) {
	var whole, counts []string
	for _, k := range kinds {
		var all, counting []string
		for _, e := range list {
			if e.Ref().Kind != k.name {
				continue
			}
			file := e.head().File
			all = append(all, k.encode(e, stored{e.Revision, e.Switched, e.Paused, file == "", file}))
			counting = append(counting, k.encode(e, stored{0, e.Switched, e.Paused, file == "", ""}))
		}
		if len(all) > 0 || k == bucketKind {
			whole, counts = append(whole, k.encodeList(all)), append(counts, k.encodeList(counting))
		}
	}
	sum := sha256.Sum256([]byte("{" + strings.Join(counts, ",") + "}"))
	return "{" + strings.Join(whole, ",") + "}", hex.EncodeToString(sum[:])
}

// encode is {"bucket":…,"revision":1}.
func (k *kind) encode(e entry, beside stored) string {
	return fmt.Sprintf(`{"%s":%s,%s`, k.name, e.declared().Canonical(), canonicalText(beside)[1:])
}

func (k *kind) encodeList(list []string) string {
	if len(list) == 0 {
		return fmt.Sprintf(`"%s":null`, k.dir)
	}
	return fmt.Sprintf(`"%s":[%s]`, k.dir, strings.Join(list, ","))
}

// decode reads what encode wrote. Kinds of later releases are passed over.
func decode(text string) ([]entry, error) {
	var whole map[string][]json.RawMessage
	if err := json.Unmarshal([]byte(text), &whole); err != nil {
		return nil, fmt.Errorf("read the definitions in use: %w", err)
	}
	var out []entry
	for _, k := range kinds {
		for _, one := range whole[k.dir] {
			e, err := k.decodeEntry(one)
			if err != nil {
				return nil, fmt.Errorf("read the definitions in use: %s: %w", k.name, err)
			}
			out = append(out, e)
		}
	}
	return out, nil
}

func (k *kind) decodeEntry(text json.RawMessage) (entry, error) {
	var beside stored
	var parts map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(text, &beside), json.Unmarshal(text, &parts)); err != nil {
		return entry{}, err
	}
	d, err := k.decode(parts[k.name])
	if err != nil {
		return entry{}, err
	}
	h := d.head()
	h.File = beside.File
	e := newEntry(d.withHead(h), beside.Switched)
	e.Revision, e.Paused = beside.Revision, beside.Paused
	return e, nil
}
