package explain

import (
	"fmt"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors/buckets"
)

// words says a reason to people. The bucket is nil when it is not defined.
func words(b *definition.BucketInUse, a *Answer, r buckets.Reason) string {
	switch r.Code {
	case buckets.BecauseCriteria:
		if a.Member {
			return "it satisfies the criteria"
		}
		return "it does not satisfy the criteria" + lately(a.Membership)
	case buckets.BecauseManual:
		return "somebody put it in" + until(", until ", r.Until)
	case buckets.BecauseNotPutIn:
		return "the bucket is manual, and nobody ever put it in"
	case buckets.BecauseTakenOut:
		return "the bucket is manual" + lately(a.Membership)
	case buckets.BecauseMinDwell:
		return fmt.Sprintf("it does not satisfy the criteria, and stays for minDwell (%s)%s", b.MinDwell, until(", until ", r.Until))
	case buckets.BecauseMaxDwell:
		return fmt.Sprintf("it satisfies the criteria, but maxDwell (%s) took it out; the next record that the criteria look at lets it join again", b.MaxDwell)
	case buckets.BecauseReconcileJoins:
		return "it satisfies the criteria, but by time alone nobody joins (reconcileJoins is false); the next record that they look at lets it join"
	case buckets.BecauseDue:
		return "time has turned the criteria; that is handled within a second, later while processors are behind"
	case buckets.BecauseDisabled:
		return "the bucket is disabled: members are those of when it was disabled"
	case buckets.BecauseFailing:
		return "the bucket cannot be evaluated, its members stay as they are: " + r.Error
	case buckets.BecauseFilling:
		return "the bucket is new or changed, and it is not the contact's turn yet"
	case buckets.BecauseUnseen:
		return "processor buckets has not seen the contact yet"
	case buckets.BecauseUndefined:
		return "the bucket is defined no more: its members stay until it is purged"
	case buckets.BecauseStays:
		return "it leaves" + until(" at the latest at ", r.Until)
	case buckets.BecauseEntryLimit:
		return fmt.Sprintf("its next join will not be told: entryLimit is %s%s", b.EntryLimit, until(", until ", r.Until))
	}
	return r.Code
}

// lately says how the last membership ended.
func lately(m *Membership) string {
	if m == nil || m.LeftAt.IsZero() {
		return ""
	}
	how := map[string]string{
		"criteria": "when the criteria turned", "maxDwell": "by maxDwell", "manual": "taken out by hand, or because its time was over", "merged": "merged into another contact",
	}[m.Reason]
	return fmt.Sprintf("; it left at %s, %s", clock(m.LeftAt), how)
}

func until(before string, at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return before + clock(at)
}

func clock(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05Z") }
