package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

const (
	// listenProbe is how long a listener hears nothing before it asks whether
	// the server is still there: a dead peer sends no reset.
	listenProbe     = 15 * time.Second
	listenProbeTime = 5 * time.Second
	// listenRetryMin and listenRetryMax bound the pause before a reconnect; it
	// doubles from the one to the other, with jitter.
	listenRetryMin = 50 * time.Millisecond
	listenRetryMax = 2 * time.Second
)

// channelSQL is the name of a channel on the server: NOTIFY reaches the whole
// database, so the schema is part of it.
const channelSQL = `'hogstream.' || current_schema() || '.' || $1::text`

const notifySQL = `SELECT pg_notify(` + channelSQL + `, $2)`

// Notify sends payload (under 8000 bytes) on channel to every listener of this
// schema when the transaction commits. Equal notifications of one transaction are
// sent once. Commits that notify pass one at a time, so one a transaction is plenty.
func (tx *Tx) Notify(ctx context.Context, channel, payload string) error {
	if _, err := tx.sql.Exec(ctx, notifySQL, channel, payload); err != nil {
		return fmt.Errorf("notify %s: %w", channel, err)
	}
	return nil
}

// Listen calls fn for each notification on channel until ctx ends, and returns
// nil then. It also calls fn with an empty payload whenever it has begun to
// listen, the first time and after each reconnect: what was sent before that
// may be lost, so fn then reads everything again. What is sent after is not
// missed. It takes a connection of its own beside the pool, reconnects by itself
// for as long as it takes, and calls fn on the caller's goroutine, one call at a
// time.
func (db *DB) Listen(ctx context.Context, channel string, fn func(payload string)) error {
	return db.ListenAll(ctx, map[string]func(payload string){channel: fn})
}

// ListenAll is [DB.Listen] for several channels on one connection.
func (db *DB) ListenAll(ctx context.Context, channels map[string]func(payload string)) error {
	pause := listenRetryMin
	for {
		listening, err := db.listenOnce(ctx, channels)
		if ctx.Err() != nil {
			return nil
		}
		if listening {
			pause = listenRetryMin
		}
		db.log.Warn("storage.listen_interrupted", zap.Duration("in", pause), zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, listenRetryMax)
	}
}

// listenOnce listens on one connection until that breaks or ctx ends; listening
// says that it got as far as hearing.
func (db *DB) listenOnce(ctx context.Context, channels map[string]func(string)) (listening bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, db.pool.Config().ConnConfig)
	if err != nil {
		return false, fmt.Errorf("listen: connect: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listenProbeTime)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	byName := make(map[string]func(string), len(channels))
	for channel, fn := range channels {
		var name string
		if err := conn.QueryRow(ctx, `SELECT `+channelSQL, channel).Scan(&name); err != nil {
			return false, fmt.Errorf("listen %s: %w", channel, err)
		}
		if _, err := conn.Exec(ctx, `LISTEN `+pgx.Identifier{name}.Sanitize()); err != nil {
			return false, fmt.Errorf("listen %s: %w", channel, err)
		}
		byName[name] = fn
	}
	for _, fn := range channels {
		fn("")
	}
	return true, hear(ctx, conn, byName)
}

// hear hands out notifications until the connection breaks.
func hear(ctx context.Context, conn *pgx.Conn, byName map[string]func(string)) error {
	for {
		quiet, cancel := context.WithTimeout(ctx, listenProbe)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			if fn := byName[n.Channel]; fn != nil {
				fn(n.Payload)
			}
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			if err := probe(ctx, conn); err != nil {
				return err
			}
		default:
			return fmt.Errorf("listen: %w", err)
		}
	}
}

func probe(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, listenProbeTime)
	defer cancel()
	if err := conn.Ping(ctx); err != nil {
		return fmt.Errorf("listen: server does not answer: %w", err)
	}
	return nil
}
