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

const acquireLeases = `
	WITH wanted AS (
		SELECT * FROM unnest($1::integer[], $2::uuid[]) AS w (partition, token)
	), taken AS (
		INSERT INTO leases AS l (partition, holder, token, expires_at)
		SELECT w.partition, $3, w.token, clock_timestamp() + $4 * interval '1 microsecond'
		FROM wanted w
		ORDER BY w.partition
		ON CONFLICT (partition) DO UPDATE
		SET holder = EXCLUDED.holder, token = EXCLUDED.token,
		    expires_at = clock_timestamp() + $4 * interval '1 microsecond'
		WHERE l.expires_at <= clock_timestamp() OR ($5 AND l.holder = EXCLUDED.holder)
		RETURNING l.partition, l.token
	)
	SELECT partition, token::text FROM taken`

// AcquireLeases takes the leases of those partitions that nobody holds: never
// held, released, or run out by the database's clock. With own, those that holder
// itself holds are taken too; a caller says so only while a lock keeps every other
// process of that name away. It returns what it got.
func AcquireLeases(ctx context.Context, q Querier, holder string, partitions []int32, lasts time.Duration, own bool) ([]Lease, error) {
	tokens := make([]string, len(partitions))
	for i := range tokens {
		tokens[i] = uuid.NewString()
	}
	rows, err := q.Query(ctx, acquireLeases, partitions, tokens, holder, lasts.Microseconds(), own)
	if err != nil {
		return nil, fmt.Errorf("acquire leases of %v: %w", partitions, err)
	}
	defer rows.Close()
	var got []Lease
	for rows.Next() {
		var l Lease
		if err := rows.Scan(&l.Partition, &l.Token); err != nil {
			return nil, fmt.Errorf("acquire leases of %v: %w", partitions, err)
		}
		got = append(got, l)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("acquire leases of %v: %w", partitions, err)
	}
	return got, nil
}

// RenewLeases lets leases last from now on as long as a fresh one, and returns
// the partitions whose lease was still the caller's. A lease that ran out and that
// nobody took is still its holder's.
func RenewLeases(ctx context.Context, q Querier, leases []Lease, lasts time.Duration) ([]int32, error) {
	const sql = `
		UPDATE leases l
		SET expires_at = clock_timestamp() + $3 * interval '1 microsecond'
		FROM unnest($1::integer[], $2::uuid[]) AS w (partition, token)
		WHERE l.partition = w.partition AND l.token = w.token
		RETURNING l.partition`
	partitions, tokens := splitLeases(leases)
	return queryPartitions(ctx, q, "renew leases", sql, partitions, tokens, lasts.Microseconds())
}

// ReleaseLeases gives leases back, so that the next owner need not wait. Leases
// that are no longer the caller's are left alone. The rows go, so that a renewal
// still on its way finds nothing to revive.
func ReleaseLeases(ctx context.Context, q Querier, leases []Lease) error {
	const sql = `
		DELETE FROM leases l
		USING unnest($1::integer[], $2::uuid[]) AS w (partition, token)
		WHERE l.partition = w.partition AND l.token = w.token
		RETURNING l.partition`
	partitions, tokens := splitLeases(leases)
	_, err := queryPartitions(ctx, q, "release leases", sql, partitions, tokens)
	return err
}

// HoldLeases locks the rows of leases until tx ends, and returns the partitions
// whose lease is the caller's. Nobody can take those over before tx ends. Every
// transaction that writes what a lease guards begins with it.
func HoldLeases(ctx context.Context, tx *Tx, leases []Lease) ([]int32, error) {
	const sql = `
		SELECT l.partition
		FROM leases l
		JOIN unnest($1::integer[], $2::uuid[]) AS w (partition, token)
		  ON l.partition = w.partition AND l.token = w.token
		ORDER BY l.partition
		FOR SHARE OF l`
	partitions, tokens := splitLeases(leases)
	return queryPartitions(ctx, tx, "hold leases", sql, partitions, tokens)
}

func splitLeases(leases []Lease) (partitions []int32, tokens []string) {
	for _, l := range leases {
		partitions, tokens = append(partitions, l.Partition), append(tokens, l.Token)
	}
	return partitions, tokens
}

func queryPartitions(ctx context.Context, q Querier, what, sql string, args ...any) ([]int32, error) {
	rows, err := q.Query(ctx, sql, args...)
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
