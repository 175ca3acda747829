package schemas

import "time"

// FoldPreferences merges what two contacts wanted for one address, so that no
// opt-out is lost: flags are or-ed, bounces are the larger count, an explicit
// no to a category wins over yes, times are the earliest. The maps of a and b
// are not changed.
func FoldPreferences(a, b Preference) Preference {
	a.UnsubscribedAll = a.UnsubscribedAll || b.UnsubscribedAll
	a.Suppressed = a.Suppressed || b.Suppressed
	a.BounceCount = max(a.BounceCount, b.BounceCount)
	a.SuppressedAt = earliest(a.SuppressedAt, b.SuppressedAt)
	a.LastBounceAt = earliest(a.LastBounceAt, b.LastBounceAt)
	if len(b.Categories) == 0 {
		return a
	}
	categories := make(map[string]bool, len(a.Categories)+len(b.Categories))
	for id, wanted := range b.Categories {
		categories[id] = wanted
	}
	for id, wanted := range a.Categories {
		if other, both := b.Categories[id]; both {
			wanted = wanted && other
		}
		categories[id] = wanted
	}
	a.Categories = categories
	return a
}

func earliest(a, b *time.Time) *time.Time {
	if a == nil || (b != nil && b.Before(*a)) {
		return b
	}
	return a
}
