package sinks

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
)

// projects is PostHog as its documentation tells of persons: a distinct id belongs to
// one person; $identify and $create_alias merge the other person into that of the
// event unless the other one is identified, $merge_dangerously in any case; whoever
// was merged into is identified.
type projects struct {
	persons     map[string]*posthogPerson // by distinct id
	refused     int
	unnecessary int // merged dangerously where $identify or $create_alias would have done
}

type posthogPerson struct {
	identified bool
	events     []string // uuids
}

func (ph *projects) person(distinctID string) *posthogPerson {
	if ph.persons[distinctID] == nil {
		ph.persons[distinctID] = &posthogPerson{}
	}
	return ph.persons[distinctID]
}

func (ph *projects) take(t require.TestingT, e map[string]any) {
	properties := e["properties"].(map[string]any)
	distinctID, event := e["distinct_id"].(string), e["event"].(string)
	into := ph.person(distinctID)
	var other string
	switch event {
	case "$identify":
		other = properties["$anon_distinct_id"].(string)
	case "$create_alias", "$merge_dangerously":
		other = properties["alias"].(string)
	default:
		into.events = append(into.events, e["uuid"].(string))
		return
	}
	require.NotEmpty(t, other)
	require.NotEqual(t, other, distinctID)
	from := ph.person(other)
	if from == into {
		return
	}
	if from.identified && event != "$merge_dangerously" {
		ph.refused++
		return
	}
	if !from.identified && event == "$merge_dangerously" {
		ph.unnecessary++
	}
	into.identified = true
	into.events = append(into.events, from.events...)
	for id, p := range ph.persons {
		if p == from {
			ph.persons[id] = into
		}
	}
}

// graph is Segment's: names that stand in one message are of one person.
type graph map[string]string

func (g graph) root(name string) string {
	for g[name] != "" {
		name = g[name]
	}
	return name
}

func (g graph) take(t require.TestingT, m map[string]any) {
	var names []string
	for field, kind := range map[string]string{"userId": "u:", "anonymousId": "a:", "previousId": "u:"} {
		if name, ok := m[field].(string); ok {
			names = append(names, kind+name)
		}
	}
	require.NotEmpty(t, names)
	for _, name := range names[1:] {
		if a, b := g.root(names[0]), g.root(name); a != b {
			g[a] = b
		}
	}
}

// person is a contact as the processors know it, with what was said of it.
type person struct {
	id, userID   string
	merged, anon []string
	facts        []*Payload
	events       []*Payload
	ended        bool
	told         []string // ids of all payloads about it and who was merged into it
}

type history struct {
	t      *rapid.T
	people []*person
	order  []*Payload // as they happened
	n      int
}

func (h *history) payload(p *person, m schemas.Message) {
	made, err := PayloadOf(m)
	require.NoError(h.t, err)
	if made.Fact != nil {
		p.facts = append(p.facts, made)
	} else {
		p.events = append(p.events, made)
	}
	p.told = append(p.told, made.ID)
	h.order = append(h.order, made)
}

func (h *history) id(what string) string {
	h.n++
	return uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, what, h.n)).String()
}

func (h *history) fact(p *person, typ string) *schemas.Fact {
	f := &schemas.Fact{ID: h.id("fact"), Type: typ, ContactID: p.id, OccurredAt: time.Unix(1_700_000_000, 0)}
	if p.userID != "" {
		f.UserID = &p.userID
	}
	if len(p.anon) > 0 {
		f.AnonymousID = &p.anon[0]
	}
	return f
}

func (h *history) create(userID string) {
	p := &person{id: h.id("contact"), userID: userID}
	if rapid.Bool().Draw(h.t, "has an anonymous id") {
		p.anon = []string{h.id("anon")}
	}
	h.people = append(h.people, p)
	f := h.fact(p, schemas.FactContactCreated)
	f.Contact = &schemas.ContactFact{Properties: "{}"}
	h.payload(p, f)
}

func (h *history) event(p *person) {
	f := h.fact(p, "")
	e := &schemas.Event{ID: h.id("event"), ContactID: p.id, Name: "x", UserID: f.UserID, AnonymousID: f.AnonymousID, Properties: "{}", OccurredAt: f.OccurredAt}
	if len(p.anon) > 0 {
		e.AnonymousID = &p.anon[rapid.IntRange(0, len(p.anon)-1).Draw(h.t, "device")]
	}
	h.payload(p, e)
}

func (h *history) device(p *person) {
	p.anon = append(p.anon, h.id("anon"))
	f := h.fact(p, schemas.FactContactUpdated)
	f.Contact = &schemas.ContactFact{Properties: "{}", Changed: []string{"anonymousId"}}
	h.payload(p, f)
}

func (h *history) identify(p *person) {
	if p.userID != "" {
		return
	}
	p.userID = rapid.SampledFrom([]string{"user-", "u "}).Draw(h.t, "user id") + h.id("user")
	f := h.fact(p, schemas.FactContactUpdated)
	f.Contact = &schemas.ContactFact{Properties: "{}", Changed: []string{"userId"}, Merged: slices.Clone(p.merged), AnonymousIDs: slices.Clone(p.anon)}
	h.payload(p, f)
}

// merge follows the processors: who has a user id survives, two user ids never merge.
func (h *history) merge(survivor, loser *person) {
	if survivor == loser || loser.userID != "" {
		return
	}
	m := &schemas.ContactMerged{LoserID: loser.id, Properties: "{}", LoserMerged: slices.Clone(loser.merged)}
	for _, a := range loser.anon {
		m.Gained = append(m.Gained, schemas.Identifier{Kind: schemas.KindAnonymous, Value: a})
	}
	survivor.anon = append(survivor.anon, loser.anon...)
	survivor.merged = append(append(survivor.merged, loser.id), loser.merged...)
	survivor.told = append(survivor.told, loser.told...)
	loser.ended = true
	f := h.fact(survivor, schemas.FactContactMerged)
	f.Merged = m
	h.payload(survivor, f)
}

func drawHistory(t *rapid.T) *history {
	h := &history{t: t}
	for range rapid.IntRange(1, 40).Draw(t, "steps") {
		live := slices.DeleteFunc(slices.Clone(h.people), func(p *person) bool { return p.ended })
		what := rapid.SampledFrom([]string{"create", "create", "known", "event", "event", "device", "identify", "merge", "merge"}).Draw(t, "what")
		if len(live) == 0 || what == "create" || what == "known" {
			userID := ""
			if what == "known" {
				userID = h.id("user")
			}
			h.create(userID)
			continue
		}
		p := rapid.SampledFrom(live).Draw(t, "who")
		switch what {
		case "event":
			h.event(p)
		case "device":
			h.device(p)
		case "identify":
			h.identify(p)
		case "merge":
			h.merge(p, rapid.SampledFrom(live).Draw(t, "loser"))
		}
	}
	return h
}

// interleave delivers what is said of a contact in its order, facts and events each
// for themselves, and those of different contacts in any.
func (h *history) interleave() (order []*Payload) {
	var lanes [][]*Payload
	for _, p := range h.people {
		lanes = append(lanes, p.facts, p.events)
	}
	for {
		lanes = slices.DeleteFunc(lanes, func(l []*Payload) bool { return len(l) == 0 })
		if len(lanes) == 0 {
			return order
		}
		i := rapid.IntRange(0, len(lanes)-1).Draw(h.t, "lane")
		order, lanes[i] = append(order, lanes[i][0]), lanes[i][1:]
	}
}

func deliverTo(t require.TestingT, sink Sink, order []*Payload, take func(require.TestingT, map[string]any)) {
	for batch := range slices.Chunk(order, 7) {
		req, err := sink.Build(&Attempt{Now: time.Now(), Payloads: batch})
		require.NoError(t, err)
		var body struct {
			Batch []map[string]any `json:"batch"`
		}
		require.NoError(t, json.Unmarshal(req.Body, &body))
		for _, item := range body.Batch {
			take(t, item)
		}
	}
}

func TestWhateverHappensToAContactItIsOnePersonOfPosthog(t *testing.T) {
	sink, err := openPosthog(&storage.Destination{Config: json.RawMessage(`{"apiKey":"k"}`)}, transport.NewGuard(transport.Config{}))
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		for _, order := range [][]*Payload{h.order, h.interleave()} {
			ph := &projects{persons: map[string]*posthogPerson{}}
			deliverTo(t, sink, order, ph.take)
			require.Zero(t, ph.refused)
			for _, p := range h.people {
				if !p.ended {
					name := posthogDistinctID(Person{ContactID: p.id, UserID: &p.userID})
					require.ElementsMatch(t, p.told, ph.person(name).events, "contact %s has all that happened to it, and nothing else", p.id)
				}
			}
			if &order[0] == &h.order[0] {
				require.Zero(t, ph.unnecessary, "merged dangerously where there was another way")
			}
		}
	})
}

func TestWhateverHappensToAContactWithAUserIDItIsOnePersonOfSegment(t *testing.T) {
	sink, err := openSegment(&storage.Destination{Config: json.RawMessage(`{"writeKey":"k"}`)}, transport.NewGuard(transport.Config{}))
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		g, ids := graph{}, map[string]string{} // messageId → a name
		deliverTo(t, sink, h.interleave(), func(t require.TestingT, m map[string]any) {
			g.take(t, m)
			name := "a:" + text(m["anonymousId"])
			if user := text(m["userId"]); user != "" {
				name = "u:" + user
			}
			require.NotContains(t, ids, m["messageId"])
			ids[m["messageId"].(string)] = name
		})
		owner := map[string]*person{}
		for _, p := range h.people {
			if p.ended {
				continue
			}
			for _, id := range p.told {
				root := g.root(ids["msg_"+id])
				if p.userID != "" {
					require.Equal(t, g.root("u:"+p.userID), root, "contact %s", p.id)
				}
				require.True(t, owner[root] == nil || owner[root] == p, "two contacts are one person")
				owner[root] = p
			}
		}
	})
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
