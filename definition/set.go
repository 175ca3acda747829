package definition

import "time"

// Set is the definitions in use. It is immutable once made, and safe for concurrent use.
type Set struct {
	Version   int64  // from 1, growing by one; 0 when nothing was ever applied
	Hash      string // of the canonical form, SHA-256 in lower-case hex
	AppliedAt time.Time
	AppliedBy string        // who or what applied it, such as "dev" or the name of an API key
	Buckets   []BucketInUse // by id
}

// BucketInUse is a bucket of the set in use. Its Enabled is the effective one: what the
// definition says, unless an administrator switched the bucket.
type BucketInUse struct {
	Bucket
	// Revision is the version of the set at which the bucket was added, enabled again, or
	// changed in anything but name, description and file; or at which that happened to a
	// bucket whose membership it asks for, directly or through others.
	Revision int64
	// Switched is what an administrator switched the bucket to; nil when nobody did.
	Switched *bool
}

// Find is the bucket of that id, or nil.
func (s *Set) Find(id string) *BucketInUse {
	for i := range s.Buckets {
		if s.Buckets[i].ID == id {
			return &s.Buckets[i]
		}
	}
	return nil
}
