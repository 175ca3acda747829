package buckets

import "time"

// Transition is a change of a membership. Save writes it where members are looked up.
type Transition struct {
	ContactID string
	BucketID  string
	// Epoch numbers the memberships of the contact in the bucket, from 1. Joining and
	// leaving have the same. After a merge the next one is beyond those of both contacts.
	Epoch int64
	// Entered: the membership begins. Kept: it goes on, and only Until and MaxDwellAt are
	// others than before. Neither: it ends.
	Entered, Kept bool
	At            time.Time
	Source        string // event, reconcile (time alone), backfill (a filling) or manual
	Reason        string // of the end: criteria, maxDwell, manual or merged
	Told          bool   // a fact says so
	// Until is when a manual membership expires, MaxDwellAt when the longest stay ends; zero
	// is never.
	Until, MaxDwellAt time.Time
	// Why is what is kept to explain it later, for DecodeKept; nil of one that goes on.
	Why []byte
}

// Membership is what a contact is, or was last, in a bucket.
type Membership struct {
	BucketID          string
	Epoch             int64
	Active            bool
	EnteredAt         time.Time
	LeftAt            time.Time // of the membership before, while Active; zero is never
	Until, MaxDwellAt time.Time // of an active one; zero is never
}
