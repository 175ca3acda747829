package embedded

import (
	"context"
	"fmt"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// Halt shuts the server down and keeps hold of the directory, as an outage does:
// clients are refused until [Server.Relaunch]. With crash it ends like a lost
// machine, without a checkpoint.
func (s *Server) Halt(ctx context.Context, crash bool) error {
	if !crash {
		return s.shutDown(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, fastStop)
	defer cancel()
	s.proc.signal(syscall.SIGQUIT)
	if !s.proc.wait(ctx) {
		return fmt.Errorf("embedded postgres: process %d does not stop", s.proc.pid())
	}
	return nil
}

// Relaunch starts the server again after [Server.Halt], at the same URL.
func (s *Server) Relaunch(ctx context.Context) error {
	return s.launch(ctx)
}

// Freeze stops the server and all its sessions in their tracks, as a hanging
// disk or network does: clients get no answer and no error. It returns how to
// let them go on, which must be called.
func (s *Server) Freeze(ctx context.Context) (thaw func(), err error) {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return nil, fmt.Errorf("embedded postgres: freeze: connect: %w", err)
	}
	// The postmaster first, so that it starts no session that we do not see.
	frozen := []process{s.proc}
	thaw = func() {
		for i := len(frozen) - 1; i >= 0; i-- {
			frozen[i].signal(syscall.SIGCONT)
		}
		_ = conn.Close(context.WithoutCancel(ctx))
	}
	s.proc.signal(syscall.SIGSTOP)
	rows, err := conn.Query(ctx, `SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()`)
	if err != nil {
		thaw()
		return nil, fmt.Errorf("embedded postgres: freeze: list sessions: %w", err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		thaw()
		return nil, fmt.Errorf("embedded postgres: freeze: list sessions: %w", err)
	}
	for _, pid := range pids {
		p := process{id: pid}
		p.signal(syscall.SIGSTOP)
		frozen = append(frozen, p)
	}
	return thaw, nil
}
