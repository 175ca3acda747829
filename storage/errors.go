package storage

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"
)

// IsNotFound reports that a query for one row found none.
func IsNotFound(err error) bool { return errors.Is(err, pgx.ErrNoRows) }

// IsRetryable reports that the same work, run again from its start in a new
// transaction, may succeed: it lost a race. 23505 (a unique key appeared
// between our read and our write) counts, as work reads before it writes. So
// does a plan or prepared statement made stale by a migration, for pgx drops it
// on the way.
func IsRetryable(err error) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	switch pe.Code {
	case "40001", "40P01", "23505", "26000":
		return true
	case "0A000":
		return strings.Contains(pe.Message, "cached plan")
	}
	return false
}

// IsUnavailable reports an outage of the database: refused, reset or closed
// connections, a server that starts, stops, is full, read-only (after a
// failover) or too slow. Nothing is wrong with the work; it waits and is tried
// again. A cancelled context is no outage, an expired deadline is.
func IsUnavailable(err error) bool {
	if err == nil {
		return false
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return unavailableCode(pe.Code)
	}
	if errors.Is(err, context.Canceled) {
		return false
	}
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.As(err, &connect), errors.As(err, &network),
		errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, puddle.ErrClosedPool):
		return true
	}
	// A connection found closed before anything was sent.
	return pgconn.SafeToRetry(err)
}

func unavailableCode(code string) bool {
	switch code {
	case "57014", // a statement_timeout set by the operator
		"57P01", "57P02", "57P03", "57P04", "57P05", // the server or the session is shut down
		"25P03",          // our own transaction was silent for too long
		"25006",          // read-only: a standby, or a full disk at some hosters
		"28000", "28P01": // a password rotated under us
		return true
	}
	switch class(code) {
	case "08", // connection exception
		"53", // out of disk, memory, connections
		"58": // I/O error
		return true
	}
	return false
}

// IsRecordFault reports that the data itself can never be stored: out of range,
// malformed, over a limit, or against a constraint other than uniqueness. Only
// such an error can make a record poison; others stop the partition until
// somebody looks.
func IsRecordFault(err error) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code == "23505" {
		return false
	}
	switch class(pe.Code) {
	case "22", "23", "54":
		return true
	}
	return false
}

// class is the first two characters of an SQLSTATE.
func class(code string) string {
	if len(code) < 2 {
		return ""
	}
	return code[:2]
}

// isGone reports that a table is there no more.
func isGone(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "42P01"
}

// IsRefusal reports that the server answered and refused, whatever the reason.
func IsRefusal(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe)
}

// WithoutValues is the text of an error that is itself Postgres' answer about data,
// without that data, which its message may quote: the code and what it is about. ok is
// false for every other error; those that err wraps are not looked at.
func WithoutValues(err error) (text string, ok bool) {
	pe, ok := err.(*pgconn.PgError) //nolint:errorlint // this very one: whoever asks walks the chain
	if !ok || class(pe.Code) != "22" && class(pe.Code) != "23" && pe.Code != "P0001" {
		return "", false
	}
	text = "Postgres refused the data (SQLSTATE " + pe.Code + ")"
	for _, about := range []struct{ what, name string }{{"table", pe.TableName}, {"column", pe.ColumnName}, {"constraint", pe.ConstraintName}} {
		if about.name != "" {
			text += ", " + about.what + " " + about.name
		}
	}
	return text, true
}
