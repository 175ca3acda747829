package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

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
	names := make([]string, 0, len(applied))
	for _, m := range applied {
		names = append(names, m.Name)
	}
	return out.value(map[string]any{"applied": names}, func(w io.Writer) {
		for _, m := range applied {
			fmt.Fprintf(w, "applied %s in %s\n", m.Name, m.Took.Round(time.Millisecond))
		}
		if len(applied) == 0 {
			fmt.Fprintln(w, "nothing to do: the schema is up to date")
		}
	})
}
