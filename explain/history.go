package explain

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// mostEvents is how many of a contact's newest events are looked at, to say when answers
// turned.
const mostEvents = 2000

// sourceBackfill is the source of those who joined when the bucket was filled.
const sourceBackfill = "backfill"

// past is what is known of the past of a contact.
type past struct {
	x       *Explainer
	contact string
	log     *log // nil when nothing is looked up there
	history predicate.History
	hints   map[string]hint // where records may be found, by id
}

// hint is where a record may be found: on a topic, appended at a time or somewhat later.
type hint struct {
	topic schemas.Topic
	at    time.Time
	place *predicate.Place // where it stands, when that is known
}

// said is something of the past with its place in the order of the contact.
type said struct {
	predicate.Past
	seq, era int64
}

// past reads what the criteria looked at: stored events, up to where the processor has come,
// facts on the contact that are on the log, and joins to other buckets.
func (x *Explainer) past(ctx context.Context, s *subject, in predicate.Inputs) (*past, error) {
	p := &past{x: x, contact: s.contact.ID, hints: map[string]hint{}}
	events, err := p.events(ctx, s, in)
	if err != nil {
		return nil, err
	}
	p.openLog(ctx)
	all := append(events, p.facts(ctx, s, in)...)
	slices.SortStableFunc(all, func(a, b said) int {
		if a.seq == 0 || b.seq == 0 {
			return a.AsOf.Compare(b.AsOf)
		}
		return cmp.Or(cmp.Compare(a.era, b.era), cmp.Compare(a.seq, b.seq))
	})
	p.history.Past = merge(all, p.joins(s, in))
	return p, nil
}

// events are the stored ones.
func (p *past) events(ctx context.Context, s *subject, in predicate.Inputs) (all []said, err error) {
	var names []string
	for _, e := range in.Events {
		names = append(names, e.Name)
	}
	if len(names) == 0 {
		return nil, nil
	}
	found, err := p.x.db.NewestEvents(ctx, append([]string{s.contact.ID}, s.contact.Merged...), names, mostEvents)
	if err != nil {
		return nil, err
	}
	kept := p.x.opts.Limits.Retention
	p.history.EventsPart = len(found) >= mostEvents || kept > 0 && s.contact.FirstSeenAt.Before(s.now.Add(-kept))
	for i := range found {
		e := &found[i]
		record, err := predicate.FromEvent(&schemas.Event{ID: e.ID, Name: e.Name, Properties: e.Properties, OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt})
		own := e.ContactID == s.contact.ID
		if err != nil || own && e.Era == s.row.Era && e.Seq > s.row.Seq {
			continue // the processor has not come to it
		}
		p.hints[e.ID] = hint{topic: schemas.TopicEvents, at: e.ReceivedAt}
		one := said{Past: predicate.Past{Record: record, AsOf: e.ReceivedAt}}
		if own {
			one.seq, one.era = e.Seq, e.Era
		}
		all = append(all, one)
	}
	return all, nil
}

// facts are what the contact was like, as its facts on the log say, and is now.
func (p *past) facts(ctx context.Context, s *subject, in predicate.Inputs) (all []said) {
	if len(in.Properties) == 0 && !in.Identity && !in.FirstSeen && !in.LastSeen {
		return nil
	}
	p.history.FactsSince = s.contact.UpdatedAt
	if p.log != nil {
		all = p.log.facts(ctx, s, p)
	}
	c := s.contact
	now := derive.ContactRecord(c)
	return append(all, said{Past: predicate.Past{Record: now, AsOf: c.UpdatedAt}})
}

// joins are those to the buckets that are asked for, and the leaves, by time.
func (p *past) joins(s *subject, in predicate.Inputs) (all []said) {
	add := func(m *storage.BucketMember, typ string, at time.Time, joined bool) {
		id := factID(s.contact.ID, typ, m.BucketID, m.Epoch)
		record := predicate.Record{ID: uuid.MustParse(id)}
		if joined && m.Source == sourceBackfill { // nobody was told, mostly
			record.ID = uuid.Nil
		}
		p.hints[id] = hint{topic: schemas.TopicLifecycle, at: at}
		all = append(all, said{Past: predicate.Past{Record: record, AsOf: at, Bucket: m.BucketID, Joined: joined}})
	}
	for i := range s.joins {
		m := &s.joins[i]
		if !slices.Contains(in.Buckets, m.BucketID) {
			continue
		}
		add(m, schemas.FactBucketEntered, m.EnteredAt, true)
		if !m.LeftAt.IsZero() {
			add(m, schemas.FactBucketLeft, m.LeftAt, false)
		}
	}
	slices.SortStableFunc(all, func(a, b said) int { return a.AsOf.Compare(b.AsOf) })
	return all
}

// merge puts joins, which have a time alone, between records, whose order is known: each
// before the first that was judged later.
func merge(records, joins []said) []predicate.Past {
	out := make([]predicate.Past, 0, len(records)+len(joins))
	for _, r := range records {
		for len(joins) > 0 && joins[0].AsOf.Before(r.AsOf) {
			out, joins = append(out, joins[0].Past), joins[1:]
		}
		out = append(out, r.Past)
	}
	for _, j := range joins {
		out = append(out, j.Past)
	}
	return out
}
