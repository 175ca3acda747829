package console

import (
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/journeys"
)

// reactionJSON is where a journey stands that has no definition of its own.
type reactionJSON struct {
	SourceBucketID *string       `json:"sourceBucketId,omitempty" doc:"The bucket in whose definition it stands, with which it is switched."`
	ReactionKind   *string       `json:"reactionKind,omitempty" enum:"enter,leave,dwell"`
	DwellSchedule  *dwellingJSON `json:"dwellSchedule,omitempty"`
}

type dwellingJSON struct {
	Label string `json:"label"`
	After *int64 `json:"after,omitempty" doc:"milliseconds"`
	Every *int64 `json:"every,omitempty" doc:"milliseconds"`
}

func reactionOf(j *definition.JourneyInUse) (out reactionJSON) {
	if j.Reaction == nil {
		return out
	}
	out.SourceBucketID, out.ReactionKind = &j.Bucket, &j.Reaction.On
	if r := j.Reaction; r.On == journeys.OnDwell {
		out.DwellSchedule = &dwellingJSON{r.Label(), optional(r.After.Milliseconds()), optional(r.Every.Milliseconds())}
	}
	return out
}

// fedJourney is a journey that a bucket begins runs of.
type fedJourney struct {
	ID       string  `json:"id"`
	Name     string  `json:"name"`
	Trigger  string  `json:"trigger" doc:"The first of its triggers that is on this bucket, or on any; empty of a schedule over its members."`
	SourceID *string `json:"sourceBucketId" doc:"The bucket in whose definition it stands."`
	Owned    bool    `json:"owned" doc:"Whether that is this one."`
}

// fedBy are the journeys that a bucket begins runs of.
func (u *inUse) fedBy(bucket string) []fedJourney {
	own, others := []fedJourney{}, []fedJourney{}
	for _, j := range u.AllJourneys() {
		event, is := j.Trigger.OfBucket(bucket)
		fed := fedJourney{j.ID, j.Name, event, optional(j.Bucket), j.Bucket == bucket}
		switch {
		case fed.Owned:
			own = append(own, fed)
		case is:
			others = append(others, fed)
		}
	}
	return append(own, others...)
}
