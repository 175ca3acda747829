package hogstream

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Rebuild opens what the settings name and restores a processor's state from the log
// (processors.Rebuild). progress, which may be nil, is told how many records were read
// so far.
func (c *Config) Rebuild(ctx context.Context, processor string, progress func(records int)) error {
	settings, err := c.processorSettings()
	if err != nil {
		return err
	}
	codec, err := c.Codec()
	if err != nil {
		return err
	}
	db, err := storage.Open(ctx, storage.Config{URL: c.Database.URL, MaxConns: 4})
	if err != nil {
		return fmt.Errorf("open Postgres: %w", err)
	}
	defer db.Close()
	if err := db.RequireSchema(ctx); err != nil {
		return err
	}
	admin, err := stream.OpenAdmin(c.StreamConfig(), zap.NewNop())
	if err != nil {
		return err
	}
	defer admin.Close()
	return processors.Rebuild(ctx, processor, processors.RebuildDeps{
		Deps: processors.Deps{Settings: settings, Codec: codec, Definitions: definition.NewWatcher(db)},
		DB:   db, Admin: admin, Kafka: c.StreamConfig(), Session: c.Kafka.SessionTimeout, Progress: progress,
	})
}

// processorSettings are the settings that processors are made with.
func (c *Config) processorSettings() (processors.Settings, error) {
	zone, err := c.Zone()
	return processors.Settings{IdempotencyWindow: c.HTTP.IdempotencyTime, Events: c.Database.EventsMode, Zone: zone}, err
}
