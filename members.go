package hogstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Members looks up who is in buckets, in the database that Hogstream writes: for a program
// of your own, in whatever process. It is safe for concurrent use.
type Members struct{ db *storage.DB }

// Member is a contact that is in a bucket.
type Member struct {
	// UserID is the contact's user id, else its anonymous id, else ContactID.
	UserID    string
	Email     string // empty when it has none
	ContactID string
	EnteredAt time.Time
	// EntryCount is 1 when the contact joined for the first time.
	EntryCount int64
}

// OpenMembers connects to the database of cfg, of which nothing else is needed; for one that
// RunDev started, Running.FillIn has the settings.
func OpenMembers(ctx context.Context, cfg Config) (*Members, error) {
	db, err := storage.Open(ctx, storage.Config{URL: cfg.Database.URL, MaxConns: cfg.Database.MaxConns})
	if err != nil {
		return nil, fmt.Errorf("look up members: %w", err)
	}
	return &Members{db}, nil
}

// Close closes the connections.
func (m *Members) Close() { m.db.Close() }

// Count is how many members a bucket has. It is kept with them, and costs the same however
// many there are. A bucket that nobody ever joined has none, also one that is not defined.
func (m *Members) Count(ctx context.Context, bucket string) (int64, error) {
	counts, err := m.db.BucketCountsOf(ctx, bucket)
	return counts.Active, err
}

// Has says whether somebody is a member of a bucket, by user id, anonymous id or contact id.
func (m *Members) Has(ctx context.Context, bucket, userID string) (bool, error) {
	contact, err := m.db.ContactNamed(ctx, userID, schemas.KindExternal, schemas.KindAnonymous)
	if err != nil || contact == nil {
		return false, err
	}
	return m.db.IsBucketMember(ctx, bucket, contact.ID)
}

// Page returns at most limit members of a bucket, those who joined last first, and the
// cursor of the next page, empty at the end; it begins with an empty cursor.
func (m *Members) Page(ctx context.Context, bucket string, limit int, cursor string) (members []Member, next string, err error) {
	if limit < 1 {
		return nil, "", fmt.Errorf("limit is %d: give at least 1", limit)
	}
	found, next, err := m.db.WalkBucketMembers(ctx, bucket, storage.BucketMemberFilter{}, limit, cursor)
	for i := range found {
		members = append(members, memberOf(&found[i]))
	}
	return members, next, err
}

// All goes through all members of a bucket, those who joined last first. Whoever is one all
// the while comes once. An error is the last pair.
func (m *Members) All(ctx context.Context, bucket string) iter.Seq2[Member, error] {
	return func(yield func(Member, error) bool) {
		enough := errors.New("enough")
		err := m.db.EachBucketMember(ctx, bucket, func(found *storage.BucketMember) error {
			if !yield(memberOf(found), nil) {
				return enough
			}
			return nil
		})
		if err != nil && !errors.Is(err, enough) {
			yield(Member{}, err)
		}
	}
}

func memberOf(m *storage.BucketMember) Member {
	return Member{m.UserID, m.Email, m.ContactID, m.EnteredAt, m.Epoch}
}
