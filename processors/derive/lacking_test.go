package derive

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// lacking is a stepper that lacks what a step needs whose record's name begins so, as long as
// it does not have the code.
type lacking struct {
	stepper
	code *bool
}

func (l lacking) Lacks(_ []string, r *Record[[]string], now time.Time) time.Time {
	name := ""
	switch {
	case r.Event != nil:
		name = r.Event.Name
	case r.Timer != nil:
		name = r.Timer.What
	case r.Command != nil:
		name = r.Command.What
	}
	if *l.code || !strings.HasPrefix(name, "code") {
		return time.Time{}
	}
	return now.Add(time.Minute)
}

// namesAndArms is names, with commands; an event "arm" arms timer "code".
func namesAndArms(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
	result, err := names(s, r, now)
	if r.Command != nil {
		result.State = append(slices.Clone(s), r.Command.What)
	}
	if r.Event != nil && r.Event.Name == "arm" {
		result.Timers = []Timer{{What: "code", Due: now.Add(time.Minute)}}
	}
	return result, err
}

func newLacking(t *testing.T) (b *bench, code *bool) {
	t.Helper()
	b, code = newBench(t, namesAndArms), new(bool)
	b.m.l = lacking{stepper{step: namesAndArms}, code}
	return b, code
}

func command(what string) *schemas.Signal {
	return &schemas.Signal{ID: schemas.Derive(someone, what, 0), Type: schemas.SignalCommand, For: simName, ContactID: someone, What: what}
}

// lookAgain tells the timer that has the contact looked at again.
func (b *bench) lookAgain() {
	b.t.Helper()
	i := slices.IndexFunc(b.c.timers, func(t storage.Timer) bool { return t.What == storage.TimerWaiting })
	require.GreaterOrEqual(b.t, i, 0, "it is looked at again")
	b.tell(b.c.timers[i])
}

func (b *bench) tell(timer storage.Timer) {
	b.handle(&schemas.Signal{ID: "t", Type: schemas.SignalTimer, For: simName, ContactID: someone, What: timer.What, Epoch: timer.Epoch})
}

func TestWhatNeedsCodeThatIsElsewhereWaitsWithWhatComesAfterIt(t *testing.T) {
	b, code := newLacking(t)
	b.handle(event("one", 1, 0))
	b.handle(event("code-a", 2, 0))
	b.handle(event("three", 3, 0))
	require.Equal(t, []string{"one"}, b.c.state)
	require.Equal(t, int64(1), b.c.row.Seq)
	b.lookAgain()
	require.Equal(t, []string{"one"}, b.c.state, "its code is still elsewhere")
	*code = true
	b.lookAgain()
	require.Equal(t, []string{"one", "code-a", "three"}, b.c.state)
	require.Empty(t, b.c.held)
	require.Empty(t, b.c.timers)
}

func TestTheNextRecordOfAContactLooksAtWhatWaits(t *testing.T) {
	b, code := newLacking(t)
	b.handle(event("code-a", 1, 0))
	*code = true
	b.handle(event("two", 2, 0))
	require.Equal(t, []string{"code-a", "two"}, b.c.state)
	require.Empty(t, b.c.timers, "nothing waits any more")
}

func TestACommandAndATimerWaitForTheirCodeToo(t *testing.T) {
	b, code := newLacking(t)
	b.handle(event("arm", 1, 0))
	due := b.c.timers[0]
	b.tell(due)
	b.handle(command("code-x"))
	b.handle(command("code-x"))
	b.handle(command("plain"))
	require.Equal(t, []string{"arm", "plain"}, b.c.state)
	require.Len(t, b.c.held, 1, "a command that is told again is one")
	*code = true
	b.tell(due)
	require.Equal(t, []string{"arm", "plain", "code-x"}, b.c.state, "the timer was armed anew; what waits goes on")
	i := slices.IndexFunc(b.c.timers, func(t storage.Timer) bool { return t.What == "code" })
	require.Negative(t, i, "of a step that does not name it")

	b, code = newLacking(t)
	b.handle(event("arm", 1, 0))
	b.tell(b.c.timers[0])
	*code = true
	b.tell(b.c.timers[0])
	require.Equal(t, []string{"arm", "code"}, b.c.state)
}

func TestWhoIsErasedWhileARecordWaitsLeavesNothing(t *testing.T) {
	b, _ := newLacking(t)
	b.handle(event("code-a", 1, 0))
	b.handle(&schemas.Signal{ID: "d", Type: schemas.SignalDeleted, For: simName, ContactID: someone, Deleted: &schemas.DeletedSignal{Seq: 1}})
	require.Empty(t, b.c.held)
	require.Empty(t, b.c.timers)
	require.True(t, b.c.row.Ended)
}

func TestWhoIsMergedAwayHandsOverWhenWhatWaitsWasStepped(t *testing.T) {
	b, code := newLacking(t)
	b.handle(event("code-a", 1, 0))
	b.handle(command("code-x"))
	b.handle(&schemas.Signal{ID: "m", Type: schemas.SignalMerged, For: simName, ContactID: someone, Merged: &schemas.MergedSignal{Survivor: other, Seq: 1}})
	require.Empty(t, b.sent, "the survivor waits, too")
	*code = true
	b.lookAgain()
	require.Len(t, b.sent, 1)
	handed, err := (&incoming{signal: b.sent[0].(*schemas.Signal)}).handed()
	require.NoError(t, err)
	require.JSONEq(t, `["code-a","code-x"]`, string(handed.State))
}

func TestACommandThatWaitsFollowsAContactThatIsMergedAway(t *testing.T) {
	b, _ := newLacking(t)
	b.handle(event("one", 1, 0))
	b.handle(command("code-x"))
	b.handle(&schemas.Signal{ID: "m", Type: schemas.SignalMerged, For: simName, ContactID: someone, Merged: &schemas.MergedSignal{Survivor: other, Seq: 1}})
	require.Len(t, b.sent, 2)
	onward := b.sent[1].(*schemas.Signal)
	require.Equal(t, []string{other, "code-x", schemas.SignalCommand}, []string{onward.ContactID, onward.What, onward.Type})
}

// Whenever the code comes and goes, and in whatever order and however often records come,
// each numbered one is stepped once and in order, and none that needs code without it.
func TestWhateverHasTheCodeWhenRecordsAreSteppedInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b, code := newLacking(t)
		n := rapid.IntRange(1, 8).Draw(rt, "records")
		var want, stepped []string
		var all []*schemas.Event
		for i := range n {
			name := rapid.SampledFrom([]string{"code", "plain"}).Draw(rt, "name") + string(rune('a'+i))
			want, all = append(want, name), append(all, event(name, int64(i+1), 0))
		}
		step := func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
			if r.Event != nil {
				require.True(rt, *code || !strings.HasPrefix(r.Event.Name, "code"), "it was stepped without its code")
				stepped = append(stepped, r.Event.Name)
			}
			return namesAndArms(s, r, now)
		}
		b.m.l = lacking{stepper{step: step}, code}
		for range rapid.IntRange(0, 30).Draw(rt, "moves") {
			*code = rapid.Bool().Draw(rt, "code")
			b.handle(rapid.SampledFrom(all).Draw(rt, "record"))
		}
		*code = true
		for _, e := range all {
			b.handle(e)
		}
		require.Equal(rt, want, stepped)
		require.Equal(rt, want, b.c.state)
	})
}

func TestARecordWaitsInPostgresForAProcessThatHasItsCode(t *testing.T) {
	in := &incoming{
		cause:  &stream.Record{Topic: schemas.TopicSignals, Key: []byte(someone), Value: []byte("x"), ID: "i"},
		signal: command("code-x"), fresh: true,
	}
	require.NotEmpty(t, heldRow(in).Value, "a command is kept whole")
}
