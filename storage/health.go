package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/schemas"
)

// HolderHealth is how deliveries of a destination go in one process.
type HolderHealth struct {
	DestinationID string
	CircuitOpen   bool
	ProbeAt       time.Time // of an open circuit: the next attempt; zero for none
	Failures      int64     // attempts that failed since one was delivered
	LastError     string    // valid UTF-8 without NUL, "" for none yet
	LastErrorAt   time.Time
}

// WriteHealth writes how deliveries go in the process of a holder of leases. A last
// error that is empty leaves the one that is written. Deleted destinations are left out.
func (db *DB) WriteHealth(ctx context.Context, holder string, rows []HolderHealth) error {
	const sql = `
		INSERT INTO destination_health AS h (destination_id, holder, circuit_open, probe_at, failures, last_error, last_error_at)
		SELECT d.id, $2, w.open, w.probe_at, w.failures, w.error, w.error_at
		FROM unnest($1::uuid[], $3::boolean[], $4::timestamptz[], $5::bigint[], $6::text[], $7::timestamptz[])
			AS w (id, open, probe_at, failures, error, error_at)
		JOIN destinations d ON d.id = w.id
		ORDER BY d.id
		ON CONFLICT (destination_id, holder) DO UPDATE SET
			circuit_open = EXCLUDED.circuit_open, probe_at = EXCLUDED.probe_at, failures = EXCLUDED.failures,
			last_error = COALESCE(EXCLUDED.last_error, h.last_error),
			last_error_at = COALESCE(EXCLUDED.last_error_at, h.last_error_at), updated_at = now()`
	n := len(rows)
	ids, open, failures := make([]string, n), make([]bool, n), make([]int64, n)
	probes, errorsAt, texts := make([]*time.Time, n), make([]*time.Time, n), make([]*string, n)
	for i := range rows {
		r := &rows[i]
		ids[i], open[i], failures[i] = r.DestinationID, r.CircuitOpen, r.Failures
		if r.CircuitOpen && !r.ProbeAt.IsZero() {
			probes[i] = &r.ProbeAt
		}
		if !r.LastErrorAt.IsZero() {
			texts[i], errorsAt[i] = &r.LastError, &r.LastErrorAt
		}
	}
	if _, err := db.sql.Exec(ctx, sql, ids, holder, open, probes, failures, texts, errorsAt); err != nil {
		return fmt.Errorf("write health of %d destinations: %w", n, err)
	}
	return nil
}

// ResetHealth says that a process begins anew: its circuits are closed and nothing
// has failed yet. The last errors stay.
func (db *DB) ResetHealth(ctx context.Context, holder string) error {
	const sql = `
		UPDATE destination_health SET circuit_open = false, probe_at = NULL, failures = 0, updated_at = now()
		WHERE holder = $1 AND (circuit_open OR failures > 0)`
	if _, err := db.sql.Exec(ctx, sql, holder); err != nil {
		return fmt.Errorf("reset health of destinations in %s: %w", holder, err)
	}
	return nil
}

// DropHealth forgets what was written before a time by processes that have no lease
// any more.
func (db *DB) DropHealth(ctx context.Context, before time.Time) error {
	const sql = `
		DELETE FROM destination_health h
		WHERE h.updated_at < $1 AND NOT EXISTS (SELECT FROM leases l WHERE l.holder = h.holder)`
	if _, err := db.sql.Exec(ctx, sql, before); err != nil {
		return fmt.Errorf("drop health of destinations before %s: %w", before, err)
	}
	return nil
}

// DestinationHealth is how deliveries of a destination go in all processes that
// deliver to it, known to some seconds.
type DestinationHealth struct {
	LastError   *string            `json:"lastError" doc:"Of the last attempt that failed, in any process; it stays when later ones succeed."`
	LastErrorAt *schemas.ISOTime   `json:"lastErrorAt" format:"date-time"`
	Failures    int64              `json:"failures" doc:"Attempts in a row that failed, each owner counting its own since its last delivery."`
	Circuit     string             `json:"circuit" enum:"closed,open" doc:"open: most attempts failed, so one after the other probes. Open for one owner is open."`
	Owners      []DestinationOwner `json:"owners" doc:"The processes that deliver now, each to a part of the contacts."`
	Lag         *int64             `json:"lag" doc:"Offsets of its topics that are not finished; null when Kafka does not answer. What is parked is not in it."`
	Stopped     []StoppedCursor    `json:"stopped" doc:"Where it waits for an operator, since its position is on the log of a topic that was deleted and made anew. Empty when Kafka does not answer."`
}

// StoppedCursor is where a destination, or a backfill of it, waits for an operator.
type StoppedCursor struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Position  int64  `json:"position"`
	ReplayID  string `json:"replayId,omitempty" doc:"Of a backfill."`
	Why       string `json:"why"`
	Mend      string `json:"mend" doc:"The commands that let it go on."`
}

// DestinationOwner is how deliveries of a destination go in one process.
type DestinationOwner struct {
	Instance    string           `json:"instance"`
	Partitions  int              `json:"partitions" doc:"Partition numbers that it owns."`
	Circuit     string           `json:"circuit" enum:"closed,open"`
	NextProbeAt *schemas.ISOTime `json:"nextProbeAt" format:"date-time" doc:"Of an open circuit."`
	Failures    int64            `json:"failures"`
	LastError   *string          `json:"lastError"`
	LastErrorAt *schemas.ISOTime `json:"lastErrorAt" format:"date-time"`
}

// ReadHealth returns how deliveries of destinations go, by id, without their lag. One
// that nothing is known of has a health too.
func (db *DB) ReadHealth(ctx context.Context, ids []string) (map[string]*DestinationHealth, error) {
	owners, err := db.leaseHolders(ctx)
	if err != nil {
		return nil, err
	}
	healths, index := map[string]*DestinationHealth{}, map[string]int{}
	for i, o := range owners {
		index[o.Instance] = i
	}
	for _, id := range ids {
		healths[id] = &DestinationHealth{Circuit: circuitClosed, Owners: append([]DestinationOwner{}, owners...), Stopped: []StoppedCursor{}}
	}
	const sql = `
		SELECT destination_id::text, holder, circuit_open, probe_at, failures, last_error, last_error_at
		FROM destination_health WHERE destination_id = ANY ($1::uuid[])`
	rows, err := db.sql.Query(ctx, sql, ids)
	if err != nil {
		return nil, fmt.Errorf("read health of %d destinations: %w", len(ids), err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var open bool
		var probeAt, errorAt *time.Time
		o := DestinationOwner{Circuit: circuitClosed}
		if err := rows.Scan(&id, &o.Instance, &open, &probeAt, &o.Failures, &o.LastError, &errorAt); err != nil {
			return nil, fmt.Errorf("scan health of a destination: %w", err)
		}
		o.NextProbeAt, o.LastErrorAt = schemas.ISOTimeOf(probeAt), schemas.ISOTimeOf(errorAt)
		if open {
			o.Circuit = circuitOpen
		}
		if i, ok := index[o.Instance]; ok {
			o.Partitions = owners[i].Partitions
			healths[id].Owners[i] = o
		}
		healths[id].add(&o)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read health of %d destinations: %w", len(ids), err)
	}
	for _, h := range healths {
		h.total()
	}
	return healths, nil
}

const (
	circuitClosed = "closed"
	circuitOpen   = "open"
)

// add takes the last error of any process, also one that is gone.
func (h *DestinationHealth) add(o *DestinationOwner) {
	if o.LastErrorAt != nil && (h.LastErrorAt == nil || o.LastErrorAt.After(h.LastErrorAt.Time)) {
		h.LastError, h.LastErrorAt = o.LastError, o.LastErrorAt
	}
}

// total sums up the processes that deliver.
func (h *DestinationHealth) total() {
	for i := range h.Owners {
		h.Failures += h.Owners[i].Failures
		if h.Owners[i].Circuit == circuitOpen {
			h.Circuit = circuitOpen
		}
	}
}

// leaseHolders lists who holds leases now, by name.
func (db *DB) leaseHolders(ctx context.Context) ([]DestinationOwner, error) {
	const sql = `SELECT holder, count(*) FROM leases WHERE expires_at > clock_timestamp() GROUP BY holder ORDER BY holder`
	rows, err := db.sql.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("list holders of leases: %w", err)
	}
	defer rows.Close()
	var owners []DestinationOwner
	for rows.Next() {
		o := DestinationOwner{Circuit: circuitClosed}
		if err := rows.Scan(&o.Instance, &o.Partitions); err != nil {
			return nil, fmt.Errorf("list holders of leases: %w", err)
		}
		owners = append(owners, o)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list holders of leases: %w", err)
	}
	return owners, nil
}
