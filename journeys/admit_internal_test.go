package journeys

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Who enters, by entry limit and by what became of the entry before. A run that was merged
// away has left its entry to the contact that goes on.
func TestWhoEnters(t *testing.T) {
	const period = int64(time.Hour / time.Microsecond)
	now := 10 * period
	nothing := entry{}
	running := entry{count: 1, last: now - period/2, live: true}
	runningLong := entry{count: 1, last: now - 2*period, live: true}
	ended := entry{count: 1, last: now - period/2} // completed, exited, failed or merged
	endedLong := entry{count: 1, last: now - period}
	merged := entry{count: 5, last: now - period/2}
	waiting := entry{count: 1, last: now - 2*period, live: true, queued: &trigger{}}
	enters := verdict{enrol: true}
	for _, c := range []struct {
		name                 string
		e                    entry
		once, period, always verdict
	}{
		{"nothing", nothing, enters, enters, enters},
		{"running", running, verdict{reason: SkipOnce}, verdict{reason: SkipPeriod}, verdict{reason: SkipActive}},
		{"running for long", runningLong, verdict{reason: SkipOnce}, verdict{reason: SkipActive}, verdict{reason: SkipActive}},
		{"completed", ended, verdict{reason: SkipOnce}, verdict{reason: SkipPeriod}, enters},
		{"completed a period ago", endedLong, verdict{reason: SkipOnce}, enters, enters},
		{"exited", ended, verdict{reason: SkipOnce}, verdict{reason: SkipPeriod}, enters},
		{"exited a period ago", endedLong, verdict{reason: SkipOnce}, enters, enters},
		{"merged", merged, verdict{reason: SkipOnce}, verdict{reason: SkipPeriod}, enters},
	} {
		for limit, want := range map[string]verdict{EntryOnce: c.once, EntryOncePerPeriod: c.period, EntryUnlimited: c.always} {
			assert.Equal(t, want, admit(&c.e, policy{limit: limit, period: period, live: LiveIgnore}, now), "%s, %s", c.name, limit)
		}
		// Who unsubscribed enters nothing; limits are looked at before.
		want := verdict{reason: SkipUnsubscribed}
		if c.e.count > 0 {
			want = verdict{reason: SkipOnce}
		}
		assert.Equal(t, want, admit(&c.e, policy{limit: EntryOnce, unsubscribed: true}, now), "%s, unsubscribed", c.name)
		assert.Equal(t, verdict{reason: SkipUnsubscribed}, admit(&c.e, policy{limit: EntryUnlimited, unsubscribed: true, live: LiveRestart}, now), c.name)
	}
	for live, want := range map[string]verdict{LiveIgnore: {reason: SkipActive}, LiveRestart: {enrol: true, restart: true}, LiveQueue: {queue: true}} {
		assert.Equal(t, want, admit(&running, policy{limit: EntryUnlimited, live: live, full: true}, now), live)
		assert.Equal(t, enters, admit(&ended, policy{limit: EntryUnlimited, live: live}, now), live)
		assert.Equal(t, verdict{reason: SkipFull}, admit(&ended, policy{limit: EntryUnlimited, live: live, full: true}, now), live)
	}
	assert.Equal(t, verdict{reason: SkipQueued}, admit(&waiting, policy{limit: EntryUnlimited, live: LiveQueue}, now))
}
