package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Lease is the right to write cursors, parked keys and attempts of a partition
// number. The token is fresh at each acquisition, so a former holder is told
// apart from the present one even when both have the same name.
type Lease struct {
	Partition int32
	Token     string
}

// Holder is who takes a lease.
type Holder struct {
	// Name is the instance's, for who reads the table. It proves nothing.
	Name string
	// InstanceID is the same for two processes only if the first was dead when the
	// second began: dead, not silent. Empty when nothing proves that.
	InstanceID string
}

// LeaseRow is a lease as it was read.
type LeaseRow struct {
	Partition int32
	Holder    Holder
	ExpiresAt time.Time
	ReadAt    time.Time // by the database's clock, as ExpiresAt

	token string // "" when there is no row
}

// MayTake says whether somebody other than the process that holds the lease may
// take it. Once it has run out anybody may: the deadlines of all attempts under it
// are over. Before that its own instance may, if it is proven to be the same (the id
// is not empty), for the process that held it is dead and sends nothing more. A
// caller names its instance only at its start: later the lease may be its own.
func (l LeaseRow) MayTake(instanceID string) bool {
	return !l.ReadAt.Before(l.ExpiresAt) || instanceID != "" && instanceID == l.Holder.InstanceID
}

// AcquireLeases takes the leases of those partitions that nobody holds: never
// held, released, or run out by the database's clock. It returns what it got.
func (db *DB) AcquireLeases(ctx context.Context, by Holder, partitions []int32, lasts time.Duration) ([]Lease, error) {
	rows, err := db.readLeases(ctx, partitions)
	if err != nil {
		return nil, err
	}
	found := make(map[int32]LeaseRow, len(rows))
	for _, row := range rows {
		found[row.Partition] = row
	}
	var free []LeaseRow
	for _, p := range partitions {
		row, held := found[p]
		if !held {
			row.Partition = p
		}
		if row.MayTake("") {
			free = append(free, row)
		}
	}
	return db.takeLeases(ctx, by, free, lasts)
}

// TakeBackLeases takes the leases that a dead process of the same instance left,
// also those that have not run out. A process calls it at its start, before it takes
// any other lease. It returns what it got.
func (db *DB) TakeBackLeases(ctx context.Context, by Holder, lasts time.Duration) ([]Lease, error) {
	rows, err := db.readLeases(ctx, nil)
	if err != nil {
		return nil, err
	}
	var left []LeaseRow
	for _, row := range rows {
		if row.Holder.InstanceID == by.InstanceID && row.MayTake(by.InstanceID) {
			left = append(left, row)
		}
	}
	return db.takeLeases(ctx, by, left, lasts)
}

// readLeases reads the leases of partitions, or all when partitions is nil. It locks
// nothing, so that who waits for a lease is not in the way of who has it.
func (db *DB) readLeases(ctx context.Context, partitions []int32) ([]LeaseRow, error) {
	const sql = `
		SELECT partition, holder, COALESCE(instance_id, ''), expires_at, clock_timestamp(), token::text
		FROM leases
		WHERE $1::integer[] IS NULL OR partition = ANY ($1)`
	rows, err := db.sql.Query(ctx, sql, partitions)
	if err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	defer rows.Close()
	var all []LeaseRow
	for rows.Next() {
		var l LeaseRow
		if err := rows.Scan(&l.Partition, &l.Holder.Name, &l.Holder.InstanceID, &l.ExpiresAt, &l.ReadAt, &l.token); err != nil {
			return nil, fmt.Errorf("read leases: %w", err)
		}
		all = append(all, l)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	return all, nil
}

// A row is taken only as it was read: whoever took or renewed it since has it.
const takeSQL = `
	WITH wanted AS (
		SELECT * FROM unnest($1::integer[], $2::uuid[], $3::uuid[], $4::timestamptz[]) AS w (partition, token, seen, expires_at)
	), taken AS (
		INSERT INTO leases AS l (partition, holder, instance_id, token, expires_at)
		SELECT w.partition, $5, NULLIF($6, ''), w.token, clock_timestamp() + $7 * interval '1 microsecond'
		FROM wanted w
		ORDER BY w.partition
		ON CONFLICT (partition) DO UPDATE
		SET holder = EXCLUDED.holder, instance_id = EXCLUDED.instance_id, token = EXCLUDED.token,
		    expires_at = clock_timestamp() + $7 * interval '1 microsecond'
		WHERE EXISTS (
			SELECT FROM wanted w
			WHERE w.partition = l.partition AND w.seen = l.token AND w.expires_at = l.expires_at)
		RETURNING l.partition, l.token
	)
	SELECT partition, token::text FROM taken`

func (db *DB) takeLeases(ctx context.Context, by Holder, seen []LeaseRow, lasts time.Duration) ([]Lease, error) {
	if len(seen) == 0 {
		return nil, nil
	}
	n := len(seen)
	partitions, tokens, former, expiries := make([]int32, n), make([]string, n), make([]*string, n), make([]time.Time, n)
	for i := range seen {
		partitions[i], tokens[i], expiries[i] = seen[i].Partition, uuid.NewString(), seen[i].ExpiresAt
		if seen[i].token != "" {
			former[i] = &seen[i].token
		}
	}
	rows, err := db.sql.Query(ctx, takeSQL, partitions, tokens, former, expiries, by.Name, by.InstanceID, lasts.Microseconds())
	if err != nil {
		return nil, fmt.Errorf("take leases of %v: %w", partitions, err)
	}
	defer rows.Close()
	var got []Lease
	for rows.Next() {
		var l Lease
		if err := rows.Scan(&l.Partition, &l.Token); err != nil {
			return nil, fmt.Errorf("take leases of %v: %w", partitions, err)
		}
		got = append(got, l)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("take leases of %v: %w", partitions, err)
	}
	return got, nil
}

// RenewLeases lets leases last from now on as long as a fresh one, and returns
// the partitions whose lease was still the caller's. A lease that ran out and that
// nobody took is still its holder's.
func (db *DB) RenewLeases(ctx context.Context, leases []Lease, lasts time.Duration) ([]int32, error) {
	const sql = `
		UPDATE leases l
		SET expires_at = clock_timestamp() + $3 * interval '1 microsecond'
		FROM unnest($1::integer[], $2::uuid[]) AS w (partition, token)
		WHERE l.partition = w.partition AND l.token = w.token
		RETURNING l.partition`
	partitions, tokens := splitLeases(leases)
	return db.queryPartitions(ctx, "renew leases", sql, partitions, tokens, lasts.Microseconds())
}

// ReleaseLeases gives leases back, so that the next owner need not wait. Leases
// that are no longer the caller's are left alone. The rows go, so that a renewal
// still on its way finds nothing to revive.
func (db *DB) ReleaseLeases(ctx context.Context, leases []Lease) error {
	const sql = `
		DELETE FROM leases l
		USING unnest($1::integer[], $2::uuid[]) AS w (partition, token)
		WHERE l.partition = w.partition AND l.token = w.token
		RETURNING l.partition`
	partitions, tokens := splitLeases(leases)
	_, err := db.queryPartitions(ctx, "release leases", sql, partitions, tokens)
	return err
}

// HoldLeases locks the rows of leases until tx ends, and returns the partitions
// whose lease is the caller's. Nobody can take those over before tx ends. Every
// transaction that writes what a lease guards begins with it.
func (tx *Tx) HoldLeases(ctx context.Context, leases []Lease) ([]int32, error) {
	const sql = `
		SELECT l.partition
		FROM leases l
		JOIN unnest($1::integer[], $2::uuid[]) AS w (partition, token)
		  ON l.partition = w.partition AND l.token = w.token
		ORDER BY l.partition
		FOR SHARE OF l`
	partitions, tokens := splitLeases(leases)
	return tx.queryPartitions(ctx, "hold leases", sql, partitions, tokens)
}

func splitLeases(leases []Lease) (partitions []int32, tokens []string) {
	for _, l := range leases {
		partitions, tokens = append(partitions, l.Partition), append(tokens, l.Token)
	}
	return partitions, tokens
}

func (q queries) queryPartitions(ctx context.Context, what, sql string, args ...any) ([]int32, error) {
	rows, err := q.sql.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("%s of %v: %w", what, args[0], err)
	}
	defer rows.Close()
	var partitions []int32
	for rows.Next() {
		var p int32
		if err := rows.Scan(&p); err != nil {
			return nil, fmt.Errorf("%s of %v: %w", what, args[0], err)
		}
		partitions = append(partitions, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s of %v: %w", what, args[0], err)
	}
	return partitions, nil
}
