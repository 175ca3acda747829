package main

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/storage"
)

type serveCmd struct {
	hogstream.Config `embed:""`
}

// Run plays the roles until SIGTERM.
func (c *serveCmd) Run(ctx context.Context, _ *output) error {
	app, err := hogstream.New(c.Config)
	if err != nil {
		return err
	}
	return untilStopped(ctx, app.Run(ctx, func(net.Addr) error { return nil }))
}

type migrateCmd struct{ infraFlags }

// Run applies what is missing.
func (c *migrateCmd) Run(ctx context.Context, out *output) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if cfg.Database.URL == "" {
		return fmt.Errorf("DATABASE_URL is not set: give a postgres:// URL")
	}
	db, err := storage.Open(ctx, storage.Config{URL: cfg.Database.URL})
	if err != nil {
		return err
	}
	defer db.Close()
	applied, err := db.Migrate(ctx)
	if err != nil {
		return err
	}
	return out.value(map[string]any{"applied": applied}, func(w io.Writer) {
		for _, m := range applied {
			fmt.Fprintf(w, "applied %v\n", m)
		}
		if len(applied) == 0 {
			fmt.Fprintln(w, "nothing to do: the schema is up to date")
		}
	})
}
