// Package processors is the table of processors. Each has a folder of its own and one
// line here; from that line the loops are started, states rebuilt, groups watched, and
// the command line knows what it may be asked about.
//
// Processors do not import one another: they talk through topics.
package processors

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/definition"
	language "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/processors/enrich"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/program"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream/loop"
)

// table is every processor, each after those whose outputs it reads.
var table = []Processor{
	{Name: identity.Name, Topics: identity.Topics(), Format: 1, New: newIdentity, rebuild: rebuildIdentity},
	{Name: contacts.Name, Topics: contacts.Topics(), Format: contacts.Format, New: newContacts, rebuild: rebuildContacts},
	{Name: buckets.Name, Topics: derive.Topics(), Format: 1, New: newBuckets},
	{Name: enrich.Name, Topics: derive.Topics(), Format: 1, New: newEnrich, Needed: definition.HasEnrichments},
	{Name: journeys.Name, Topics: derive.Topics(), Format: 1, New: newJourneys, Needed: definition.HasJourneys},
}

// Processor is a line of the table.
type Processor struct {
	Name   string          // of its group, without prefix
	Topics []schemas.Topic // what it reads
	Format int32           // the highest in which it reads and writes: 1, or as loop.Formatted says

	// Needed says, of a set of definitions, whether there is anything for it to do; nil is
	// always. It begins, and takes over what is known of contacts, when it first is: who defines
	// nothing for it does not pay for it. Once it has begun it goes on.
	Needed func(*definition.Set) bool

	// New makes the processor. Its figures are registered unless Deps has no Registerer.
	New func(Deps) (loop.Processor, error)

	// rebuild restores the state from the log; nil when that is not possible, and of one that
	// derives, which takes over anew what Postgres knows.
	rebuild rebuildFunc
}

// Derives says that the processor holds state of contacts that it derives from what contacts
// says: it reads signals.
func (p Processor) Derives() bool { return slices.Contains(p.Topics, schemas.TopicSignals) }

// Settings are what an operator sets of processors.
type Settings struct {
	IdempotencyWindow time.Duration // how long identity remembers an idempotency key; 0 is its default
	Events            string        // which events contacts keeps in Postgres: all, referenced or none; "" is all
	// Zone is the deployment's, of calendar dates in conditions that name none, of contacts
	// without one; nil is UTC.
	Zone *time.Location
}

// Deps are what processors are made from.
type Deps struct {
	Settings
	Codec       *schemas.Codec
	Definitions *definition.Watcher
	Limits      predicate.Limits      // of conditions; the zero value is predicate.DefaultLimits
	Coded       []language.Journey    // journeys whose steps are code
	Programs    *program.Workers      // run the mappings of enrichments
	Registerer  prometheus.Registerer // of figures; may be nil
	// Followers are the processors that contacts tells of merges and deletions.
	Followers []string
	// Repeats is how many records back of a partition one may be repeated, where broker
	// and processors are one process that can be killed; else 0.
	Repeats int
}

// All is the table, each processor after those whose outputs it reads.
func All() []Processor { return slices.Clone(table) }

// Names are the names of all processors, which are also their groups'.
func Names() []string {
	names := make([]string, len(table))
	for i, p := range table {
		names[i] = p.Name
	}
	return names
}

// Followers are the names of those that read signals: they hold state of contacts.
func Followers() []string {
	var names []string
	for _, p := range table {
		if p.Derives() {
			names = append(names, p.Name)
		}
	}
	return names
}

// Numbering are the processors that say in what order things happened to contacts, with the
// topic that each reads: while one is behind, nobody can tell who was quiet.
func Numbering() map[string]schemas.Topic {
	return map[string]schemas.Topic{identity.Name: schemas.TopicIngest, contacts.Name: schemas.TopicResolved}
}

// Find is the processor of that name; the error names those there are.
func Find(name string) (Processor, error) {
	i := slices.IndexFunc(table, func(p Processor) bool { return p.Name == name })
	if i < 0 {
		return Processor{}, fmt.Errorf("no processor %q: use %s", name, strings.Join(Names(), " or "))
	}
	return table[i], nil
}

func newIdentity(d Deps) (loop.Processor, error) {
	return identity.New(identity.Config{IdempotencyWindow: d.IdempotencyWindow}, d.Codec, d.Registerer)
}

func newContacts(d Deps) (loop.Processor, error) {
	return contacts.New(contacts.Config{Events: d.Events, Referenced: d.Definitions.Referenced, Followers: d.Followers, Repeats: d.Repeats}, d.Codec, d.Registerer)
}

func newBuckets(d Deps) (loop.Processor, error) {
	return buckets.New(buckets.Options{Limits: d.limits(), Zone: d.Zone}, d.Codec, d.Registerer)
}

func newEnrich(d Deps) (loop.Processor, error) {
	return enrich.New(enrich.Options{Limits: d.limits(), Zone: d.Zone, Map: enrich.Workers(d.Programs)}, d.Codec, d.Registerer)
}

func newJourneys(d Deps) (loop.Processor, error) {
	return journeys.New(journeys.Options{Limits: d.limits(), Zone: d.Zone, Coded: d.Coded}, d.Codec, d.Registerer)
}

// limits are those of conditions, with their defaults.
func (d Deps) limits() predicate.Limits {
	if d.Limits == (predicate.Limits{}) {
		return predicate.DefaultLimits()
	}
	return d.Limits
}
