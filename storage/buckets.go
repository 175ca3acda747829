package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// BucketTransition is that a contact joined a bucket, or left it.
type BucketTransition struct {
	ContactID string
	Partition int32
	BucketID  string
	Epoch     int64 // which join of the contact it is, from 1; a leave has that of its join
	// Entered is a join. Kept says that the member goes on, with other ends than before. What
	// is neither is a leave.
	Entered, Kept bool
	At            time.Time
	Source        string // of a join
	Reason        string // of a leave
	// Until is when somebody put in by hand leaves, MaxDwellAt when anybody does; zero for
	// never.
	Until, MaxDwellAt time.Time
	Why               []byte // what is kept of a join or a leave to explain it; see BucketWhys
}

// whysKept is of how many memberships of a contact in a bucket, the newest, it is kept why.
const whysKept = 8

// place is what tells a join, and the leave that ends it, from others.
func (t *BucketTransition) place() bucketPlace { return bucketPlace{t.BucketID, t.ContactID, t.Epoch} }

type bucketPlace struct {
	bucket, contact string
	epoch           int64
}

// The counters are written in the statements that write the rows, from the rows that were
// written indeed: whatever is sent twice, counter = rows.
const (
	countedBuckets = `
INSERT INTO bucket_counts AS c (bucket_id, partition, entered, left_, entered_secs, left_secs)
SELECT bucket_id, partition, sum(entered), sum(left_), sum(entered_secs), sum(left_secs) FROM changed
GROUP BY bucket_id, partition ORDER BY bucket_id, partition
ON CONFLICT (bucket_id, partition) DO UPDATE
SET entered = c.entered + excluded.entered, left_ = c.left_ + excluded.left_,
    entered_secs = c.entered_secs + excluded.entered_secs, left_secs = c.left_secs + excluded.left_secs`
	countedDays = `
INSERT INTO bucket_days AS d (bucket_id, day, partition, entered, left_)
SELECT bucket_id, day, partition, sum(entered), sum(left_) FROM daily
GROUP BY bucket_id, day, partition ORDER BY bucket_id, day, partition
ON CONFLICT (bucket_id, day, partition) DO UPDATE
SET entered = d.entered + excluded.entered, left_ = d.left_ + excluded.left_`

	saveJoins = `
WITH joined AS (
    INSERT INTO bucket_members (bucket_id, contact_id, epoch, partition, entered_at, source, until, max_dwell_at, entered_why)
    SELECT v.* FROM unnest($1::text[], $2::text[]::uuid[], $3::bigint[], $4::integer[], $5::timestamptz[], $6::text[], $7::timestamptz[], $8::timestamptz[], $9::bytea[]) AS v
    ON CONFLICT (bucket_id, contact_id, epoch) DO NOTHING
    RETURNING bucket_id, partition, entered_at
), changed AS (
    SELECT bucket_id, partition, 1 AS entered, 0 AS left_, extract(epoch FROM entered_at) AS entered_secs, 0 AS left_secs FROM joined
), daily AS (
    SELECT bucket_id, partition, (entered_at AT TIME ZONE 'UTC')::date AS day, 1 AS entered, 0 AS left_ FROM joined
), counted AS (` + countedBuckets + `)` + countedDays

	forgetWhys = `
UPDATE bucket_members AS m SET entered_why = NULL, left_why = NULL
FROM unnest($1::text[], $2::text[]::uuid[], $3::bigint[]) AS v (bucket_id, contact_id, epoch)
WHERE m.bucket_id = v.bucket_id AND m.contact_id = v.contact_id AND m.epoch = v.epoch AND (m.entered_why IS NOT NULL OR m.left_why IS NOT NULL)`

	saveKept = `
UPDATE bucket_members AS m SET until = v.until, max_dwell_at = v.max_dwell_at
FROM unnest($1::text[], $2::text[]::uuid[], $3::bigint[], $4::timestamptz[], $5::timestamptz[]) AS v (bucket_id, contact_id, epoch, until, max_dwell_at)
WHERE m.bucket_id = v.bucket_id AND m.contact_id = v.contact_id AND m.epoch = v.epoch AND m.left_at IS NULL`

	saveLeaves = `
WITH ended AS (
    UPDATE bucket_members AS m SET left_at = v.at, reason = v.reason, left_why = v.why
    FROM unnest($1::text[], $2::text[]::uuid[], $3::bigint[], $4::timestamptz[], $5::text[], $6::bytea[]) AS v (bucket_id, contact_id, epoch, at, reason, why)
    WHERE m.bucket_id = v.bucket_id AND m.contact_id = v.contact_id AND m.epoch = v.epoch AND m.left_at IS NULL
    RETURNING m.bucket_id, m.partition, m.left_at
), changed AS (
    SELECT bucket_id, partition, 0 AS entered, 1 AS left_, 0 AS entered_secs, extract(epoch FROM left_at) AS left_secs FROM ended
), daily AS (
    SELECT bucket_id, partition, (left_at AT TIME ZONE 'UTC')::date AS day, 0 AS entered, 1 AS left_ FROM ended
), counted AS (` + countedBuckets + `)` + countedDays

	// uncounted takes rows that were removed off the counters.
	uncounted = `, changed AS (
    SELECT bucket_id, partition, -1 AS entered, CASE WHEN left_at IS NULL THEN 0 ELSE -1 END AS left_,
           -extract(epoch FROM entered_at) AS entered_secs, -coalesce(extract(epoch FROM left_at), 0) AS left_secs
    FROM removed
), daily AS (
    SELECT bucket_id, partition, (entered_at AT TIME ZONE 'UTC')::date AS day, -1 AS entered, 0 AS left_ FROM removed
    UNION ALL
    SELECT bucket_id, partition, (left_at AT TIME ZONE 'UTC')::date, 0, -1 FROM removed WHERE left_at IS NOT NULL
), counted AS (` + countedBuckets + `), counted_days AS (` + countedDays + `)
SELECT count(*), coalesce(array_agg(DISTINCT contact_id::text), '{}') FROM removed`

	forgetMembers = `
WITH removed AS (
    DELETE FROM bucket_members WHERE contact_id = ANY ($1::text[]::uuid[]) RETURNING *
)` + uncounted
)

// SaveBucketTransitions writes what happened to members of buckets, with the counters, in
// one round trip of at most five statements, however many there are. Several transitions
// of one contact and bucket are in the order in which they happened. Of the contacts in
// forget nothing is left.
//
// What was written before changes nothing; nor does what goes on or ends without its join,
// as when the bucket was purged.
func (tx *Tx) SaveBucketTransitions(ctx context.Context, transitions []BucketTransition, forget []string) error {
	var batch pgx.Batch
	joins, kept, leaves := sortTransitions(transitions)
	if len(joins) > 0 {
		queueJoins(&batch, joins)
	}
	if len(kept) > 0 {
		queueKept(&batch, kept)
	}
	if len(leaves) > 0 {
		queueLeaves(&batch, leaves)
	}
	if len(forget) > 0 {
		batch.Queue(forgetMembers, forget)
	}
	return tx.writeAll(ctx, fmt.Sprintf("save %d transitions of buckets, forget %d contacts", len(transitions), len(forget)), &batch)
}

// sortTransitions parts them by kind, of each place the last: one statement must not touch a
// row twice.
func sortTransitions(all []BucketTransition) (joins, kept, leaves []*BucketTransition) {
	seenJoins, seenKept, seenLeaves := map[bucketPlace]bool{}, map[bucketPlace]bool{}, map[bucketPlace]bool{}
	for i := len(all) - 1; i >= 0; i-- {
		kind, seen := &leaves, seenLeaves
		switch t := &all[i]; {
		case t.Entered:
			kind, seen = &joins, seenJoins
		case t.Kept:
			kind, seen = &kept, seenKept
		}
		if place := all[i].place(); !seen[place] {
			seen[place] = true
			*kind = append(*kind, &all[i])
		}
	}
	return joins, kept, leaves
}

func queueJoins(batch *pgx.Batch, joins []*BucketTransition) {
	n := len(joins)
	buckets, contacts, epochs, partitions := make([]string, n), make([]string, n), make([]int64, n), make([]int32, n)
	at, sources, until, maxDwell := make([]time.Time, n), make([]string, n), make([]*time.Time, n), make([]*time.Time, n)
	whys, old := make([][]byte, n), oldWhys{}
	for i, t := range joins {
		buckets[i], contacts[i], epochs[i], partitions[i] = t.BucketID, t.ContactID, t.Epoch, t.Partition
		at[i], sources[i], until[i], maxDwell[i] = t.At, t.Source, optionalTime(t.Until), optionalTime(t.MaxDwellAt)
		whys[i] = t.Why
		old.add(t)
	}
	batch.Queue(saveJoins, buckets, contacts, epochs, partitions, at, sources, until, maxDwell, whys)
	old.queue(batch)
}

// oldWhys are memberships of which it is kept no more why they began and ended.
type oldWhys struct {
	buckets, contacts []string
	epochs            []int64
}

// add takes the one that is too old because of a join.
func (o *oldWhys) add(join *BucketTransition) {
	if join.Epoch > whysKept {
		o.buckets, o.contacts, o.epochs = append(o.buckets, join.BucketID), append(o.contacts, join.ContactID), append(o.epochs, join.Epoch-whysKept)
	}
}

func (o *oldWhys) queue(batch *pgx.Batch) {
	if len(o.epochs) > 0 {
		batch.Queue(forgetWhys, o.buckets, o.contacts, o.epochs)
	}
}

func queueKept(batch *pgx.Batch, kept []*BucketTransition) {
	n := len(kept)
	buckets, contacts, epochs := make([]string, n), make([]string, n), make([]int64, n)
	until, maxDwell := make([]*time.Time, n), make([]*time.Time, n)
	for i, t := range kept {
		buckets[i], contacts[i], epochs[i] = t.BucketID, t.ContactID, t.Epoch
		until[i], maxDwell[i] = optionalTime(t.Until), optionalTime(t.MaxDwellAt)
	}
	batch.Queue(saveKept, buckets, contacts, epochs, until, maxDwell)
}

func queueLeaves(batch *pgx.Batch, leaves []*BucketTransition) {
	n := len(leaves)
	buckets, contacts, epochs := make([]string, n), make([]string, n), make([]int64, n)
	at, reasons, whys := make([]time.Time, n), make([]string, n), make([][]byte, n)
	for i, t := range leaves {
		buckets[i], contacts[i], epochs[i], at[i], reasons[i] = t.BucketID, t.ContactID, t.Epoch, t.At, t.Reason
		whys[i] = t.Why
	}
	batch.Queue(saveLeaves, buckets, contacts, epochs, at, reasons, whys)
}

// PurgeBucket removes at most limit rows of a bucket, from rows and counters, and says how
// many and of which contacts: none when nothing is left of it.
func (tx *Tx) PurgeBucket(ctx context.Context, bucket string, limit int) (removed int64, contacts []string, err error) {
	const purge = `
WITH removed AS (
    DELETE FROM bucket_members AS m
    WHERE m.ctid IN (SELECT ctid FROM bucket_members WHERE bucket_id = $1 ORDER BY contact_id, epoch LIMIT $2 FOR UPDATE)
    RETURNING m.*
)` + uncounted
	if err := tx.sql.QueryRow(ctx, purge, bucket, limit).Scan(&removed, &contacts); err != nil || removed > 0 {
		return removed, contacts, wrapBucket(err, "purge", bucket)
	}
	const counters = `
WITH counts AS (DELETE FROM bucket_counts WHERE bucket_id = $1 AND entered = 0)
DELETE FROM bucket_days WHERE bucket_id = $1 AND entered = 0 AND left_ = 0`
	_, err = tx.sql.Exec(ctx, counters, bucket)
	return 0, nil, wrapBucket(err, "purge", bucket)
}

func wrapBucket(err error, what, bucket string) error {
	if err != nil {
		return fmt.Errorf("%s bucket %s: %w", what, bucket, err)
	}
	return nil
}
