package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Errors of writing destinations.
var (
	// ErrDestinationName: the name is taken.
	ErrDestinationName = errors.New("another destination has this name")
	// ErrDestinationChanged: somebody else changed or deleted it since it was read.
	ErrDestinationChanged = errors.New("the destination was changed meanwhile: read it again")
)

// Destinations reads and writes destinations. Secrets, the URL, and the config as a
// whole are sealed in the table. Every change grows the revision and notifies
// [ChannelDestinations] with the id in the same transaction. It is safe for concurrent
// use.
type Destinations struct {
	db  *DB
	box *Box
}

// NewDestinations makes one over a database and the box that seals secrets.
func NewDestinations(db *DB, box *Box) *Destinations { return &Destinations{db: db, box: box} }

const destinationColumns = `id::text, name, kind, url, description, event_types, config, secret, previous_secret,
	previous_secret_until, status, status_reason, filter, transform, rate_limit, concurrency, retry_horizon_seconds,
	delivery_log, last_delivery_at, created_at, updated_at, revision, signing_key, previous_signing_key, sealed_url, selector`

// List returns all destinations, newest first.
func (s *Destinations) List(ctx context.Context) ([]*Destination, error) {
	rows, err := s.db.sql.Query(ctx, `SELECT `+destinationColumns+` FROM destinations ORDER BY created_at DESC, id DESC`)
	if err != nil {
		return nil, fmt.Errorf("list destinations: %w", err)
	}
	list, err := pgx.CollectRows(rows, s.scan)
	if err != nil {
		return nil, fmt.Errorf("list destinations: %w", err)
	}
	return list, nil
}

// Get returns a destination by its id; an error that [IsNotFound] accepts when
// there is none.
func (s *Destinations) Get(ctx context.Context, id string) (*Destination, error) {
	return s.one(ctx, `SELECT `+destinationColumns+` FROM destinations WHERE id::text = $1`, id)
}

// Find returns a destination by its name or its id, as [Destinations.Get].
func (s *Destinations) Find(ctx context.Context, nameOrID string) (*Destination, error) {
	return s.one(ctx, `SELECT `+destinationColumns+` FROM destinations WHERE name = $1 OR id::text = $1`, nameOrID)
}

func (s *Destinations) one(ctx context.Context, sql, arg string) (*Destination, error) {
	rows, err := s.db.sql.Query(ctx, sql, arg)
	if err != nil {
		return nil, fmt.Errorf("read destination %s: %w", arg, err)
	}
	d, err := pgx.CollectExactlyOneRow(rows, s.scan)
	if err != nil {
		return nil, fmt.Errorf("read destination %s: %w", arg, err)
	}
	return d, nil
}

func (s *Destinations) scan(row pgx.CollectableRow) (*Destination, error) {
	var d Destination
	var in sealedColumns
	var horizon int64
	err := row.Scan(&d.ID, &d.Name, &d.Kind, &d.URL, &d.Description, &d.EventTypes, &in.config, &in.secret, &in.previousSecret,
		&d.PreviousSecretUntil, &d.Status, &d.StatusReason, &d.Filter, &d.Transform, &d.RateLimit, &d.Concurrency, &horizon,
		&d.DeliveryLog, &d.LastDeliveryAt, &d.CreatedAt, &d.UpdatedAt, &d.Revision, &in.signingKey, &in.previousSigningKey, &in.url, &d.Selector)
	if err != nil {
		return nil, err
	}
	d.RetryHorizon = time.Duration(horizon) * time.Second
	s.unseal(&d, &in)
	return &d, nil
}

// sealedColumns are those of a row that are sealed.
type sealedColumns struct {
	url, config, secret, previousSecret, signingKey, previousSigningKey []byte
}

// unseal opens what is sealed. One destination that cannot be opened (its key
// was lost) must not hide the others, so it is marked instead of failing.
func (s *Destinations) unseal(d *Destination, in *sealedColumns) {
	open := func(column string, sealed []byte) string {
		if len(sealed) == 0 || d.Unreadable != "" {
			return ""
		}
		plain, err := s.box.Open(sealed, destinationCell(column, d.ID))
		if err != nil {
			d.Unreadable = err.Error()
		}
		return string(plain)
	}
	if len(in.url) > 0 { // else it was written before URLs were sealed
		d.URL = open("sealed_url", in.url)
	}
	if config := open("config", in.config); config != "" {
		d.Config = json.RawMessage(config)
	}
	d.Secret, d.PreviousSecret = open("secret", in.secret), open("previous_secret", in.previousSecret)
	d.SigningKey, d.PreviousSigningKey = open("signing_key", in.signingKey), open("previous_signing_key", in.previousSigningKey)
	if d.Unreadable != "" {
		d.URL, d.Config, d.Secret, d.PreviousSecret, d.SigningKey, d.PreviousSigningKey = "", nil, "", "", "", ""
	}
}

func destinationCell(column, id string) Cell { return Cell{"destinations", column, id} }

// sealed seals the value of a column; nothing stays nothing.
func (s *Destinations) sealed(d *Destination, column string, plain []byte) []byte {
	if len(plain) == 0 {
		return nil
	}
	return s.box.Seal(plain, destinationCell(column, d.ID))
}

// Insert writes a new destination and fills its times and revision. The caller
// writes its cursors in the same transaction. A taken name is
// [ErrDestinationName]; the transaction is lost then.
func (s *Destinations) Insert(ctx context.Context, tx *Tx, d *Destination) error {
	const sql = `
		INSERT INTO destinations (id, name, kind, url, description, event_types, config, secret, secret_prefix,
			previous_secret, previous_secret_until, status, status_reason, filter, transform, rate_limit, concurrency,
			retry_horizon_seconds, delivery_log, signing_key, previous_signing_key, sealed_url, selector)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)
		RETURNING created_at, updated_at, revision`
	err := tx.sql.QueryRow(ctx, sql, s.values(d)...).Scan(&d.CreatedAt, &d.UpdatedAt, &d.Revision)
	if err != nil {
		return fmt.Errorf("insert destination %s: %w", d.Name, nameTaken(err))
	}
	return tx.Notify(ctx, ChannelDestinations, d.ID)
}

// Update writes all settings of a destination as it was read and changed, and
// fills its times and revision. [ErrDestinationChanged] says that the row has
// another revision by now, or is gone.
func (s *Destinations) Update(ctx context.Context, tx *Tx, d *Destination) error {
	const sql = `
		UPDATE destinations SET
			name = $2, kind = $3, url = $4, description = $5, event_types = $6, config = $7, secret = $8,
			secret_prefix = $9, previous_secret = $10, previous_secret_until = $11, status = $12, status_reason = $13,
			filter = $14, transform = $15, rate_limit = $16, concurrency = $17, retry_horizon_seconds = $18,
			delivery_log = $19, signing_key = $20, previous_signing_key = $21, sealed_url = $22, selector = $23, revision = revision + 1, updated_at = now()
		WHERE id = $1 AND revision = $24
		RETURNING created_at, updated_at, revision`
	if d.Unreadable != "" {
		return fmt.Errorf("update destination %s: its secrets would be lost: %s", d.Name, d.Unreadable)
	}
	err := tx.sql.QueryRow(ctx, sql, append(s.values(d), d.Revision)...).Scan(&d.CreatedAt, &d.UpdatedAt, &d.Revision)
	if IsNotFound(err) {
		return fmt.Errorf("update destination %s: %w", d.Name, ErrDestinationChanged)
	}
	if err != nil {
		return fmt.Errorf("update destination %s: %w", d.Name, nameTaken(err))
	}
	return tx.Notify(ctx, ChannelDestinations, d.ID)
}

// values are the parameters $1 to $23 of Insert and Update.
func (s *Destinations) values(d *Destination) []any {
	var prefix *string
	if d.Secret != "" {
		shown := d.Secret[:min(len(d.Secret), 12)]
		prefix = &shown
	}
	if d.Status == "" {
		d.Status = DestinationActive
	}
	if d.EventTypes == nil {
		d.EventTypes = []string{}
	}
	return []any{
		d.ID, d.Name, d.Kind, "", d.Description, d.EventTypes, s.sealed(d, "config", d.Config), s.sealed(d, "secret", []byte(d.Secret)), prefix,
		s.sealed(d, "previous_secret", []byte(d.PreviousSecret)), d.PreviousSecretUntil, string(d.Status), d.StatusReason, d.Filter, d.Transform,
		d.RateLimit, d.Concurrency, int64(d.RetryHorizon / time.Second), d.DeliveryLog,
		s.sealed(d, "signing_key", []byte(d.SigningKey)), s.sealed(d, "previous_signing_key", []byte(d.PreviousSigningKey)),
		s.sealed(d, "sealed_url", []byte(d.URL)), d.Selector,
	}
}

func nameTaken(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "23505" && pe.ConstraintName == "destinations_name_key" {
		return ErrDestinationName
	}
	return err
}

// SetStatus pauses or resumes a destination for an operator, and reports whether
// that changed anything. The rules of delivery use [DB.SuspendDestination].
func (s *Destinations) SetStatus(ctx context.Context, id string, status DestinationStatus, reason string) (changed bool, err error) {
	const sql = `
		UPDATE destinations SET status = $2, status_reason = $3, revision = revision + 1, updated_at = now()
		WHERE id::text = $1 AND (status, status_reason) IS DISTINCT FROM ($2, $3)`
	err = s.db.InRetriedTx(ctx, func(tx *Tx) error {
		tag, err := tx.sql.Exec(ctx, sql, id, string(status), reason)
		if err != nil {
			return fmt.Errorf("set status of destination %s to %s: %w", id, status, err)
		}
		if changed = tag.RowsAffected() > 0; !changed {
			return nil
		}
		return tx.Notify(ctx, ChannelDestinations, id)
	})
	return changed, err
}

// Delete removes a destination with its cursors, and reports whether it was there. What it
// leaves open on topic outbox is refused.
func (s *Destinations) Delete(ctx context.Context, id string) (deleted bool, err error) {
	if uuid.Validate(id) != nil {
		return false, nil
	}
	err = s.db.InRetriedTx(ctx, func(tx *Tx) error {
		if _, err := tx.sql.Exec(ctx, `SELECT FROM destinations WHERE id = $1 FOR UPDATE`, id); err != nil {
			return fmt.Errorf("delete destination %s: %w", id, err)
		}
		if err := tx.refuseOutbox(ctx, id, "the destination was deleted"); err != nil {
			return err
		}
		tag, err := tx.sql.Exec(ctx, `DELETE FROM destinations WHERE id = $1`, id)
		if err != nil {
			return fmt.Errorf("delete destination %s: %w", id, err)
		}
		if deleted = tag.RowsAffected() > 0; !deleted {
			return nil
		}
		const parked = `
			DELETE FROM parked_records r
			WHERE destination_id = $1 AND NOT EXISTS (SELECT FROM skips k WHERE k.id = r.replay_id AND k.refused IS NOT NULL)`
		for _, sql := range []string{parked, `DELETE FROM skips WHERE destination_id = $1 AND refused IS NULL`} {
			if _, err := tx.sql.Exec(ctx, sql, id); err != nil {
				return fmt.Errorf("delete what destination %s has parked: %w", id, err)
			}
		}
		return tx.Notify(ctx, ChannelDestinations, id)
	})
	return deleted, err
}

// ResealStale seals again what stands under an older key or in an older form, and
// returns how many destinations that concerned. Run at the start: after a change of the
// key, and of the version.
func (s *Destinations) ResealStale(ctx context.Context) (resealed int, err error) {
	list, err := s.List(ctx)
	if err != nil {
		return 0, err
	}
	for _, d := range list {
		if d.Unreadable != "" {
			continue
		}
		stale, err := s.isStale(ctx, d.ID)
		if err != nil || !stale {
			if err != nil {
				return resealed, err
			}
			continue
		}
		revision := d.Revision
		err = s.db.InRetriedTx(ctx, func(tx *Tx) error {
			d.Revision = revision
			return s.Update(ctx, tx, d)
		})
		if err != nil && !errors.Is(err, ErrDestinationChanged) { // changed means sealed anew by somebody else
			return resealed, err
		}
		resealed++
	}
	return resealed, nil
}

func (s *Destinations) isStale(ctx context.Context, id string) (bool, error) {
	var sealed [][]byte
	var url string
	const sql = `
		SELECT array_remove(ARRAY[config, secret, previous_secret, signing_key, previous_signing_key, sealed_url], NULL), url
		FROM destinations WHERE id::text = $1`
	err := s.db.sql.QueryRow(ctx, sql, id).Scan(&sealed, &url)
	if IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read sealed parts of destination %s: %w", id, err)
	}
	return url != "" || slices.ContainsFunc(sealed, s.box.Stale), nil
}
