package predicate_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	p "github.com/hogstream/hogstream/predicate"
)

// moment is what the model knew as of an instant, after the past so far.
type moment struct {
	at    time.Time
	world world
}

// lived is a case of the random language with the past that led to it.
type lived struct {
	*run
	history p.History
	moments []moment // one for each past
}

func (l *lived) note(past p.Past) {
	past.AsOf = l.now
	l.history.Past = append(l.history.Past, past)
	l.moments = append(l.moments, moment{l.now, l.contacts[0].world})
}

// look evaluates, and notes who joined and left.
func (l *lived) look(touched []int) {
	before := append([]p.Verdict{}, l.verdicts...)
	l.evaluate(touched)
	for i, v := range l.verdicts {
		if v.Holds != before[i].Holds {
			l.note(p.Past{Bucket: l.set.ID(i), Joined: v.Holds})
		}
	}
}

func TestAReplaySaysWhenEachAnswerTurnedLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &lived{run: newRun(t)}
		for i, v := range l.verdicts {
			if v.Holds {
				l.note(p.Past{Bucket: l.set.ID(i), Joined: true})
			}
		}
		for range rapid.IntRange(0, 10).Draw(t, "steps") {
			if draw(t, "step", []string{"record", "record", "time"}) == "time" {
				l.advance()
				l.look(nil)
				continue
			}
			rec := l.record()
			touched := l.apply(&l.contacts[0], rec)
			l.note(p.Past{Record: rec})
			l.look(touched)
		}
		for i := range l.set.Len() {
			e := l.set.Explain(i, &l.contacts[0].state, l, l.now)
			l.set.Replay(i, &e, l.history, l.now)
			l.turnedAsTheModelSays(l.forms[i], &e)
		}
	})
}

// turnedAsTheModelSays asks the model around each moment of the past.
func (l *lived) turnedAsTheModelSays(form object, e *p.Explanation) {
	t := l.t
	switch form["type"] {
	case "composite":
		require.Nil(t, e.Turned)
		for i, inner := range form["conditions"].([]any) {
			l.turnedAsTheModelSays(inner.(object), &e.Conditions[i])
		}
		return
	case "not":
		l.turnedAsTheModelSays(form["condition"].(object), &e.Conditions[0])
		return
	case "bucket":
		return // who is a member is decided at steps alone
	}
	holds := func(k int, at time.Time) bool { return l.moments[k].world.Holds(form, at.UnixMicro()) }
	turned := e.Turned
	for k, m := range l.moments {
		until := l.now // the last instant at which this was all that was known
		if k+1 < len(l.moments) {
			until = l.moments[k+1].at.Add(-time.Microsecond)
		}
		if until.Before(m.at) || turned != nil && until.Before(turned.At) {
			continue
		}
		require.Equal(t, e.Holds, holds(k, until), "%s after it turned last: %+v", marshal(form), turned)
	}
	if turned == nil {
		return
	}
	require.False(t, turned.OrBefore, "all of the past is known")
	for k := len(l.moments) - 1; k >= 0; k-- {
		byTime := turned.By == p.ByTime
		// What time turns at an instant it turns before that instant's records are known.
		if l.moments[k].at.After(turned.At) || byTime && l.moments[k].at.Equal(turned.At) {
			continue
		}
		if byTime {
			require.NotEqual(t, e.Holds, holds(k, turned.At.Add(-time.Microsecond)), "%s before time turned it", marshal(form))
			return
		}
		past := l.history.Past[k] // a record may come twice
		if past.Bucket == "" && past.ID == turned.Record && holds(k, turned.At) == e.Holds && (k == 0 || holds(k-1, turned.At) != e.Holds) {
			return
		}
	}
	require.Fail(t, "nothing of the past turned it", "%s %+v", marshal(form), turned)
}

func TestAPastThatIsNotAllThereSaysAtTheLatest(t *testing.T) {
	c := p.All(p.Event("bought").Count("gte", 2), p.Prop("plan").Eq("pro"))
	set, err := p.Compile([]p.Named{{ID: "c", Condition: c}}, p.Options{Limits: p.DefaultLimits()})
	require.NoError(t, err)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	past := []p.Past{
		{Record: p.Record{ID: uuid.MustParse("00000000-0000-0000-0000-000000000001"), Contact: `{"plan":"pro"}`}, AsOf: at},
		{Record: p.Record{ID: uuid.MustParse("00000000-0000-0000-0000-000000000002"), Name: "bought", At: at}, AsOf: at.Add(time.Hour)},
		{Record: p.Record{ID: uuid.MustParse("00000000-0000-0000-0000-000000000003"), Name: "bought", At: at.Add(time.Hour)}, AsOf: at.Add(2 * time.Hour)},
	}
	var state p.State
	for i := range past {
		set.Apply(&state, &past[i].Record, nil)
	}
	replay := func(h p.History) (bought, plan *p.Turn) {
		e := set.Explain(0, &state, nil, at.Add(3*time.Hour))
		set.Replay(0, &e, h, at.Add(3*time.Hour))
		return e.Conditions[0].Turned, e.Conditions[1].Turned
	}
	bought, plan := replay(p.History{Past: past})
	require.Equal(t, &p.Turn{At: at.Add(2 * time.Hour), By: p.ByRecord, Record: past[2].ID}, bought)
	require.Equal(t, &p.Turn{At: at, By: p.ByRecord, Record: past[0].ID}, plan)

	bought, plan = replay(p.History{Past: past, EventsPart: true, FactsSince: at})
	require.True(t, bought.OrBefore)
	require.True(t, plan.OrBefore)

	bought, plan = replay(p.History{Past: past[2:]})
	require.Nil(t, bought, "the past says otherwise than the state")
	require.Nil(t, plan)
}
