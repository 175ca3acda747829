package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/stream"
)

// chance is what the tests draw: half of the longest pause, three quarters for a parked key.
const chance = 0.5

var (
	decided = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	rules   = Config{BackoffBase: time.Second, BackoffMax: 5 * time.Minute, ParkedMax: 30 * time.Minute}
)

// after is what the tests change of a situation.
type after func(*situation)

// first is the first attempt at one record of a destination that accepts others.
func first(changes ...after) *situation {
	s := &situation{
		records: withKeys("ada"), parkable: true, tries: 1, horizon: 72 * time.Hour,
		firstFailed: decided.Add(-time.Second), lastFailed: decided.Add(-time.Second), lastDelivery: decided.Add(-time.Millisecond),
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func withKeys(keys ...string) (records []*stream.Record) {
	for _, k := range keys {
		records = append(records, &stream.Record{Key: []byte(k)})
	}
	return records
}

func tries(n int) after { return func(s *situation) { s.tries = n } }
func failingSince(d time.Duration) after {
	return func(s *situation) { s.firstFailed = decided.Add(-d) }
}
func acceptsNothing(s *situation)    { s.lastDelivery = s.lastFailed.Add(-time.Hour) }
func openTime(d time.Duration) after { return func(s *situation) { s.failing = d } }
func batch(keys ...string) after     { return func(s *situation) { s.records = withKeys(keys...) } }
func parkedKey(s *situation)         { s.loaded = true }
func letters(s *situation)           { s.letters = true }
func retired(s *situation)           { s.retired = true }
func halted(s *situation)            { s.halted = true }
func circuitOpen(s *situation)       { s.circuitOpen = true }
func probe(s *situation)             { s.circuitOpen, s.probe = true, true }
func mostFail(s *situation)          { s.mostFail = true }
func askedFor(d time.Duration) after { return func(s *situation) { s.asked = decided.Add(d) } }
func cannotPark(s *situation)        { s.parkable = false }
func refused(inARow, contacts int) after {
	return func(s *situation) { s.refusals, s.refusedKeys = inARow, contacts }
}
func in(d time.Duration) time.Time            { return decided.Add(d) }
func status(v Verdict, code int) Outcome      { return Outcome{Verdict: v, Status: code} }
func asks(d time.Duration, o Outcome) Outcome { o.RetryAfter = d; return o }

// Every verdict in every situation.
func TestWhatFollowsFromAnAttempt(t *testing.T) {
	ok, away, busy := Outcome{Status: 200}, Outcome{Verdict: Retry, Err: "connection refused"}, status(Retry, 503)
	partly := func(verdicts ...Verdict) Outcome {
		o := Outcome{Verdict: Partial, Status: 200}
		for _, v := range verdicts {
			o.Results = append(o.Results, Result{Verdict: v})
		}
		return o
	}
	rest := Outcome{Verdict: Retry, Status: 200}
	for _, row := range []struct {
		says string
		s    *situation
		out  Outcome
		then consequence
	}{
		{"2xx", first(), ok, consequence{fate: finish, accepted: true}},
		{"left out by the filter", first(), status(Skipped, 0), consequence{fate: finish}},
		{"the person was erased", first(), status(Erased, 0), consequence{fate: finish}},

		{"network error", first(), away, consequence{fate: retry, failed: true, at: in(time.Second / 2)}},
		{"408", first(), status(Retry, 408), consequence{fate: retry, failed: true, at: in(time.Second / 2)}},
		{"425, the third time", first(tries(3)), status(Retry, 425), consequence{fate: retry, failed: true, at: in(2 * time.Second)}},
		{"503 asks to wait for 5 s", first(), asks(5*time.Second, busy), consequence{fate: retry, failed: true, at: in(5 * time.Second)}},
		{"429 asks for a minute: looked at when it has failed for 10 s", first(), asks(time.Minute, status(Retry, 429)),
			consequence{fate: retry, failed: true, at: in(time.Minute), lookAt: in(9 * time.Second)}},
		{"the same where nothing can be parked", first(cannotPark), asks(time.Minute, busy), consequence{fate: retry, failed: true, at: in(time.Minute)}},
		{"the pause grows to 5 min", first(tries(100), failingSince(time.Hour), acceptsNothing), busy, consequence{fate: retry, failed: true, at: in(150 * time.Second)}},

		{"400, 413, 422", first(), status(Reject, 422), consequence{fate: bury, reason: "rejected"}},
		{"one that is to be split and is one", first(), status(Split, 413), consequence{fate: bury, reason: "rejected"}},
		{"a batch rejected as a whole", first(batch("ada", "bob")), status(Reject, 400), consequence{fate: split}},
		{"a batch too large", first(batch("ada", "bob")), status(Split, 413), consequence{fate: split}},

		{"401 once", first(refused(1, 1)), status(Refuse, 401), consequence{fate: retry, failed: true, at: in(time.Second / 2)}},
		{"404 19 times in a row", first(refused(19, 5)), status(Refuse, 404), consequence{fate: retry, failed: true, at: in(time.Second / 2)}},
		{"403 20 times in a row over 4 contacts", first(refused(20, 4)), status(Refuse, 403), consequence{fate: retry, failed: true, at: in(time.Second / 2)}},
		{"a redirect 20 times in a row over 5 contacts", first(refused(20, 5)), status(Refuse, 302),
			consequence{fate: retry, failed: true, at: in(time.Second / 2), suspend: "20 attempts in a row were refused, the last with: HTTP 302"}},
		{"the first 410", first(refused(1, 1)), status(Gone, 410),
			consequence{fate: retry, failed: true, at: in(time.Second / 2), suspend: "the receiver is gone: HTTP 410"}},
		{"a 410 when it is suspended already", first(refused(2, 1), halted), status(Gone, 410), consequence{fate: retry, failed: true, at: in(time.Second / 2)}},

		{"failed 5 times while others succeed", first(tries(5)), busy, consequence{fate: park, failed: true, at: in(12 * time.Second)}},
		{"failed for 10 s while others succeed", first(tries(2), failingSince(10*time.Second)), busy, consequence{fate: park, failed: true, at: in(1500 * time.Millisecond)}},
		{"refused 5 times while others succeed", first(tries(5), refused(5, 1)), status(Refuse, 403), consequence{fate: park, failed: true, at: in(12 * time.Second)}},
		{"failed 5 times as everything does", first(tries(5), acceptsNothing), busy, consequence{fate: retry, failed: true, at: in(8 * time.Second)}},
		{"a batch that failed 5 times while others succeed", first(batch("ada", "bob"), tries(5)), busy, consequence{fate: split, failed: true}},
		{"a parked key fails again", first(parkedKey, tries(7), acceptsNothing), busy, consequence{fate: park, failed: true, at: in(48 * time.Second)}},
		{"a parked key asks for 2 h", first(parkedKey, tries(7)), asks(2*time.Hour, busy), consequence{fate: park, failed: true, at: in(2 * time.Hour)}},
		{"a parked key asked for an hour before", first(parkedKey, tries(7), askedFor(time.Hour)), busy, consequence{fate: park, failed: true, at: in(time.Hour)}},
		{"a parked key is tried every 30 min in the end", first(parkedKey, tries(70)), busy, consequence{fate: park, failed: true, at: in(30 * time.Minute * 3 / 4)}},

		{"just within the retry horizon", first(parkedKey, openTime(72*time.Hour-1)), busy, consequence{fate: park, failed: true, at: in(750 * time.Millisecond)}},
		{"the retry horizon is over", first(parkedKey, openTime(72*time.Hour)), busy, consequence{fate: bury, failed: true, reason: "expired"}},
		{"it is over in a lane", first(openTime(72*time.Hour), acceptsNothing), status(Refuse, 401), consequence{fate: bury, failed: true, reason: "expired"}},
		{"a parked key that is rejected", first(parkedKey), status(Reject, 400), consequence{fate: bury, reason: "rejected"}},
		{"a parked key that is delivered", first(parkedKey), ok, consequence{fate: finish, accepted: true}},

		{"most calls fail", first(mostFail), busy, consequence{fate: retry, failed: true, at: in(time.Second / 2), circuit: circuitOpens}},
		{"one more fails that was under way", first(circuitOpen), busy, consequence{fate: retry, failed: true, at: in(time.Second / 2)}},
		{"the probe fails", first(probe), busy, consequence{fate: retry, failed: true, at: in(time.Second / 2), circuit: circuitProbesLater}},
		{"the probe is taken", first(probe), ok, consequence{fate: finish, accepted: true, circuit: circuitCloses}},
		{"the probe is rejected", first(probe), status(Reject, 400), consequence{fate: bury, reason: "rejected", circuit: circuitCloses}},
		{"the probe gets a 429", first(probe), status(Retry, 429), consequence{fate: retry, failed: true, at: in(time.Second / 2), circuit: circuitCloses}},
		{"another call gets through", first(circuitOpen), ok, consequence{fate: finish, accepted: true, circuit: circuitCloses}},
		{"the probe is left out by the filter", first(probe), status(Skipped, 0), consequence{fate: finish}},

		{"each of a batch by itself", first(batch("ada", "bob", "cid", "dan")), partly(Delivered, Reject, Skipped, Retry),
			consequence{fate: divide, each: []fate{finish, bury, finish, retry}, rest: rest, accepted: true}},
		{"behind one that is sent again all of its contact is", first(batch("ada", "bob", "ada", "ada")), partly(Retry, Reject, Delivered, Reject),
			consequence{fate: divide, each: []fate{retry, bury, retry, retry}, rest: rest, accepted: true}},
		{"a batch of which nothing was taken", first(batch("ada", "bob")), partly(Reject, Refuse),
			consequence{fate: divide, each: []fate{bury, retry}, rest: rest}},
		{"a batch that is answered for in part", first(batch("ada", "bob")), partly(Delivered), consequence{fate: retry, failed: true, at: in(time.Second / 2)}},

		{"dead letters are appended", first(letters), Outcome{}, consequence{fate: finish}},
		{"dead letters cannot be appended, for days", first(letters, tries(9), openTime(100*time.Hour), failingSince(time.Hour)), status(Retry, 0),
			consequence{fate: retry, failed: true, at: in(128 * time.Second)}},
		{"dead letters have it panic", first(letters, batch("ada", "bob"), mostFail), status(Reject, 0), consequence{fate: retry, failed: true, at: in(time.Second / 2)}},

		{"delivered when its track has ended", first(retired, probe), ok, consequence{fate: finish}},
		{"failed when its track has ended", first(retired, tries(5), mostFail), busy, consequence{}},
		{"rejected when its track has ended", first(retired), status(Reject, 400), consequence{}},
		{"gone when its track has ended", first(retired, refused(30, 5)), status(Gone, 410), consequence{}},
		{"a batch of which some are taken when its track has ended", first(retired, batch("ada", "bob", "cid")), partly(Delivered, Reject, Retry),
			consequence{fate: divide, each: []fate{finish, forget, forget}}},
	} {
		t.Run(row.says, func(t *testing.T) {
			require.Equal(t, row.then, decide(row.s, &row.out, decided, &rules, chance))
		})
	}
}

func TestWhatWaitsForLongIsParkedWhenItHasFailedForTenSecondsWhileOthersSucceed(t *testing.T) {
	until := in(time.Hour)
	out := Outcome{Verdict: Retry}
	look := func(changes ...after) consequence {
		return first(append([]after{askedFor(time.Hour)}, changes...)...).whileWaiting(&out, until, decided, &rules, chance)
	}
	require.Equal(t, consequence{fate: park, at: until}, look(failingSince(10*time.Second)))
	require.Equal(t, consequence{fate: retry, at: until}, look(failingSince(10*time.Second), acceptsNothing))
	require.Equal(t, consequence{fate: retry, at: until}, look(failingSince(9*time.Second)))
	require.Equal(t, consequence{fate: retry, at: until}, look(failingSince(10*time.Second), batch("ada", "bob")))
}

// Whatever the situation and the outcome: a record is lost by none, and is sent again
// no sooner than the receiver asked for.
func TestNoConsequenceLosesARecordOrIsTooSoon(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
		hours := func(name string) time.Duration {
			return time.Duration(rapid.IntRange(0, 100).Draw(t, name)) * time.Hour
		}
		keys := rapid.SliceOfN(rapid.SampledFrom([]string{"ada", "bob", "cid"}), 1, 5).Draw(t, "keys")
		s := first(batch(keys...), tries(rapid.IntRange(1, 50).Draw(t, "tries")), openTime(hours("open")),
			failingSince(hours("failing")), refused(rapid.IntRange(0, 30).Draw(t, "refusals"), rapid.IntRange(0, 5).Draw(t, "contacts")))
		s.letters, s.retired, s.parkable, s.halted = flag("letters"), flag("retired"), flag("parkable"), flag("halted")
		s.circuitOpen, s.probe, s.mostFail = flag("open"), flag("probe"), flag("mostFail")
		s.loaded = len(keys) == 1 && !s.letters && flag("loaded")
		if flag("asked") {
			s.asks, s.notAfter = make([]bool, len(keys)), decided.Add(hours("in time for"))
			for i := range keys {
				s.asks[i] = i == 0 || flag("asked too")
			}
		}
		verdict := rapid.SampledFrom([]Verdict{Delivered, Skipped, Retry, Reject, Refuse, Gone, Split, Partial, Erased, Expired, Cancelled})
		out := Outcome{Verdict: verdict.Draw(t, "verdict"), RetryAfter: hours("asks")}
		if out.Verdict == Partial {
			for range rapid.IntRange(0, 1).Draw(t, "answered") * len(keys) {
				out.Results = append(out.Results, Result{Verdict: rapid.SampledFrom([]Verdict{Delivered, Skipped, Retry, Reject, Refuse}).Draw(t, "result")})
			}
		}
		q := decide(s, &out, decided, &rules, rapid.Float64Range(0, 0.999).Draw(t, "chance"))

		taken := func(v Verdict) bool { return v == Delivered || !v.sent() }
		switch q.fate {
		case forget:
			require.True(t, s.retired, "only the next owner may be left to send it")
		case finish:
			require.True(t, taken(out.Verdict) || s.isAsked(0) && (out.Verdict == Reject || out.Verdict == Split))
		case retry, park:
			require.True(t, !q.at.Before(decided.Add(out.RetryAfter)) || q.at.Equal(s.notAfter), "then it is looked at, and not sent")
			require.False(t, !s.notAfter.IsZero() && q.at.After(s.notAfter))
			require.False(t, q.fate == park && (len(keys) > 1 || s.letters))
		case bury:
			require.False(t, s.letters || s.retired)
			require.NotEmpty(t, q.reason)
			require.False(t, s.isAsked(0) && q.reason == "rejected", "the receipt says so")
		case split:
			require.Greater(t, len(keys), 1, "it would never end")
		case divide:
			require.Len(t, q.each, len(keys))
			waits := map[string]bool{}
			for i, f := range q.each {
				require.False(t, waits[keys[i]] && (f == finish || f == bury), "it overtakes one of its contact")
				require.True(t, f != finish || taken(out.Results[i].Verdict) || s.isAsked(i) && out.Results[i].Verdict == Reject)
				waits[keys[i]] = waits[keys[i]] || !taken(out.Results[i].Verdict) && out.Results[i].Verdict != Reject
			}
		}
		require.False(t, s.retired && (q.suspend != "" || q.circuit != circuitStays))
		require.False(t, q.circuit == circuitOpens && s.circuitOpen)
	})
}
