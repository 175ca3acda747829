package storage

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// BucketMember is a join of a contact to a bucket, and the leave that ended it.
type BucketMember struct {
	BucketID  string
	ContactID string
	Epoch     int64 // which join of the contact it is, from 1
	// UserID is the contact's external id, else its anonymous id, else the contact's own
	// id, as they are now; Email is empty when it has none.
	UserID, Email string
	EnteredAt     time.Time
	LeftAt        time.Time // zero of a member
	Source        string    // of the join
	Reason        string    // of the leave
	// Until is when one put in by hand leaves, MaxDwellAt when anybody does; zero for never.
	Until, MaxDwellAt time.Time
}

// BucketMemberFilter says which members a list has.
type BucketMemberFilter struct {
	Left      bool   // those that left, else those that are members
	ContactID string // of this contact alone
}

const selectBucketMembers = `
SELECT m.bucket_id, m.contact_id::text, m.epoch, coalesce(c.external_id, c.anonymous_id, m.contact_id::text), coalesce(c.email, ''),
       m.entered_at, m.left_at, m.source, coalesce(m.reason, ''), m.until, m.max_dwell_at
FROM bucket_members AS m LEFT JOIN contacts AS c ON c.id = m.contact_id`

func scanBucketMember(row pgx.CollectableRow) (m BucketMember, err error) {
	var left, until, maxDwell *time.Time
	err = row.Scan(&m.BucketID, &m.ContactID, &m.Epoch, &m.UserID, &m.Email, &m.EnteredAt, &left, &m.Source, &m.Reason, &until, &maxDwell)
	m.EnteredAt = m.EnteredAt.UTC()
	m.LeftAt, m.Until, m.MaxDwellAt = timeOrZero(left), timeOrZero(until), timeOrZero(maxDwell)
	return m, err
}

// timeOrZero is a time that may be NULL, in UTC.
func timeOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// memberPlace is where a page of members ends.
type memberPlace struct {
	At      time.Time
	Contact string
	Epoch   int64
}

// where is the condition of the rows of a bucket, $1, that a filter takes, whose contact is $2.
// Members and those who left have an index each.
func (f BucketMemberFilter) where() string {
	condition := ` WHERE m.bucket_id = $1 AND m.left_at IS NULL`
	if f.Left {
		condition = ` WHERE m.bucket_id = $1 AND m.left_at IS NOT NULL`
	}
	if f.ContactID == "" {
		return condition + ` AND $2::text = ''`
	}
	return condition + ` AND m.contact_id = $2::text::uuid`
}

const newestJoinsFirst = ` ORDER BY m.entered_at DESC, m.contact_id DESC, m.epoch DESC`

// ListBucketMembers returns a page of a bucket's members, or of who left it, the newest
// joins first. To read all of them there is WalkBucketMembers.
func (db *DB) ListBucketMembers(ctx context.Context, bucket string, f BucketMemberFilter, limit, offset int) ([]BucketMember, error) {
	rows, err := db.sql.Query(ctx, selectBucketMembers+f.where()+newestJoinsFirst+` LIMIT $3 OFFSET $4`, bucket, f.ContactID, limit, offset)
	return collectMembers(rows, err, bucket)
}

func collectMembers(rows pgx.Rows, err error, bucket string) (members []BucketMember, _ error) {
	if err == nil {
		members, err = pgx.CollectRows(rows, scanBucketMember)
	}
	return members, wrapBucket(err, "list members of", bucket)
}

// WalkBucketMembers returns the next members, the newest joins first, and the cursor of
// those after them, empty at the end; it begins with an empty cursor. What a call costs
// does not depend on how far it is. Whoever is a member all the while comes once, and nobody
// twice. ErrListCursor for a cursor that is none.
func (db *DB) WalkBucketMembers(ctx context.Context, bucket string, f BucketMemberFilter, limit int, cursor string) (members []BucketMember, next string, err error) {
	var after *memberPlace
	if cursor != "" {
		after = &memberPlace{}
		if err := readCursor(cursor, after); err != nil || uuid.Validate(after.Contact) != nil {
			return nil, "", ErrListCursor
		}
	}
	members, err = db.membersAfter(ctx, bucket, f, limit+1, after)
	if err == nil && len(members) > limit {
		members = members[:limit]
		next, err = writeCursor(placeOfMember(&members[limit-1]))
	}
	return members, next, err
}

func placeOfMember(m *BucketMember) *memberPlace {
	return &memberPlace{m.EnteredAt, m.ContactID, m.Epoch}
}

func (db *DB) membersAfter(ctx context.Context, bucket string, f BucketMemberFilter, limit int, after *memberPlace) ([]BucketMember, error) {
	const beyond = ` AND (m.entered_at, m.contact_id, m.epoch) < ($4::timestamptz, $5::text::uuid, $6::bigint)`
	if after == nil {
		return db.ListBucketMembers(ctx, bucket, f, limit, 0)
	}
	rows, err := db.sql.Query(ctx, selectBucketMembers+f.where()+beyond+newestJoinsFirst+` LIMIT $3`, bucket, f.ContactID, limit, after.At, after.Contact, after.Epoch)
	return collectMembers(rows, err, bucket)
}

// membersAtOnce is how many rows EachBucketMember reads at a time.
const membersAtOnce = 1000

// EachBucketMember calls fn with every member of a bucket, as WalkBucketMembers gives them,
// until fn returns an error, which is returned. It reads them a thousand at a time, and
// keeps no transaction open meanwhile.
func (db *DB) EachBucketMember(ctx context.Context, bucket string, fn func(*BucketMember) error) error {
	var after *memberPlace
	for {
		members, err := db.membersAfter(ctx, bucket, BucketMemberFilter{}, membersAtOnce, after)
		if err != nil {
			return err
		}
		for i := range members {
			if err := fn(&members[i]); err != nil {
				return err
			}
		}
		if len(members) < membersAtOnce {
			return nil
		}
		after = placeOfMember(&members[len(members)-1])
	}
}

// IsBucketMember says whether a contact is a member of a bucket now.
func (db *DB) IsBucketMember(ctx context.Context, bucket, contact string) (is bool, err error) {
	const has = `SELECT left_at IS NULL FROM bucket_members WHERE bucket_id = $1 AND contact_id = $2::text::uuid ORDER BY epoch DESC LIMIT 1`
	err = db.sql.QueryRow(ctx, has, bucket, contact).Scan(&is)
	if IsNotFound(err) {
		return false, nil
	}
	return is, wrapBucket(err, "look for a member of", bucket)
}

// BucketsOf says of which of the buckets contacts are members now, in one statement. Of a
// contact that is a member of none there is nothing.
func (db *DB) BucketsOf(ctx context.Context, contacts, buckets []string) (map[string][]string, error) {
	// Without statistics, as of a new bucket, the planner would rather read all members of the
	// buckets: a part of its own leaves it the index of contacts.
	const sql = `
		WITH joins AS MATERIALIZED (
			SELECT contact_id, bucket_id, left_at FROM bucket_members WHERE contact_id = ANY($1::text[]::uuid[])
		)
		SELECT contact_id::text, bucket_id FROM joins WHERE bucket_id = ANY($2) AND left_at IS NULL
		ORDER BY contact_id, bucket_id`
	contacts = slices.DeleteFunc(slices.Clone(contacts), func(id string) bool { return uuid.Validate(id) != nil })
	out := map[string][]string{}
	rows, err := db.sql.Query(ctx, sql, contacts, buckets)
	if err == nil {
		var contact, bucket string
		_, err = pgx.ForEachRow(rows, []any{&contact, &bucket}, func() error {
			out[contact] = append(out[contact], bucket)
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read buckets of contacts: %w", err)
	}
	return out, nil
}

// CountBucketMembers counts the joins of a contact to a bucket that a filter takes.
func (db *DB) CountBucketMembers(ctx context.Context, bucket string, f BucketMemberFilter) (n int, err error) {
	if f.ContactID == "" {
		counts, err := db.BucketCountsOf(ctx, bucket)
		if f.Left {
			return int(counts.Left), err
		}
		return int(counts.Active), err
	}
	err = db.sql.QueryRow(ctx, `SELECT count(*) FROM bucket_members AS m`+f.where(), bucket, f.ContactID).Scan(&n)
	return n, wrapBucket(err, "count members of", bucket)
}

// BucketMemberships returns at most limit joins of a contact to any bucket: those to
// buckets that it is a member of before those that it left, the newest first.
func (db *DB) BucketMemberships(ctx context.Context, contact string, limit int) ([]BucketMember, error) {
	const newest = ` WHERE m.contact_id = $1::text::uuid ORDER BY m.left_at IS NOT NULL, m.entered_at DESC, m.bucket_id, m.epoch DESC LIMIT $2`
	rows, err := db.sql.Query(ctx, selectBucketMembers+newest, contact, limit)
	var members []BucketMember
	if err == nil {
		members, err = pgx.CollectRows(rows, scanBucketMember)
	}
	if err != nil {
		return nil, fmt.Errorf("list memberships of contact %s: %w", contact, err)
	}
	return members, nil
}

// BucketWhy is what is kept of why a membership began and ended.
type BucketWhy struct {
	Epoch             int64
	EnteredAt, LeftAt time.Time // LeftAt is zero of a member
	Source, Reason    string    // of the join, and of the leave
	Entered, Left     []byte    // what SaveBucketTransitions was given as Why; nil is not kept
}

// BucketWhys are those of a contact in a bucket, the newest first, at most limit.
func (db *DB) BucketWhys(ctx context.Context, bucket, contact string, limit int) ([]BucketWhy, error) {
	const newest = `
SELECT epoch, entered_at, left_at, source, coalesce(reason, ''), entered_why, left_why
FROM bucket_members WHERE bucket_id = $1 AND contact_id = $2::text::uuid ORDER BY epoch DESC LIMIT $3`
	rows, err := db.sql.Query(ctx, newest, bucket, contact, limit)
	var found []BucketWhy
	if err == nil {
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (w BucketWhy, err error) {
			var left *time.Time
			err = row.Scan(&w.Epoch, &w.EnteredAt, &left, &w.Source, &w.Reason, &w.Entered, &w.Left)
			w.EnteredAt, w.LeftAt = w.EnteredAt.UTC(), timeOrZero(left)
			return w, err
		})
	}
	return found, wrapBucket(err, "read why contact "+contact+" joined and left", bucket)
}

// BucketCounts is how many joined a bucket, of which how many left, and how many are
// members. It is kept with the members.
type BucketCounts struct {
	BucketID              string
	Active, Entered, Left int64
	// Dwell is how long a join has lasted in the mean, until its leave or until now; zero
	// without any.
	Dwell time.Duration
}

const selectBucketCounts = `
SELECT bucket_id, sum(active)::bigint, sum(entered)::bigint, sum(left_)::bigint,
       coalesce(((sum(left_secs) + sum(active) * extract(epoch FROM clock_timestamp()) - sum(entered_secs)) / nullif(sum(entered), 0))::double precision, 0)
FROM bucket_counts`

func scanBucketCounts(row pgx.CollectableRow) (c BucketCounts, err error) {
	var seconds float64
	err = row.Scan(&c.BucketID, &c.Active, &c.Entered, &c.Left, &seconds)
	c.Dwell = time.Duration(seconds * float64(time.Second))
	return c, err
}

// BucketCounts returns the counters of all buckets, by id. One that nobody ever joined
// is missing.
func (db *DB) BucketCounts(ctx context.Context) (map[string]BucketCounts, error) {
	rows, err := db.sql.Query(ctx, selectBucketCounts+` GROUP BY bucket_id`)
	var all []BucketCounts
	if err == nil {
		all, err = pgx.CollectRows(rows, scanBucketCounts)
	}
	if err != nil {
		return nil, fmt.Errorf("count the members of buckets: %w", err)
	}
	counts := make(map[string]BucketCounts, len(all))
	for _, c := range all {
		counts[c.BucketID] = c
	}
	return counts, nil
}

// BucketCountsOf returns the counters of a bucket.
func (db *DB) BucketCountsOf(ctx context.Context, bucket string) (counts BucketCounts, err error) {
	rows, err := db.sql.Query(ctx, selectBucketCounts+` WHERE bucket_id = $1 GROUP BY bucket_id`, bucket)
	if err == nil {
		counts, err = pgx.CollectExactlyOneRow(rows, scanBucketCounts)
	}
	if IsNotFound(err) {
		return BucketCounts{BucketID: bucket}, nil
	}
	return counts, wrapBucket(err, "count the members of", bucket)
}

// BucketPoint is how many joined and left a bucket in a period.
type BucketPoint struct {
	Date          time.Time // its first day, in UTC
	Entered, Left int64
}

// BucketPoints returns what happened in a bucket on the days from one to another, both
// included and in UTC, by period: day, week (from Monday) or month. Periods without
// anything are left out.
func (db *DB) BucketPoints(ctx context.Context, bucket, period string, from, to time.Time) ([]BucketPoint, error) {
	const points = `
SELECT date_trunc($2, day::timestamp)::date AS date, sum(entered)::bigint, sum(left_)::bigint
FROM bucket_days WHERE bucket_id = $1 AND day BETWEEN $3 AND $4
GROUP BY 1 HAVING sum(entered) + sum(left_) > 0 ORDER BY 1`
	rows, err := db.sql.Query(ctx, points, bucket, cmp.Or(period, "day"), from.UTC(), to.UTC())
	var found []BucketPoint
	if err == nil {
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p BucketPoint, err error) {
			err = row.Scan(&p.Date, &p.Entered, &p.Left)
			return p, err
		})
	}
	return found, wrapBucket(err, "count by period the members of", bucket)
}
