package explain

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// How far is looked for places. A read is 64 KiB, a range 500 offsets.
const (
	readsForPlace  = 16
	rangesForFacts = 4
	mostPlaces     = 16
	// earlier is how much a clock of ours may be ahead of the broker's.
	earlier = 500 * time.Millisecond
)

// log reads the records of one contact.
type log struct {
	scan    *reader.Scanner
	codec   *schemas.Codec
	contact string
}

// openLog has places be looked up. Kafka is asked for what can be told without: an error
// leaves places out.
func (p *past) openLog(ctx context.Context) {
	if p.x.admin == nil {
		return
	}
	scan, err := reader.NewScanner(ctx, p.x.admin, schemas.TopicEvents, schemas.TopicLifecycle)
	if err == nil {
		p.log = &log{scan, p.x.codec, p.contact}
	}
}

// key is the partition of the contact.
func (l *log) key(topic schemas.Topic) stream.TopicPartition {
	return stream.TopicPartition{Topic: topic, Partition: stream.PartitionOf([]byte(l.contact), l.scan.Partitions(topic))}
}

func placeOf(r *stream.Record) *predicate.Place {
	return &predicate.Place{Topic: string(r.Topic), Partition: r.Partition, Offset: r.Offset, AppendedAt: r.AppendTime.UTC()}
}

// facts are those that say what the contact is like: the first, the newest, and as many
// between them as lie near the newest. Since when they are all there is noted.
func (l *log) facts(ctx context.Context, s *subject, p *past) []said {
	found := map[int64]said{} // by version
	key := l.key(schemas.TopicLifecycle)
	take := func(r *stream.Record) {
		if string(r.Key) != l.contact || r.Value == nil {
			return
		}
		fact, err := l.codec.DecodeFact(r.Value)
		if err != nil || fact.Seq > s.row.Seq && fact.Era == s.row.Era {
			return
		}
		version, asOf := versionOf(fact)
		record, err := predicate.FromFact(fact)
		if err != nil || version == 0 {
			return
		}
		found[version] = said{Past: predicate.Past{Record: record, AsOf: asOf}, seq: fact.Seq, era: fact.Era}
		p.hints[fact.ID] = hint{place: placeOf(r)}
	}
	until := func(version int64) func(*stream.Record) bool {
		return func(r *stream.Record) bool {
			take(r)
			_, there := found[version]
			return !there
		}
	}
	c := s.contact
	first, _, err := l.scan.After(ctx, key, c.UpdatedAt.Add(-earlier), readsForPlace, until(c.Version))
	if err == nil && c.Version > 1 {
		_, _, err = l.scan.After(ctx, key, c.CreatedAt.Add(-earlier), readsForPlace, until(1))
	}
	if _, there := found[c.Version-1]; err == nil && !there && c.Version > 2 && first >= 0 {
		_, err = l.scan.Before(ctx, key, first, rangesForFacts, until(2))
	}
	if err != nil {
		return nil
	}
	return p.inARow(found, c.Version)
}

// versionOf is the version of the contact that a fact says, and as of when; 0 of a fact that
// does not.
func versionOf(f *schemas.Fact) (int64, time.Time) {
	switch {
	case f.Contact != nil:
		return f.Contact.Version, f.Contact.UpdatedAt
	case f.Merged != nil:
		return f.Merged.Version, f.OccurredAt
	}
	return 0, time.Time{}
}

// inARow are the facts without a gap up to the newest, and whether that is of the contact's
// version.
func (p *past) inARow(found map[int64]said, version int64) (all []said) {
	newest := int64(0)
	for v := range found {
		newest = max(newest, v)
	}
	for v := newest; v > 0; v-- {
		one, there := found[v]
		if !there {
			break
		}
		all = append(all, one)
	}
	slices.Reverse(all)
	switch {
	case newest != version: // something came after them
	case int64(len(all)) == newest:
		p.history.FactsSince = time.Time{}
	default:
		p.history.FactsSince = all[0].AsOf
	}
	return all
}

// showPlaces fills in where the records stand that turned answers, and those on which they
// hang.
func (p *past) showPlaces(ctx context.Context, e *predicate.Explanation) {
	if p.log == nil || e == nil {
		return
	}
	sought := map[string][]**predicate.Place{}
	p.seek(e, sought)
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	left := mostPlaces
	for id, places := range sought {
		if left--; left < 0 {
			break
		}
		group.Go(func() error {
			place := p.log.find(ctx, id, p.hints[id])
			mu.Lock()
			defer mu.Unlock()
			for _, to := range places {
				*to = place
			}
			return nil
		})
	}
	_ = group.Wait() // what is not found is left out
}

// seek notes what is to be found.
func (p *past) seek(e *predicate.Explanation, sought map[string][]**predicate.Place) {
	want := func(id uuid.UUID, at time.Time, place **predicate.Place) {
		if id == uuid.Nil {
			return
		}
		text := id.String()
		sought[text] = append(sought[text], place)
		if _, there := p.hints[text]; !there { // a mail, or an event that is not stored any more
			p.hints[text] = hint{at: at}
		}
	}
	if e.Turned != nil {
		want(e.Turned.Record, e.Turned.At, &e.Turned.Place)
	}
	if e.Saw != nil {
		for i := range e.Saw.Events {
			if event := &e.Saw.Events[i]; event.Decides {
				want(event.ID, event.At, &event.Place)
			}
		}
	}
	for i := range e.Conditions {
		p.seek(&e.Conditions[i], sought)
	}
}

// find looks for a record of the contact; nil when it is not where the hint says.
func (l *log) find(ctx context.Context, id string, h hint) (place *predicate.Place) {
	if h.place != nil {
		return h.place
	}
	topics := []schemas.Topic{schemas.TopicEvents, schemas.TopicLifecycle}
	if h.topic != "" {
		topics = []schemas.Topic{h.topic}
	}
	for _, topic := range topics {
		_, _, err := l.scan.After(ctx, l.key(topic), h.at.Add(-earlier), readsForPlace, func(r *stream.Record) bool {
			if r.ID == id {
				place = placeOf(r)
			}
			return place == nil
		})
		if err != nil || place != nil {
			return place
		}
	}
	return nil
}
