package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

type processorsCmd struct {
	Ls      processorsLsCmd      `cmd:"" help:"Show how far processors are."`
	Accept  processorsAcceptCmd  `cmd:"" help:"Make a processor that stopped go on from a named offset."`
	Rebuild processorsRebuildCmd `cmd:"" help:"Restore a processor's state from the log; contacts before identity."`
}

type processorsLsCmd struct {
	infraFlags
	Processor string `arg:"" optional:"" help:"Only this one: ${aprocessor}." enum:",${processors}" default:""`
}

// Run lists progress and lag.
func (c *processorsLsCmd) Run(ctx context.Context, out *output) error {
	db, admin, closeBoth, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer closeBoth()
	names := processors.Names()
	if c.Processor != "" {
		names = []string{c.Processor}
	}
	all := []loop.ProcessorPartition{}
	for _, name := range names {
		partitions, err := loop.ListProcessor(ctx, admin, db, name)
		if err != nil {
			return err
		}
		all = append(all, partitions...)
	}
	return out.value(all, func(w io.Writer) {
		var rows [][]string
		for _, p := range all {
			for _, t := range p.Topics {
				rows = append(rows, []string{p.Processor, fmt.Sprint(p.Partition), fmt.Sprint(p.Format), string(t.Topic), fmt.Sprint(t.Committed), fmt.Sprint(t.Next), fmt.Sprint(t.End), fmt.Sprint(t.Lag), strconv.FormatBool(p.Published)})
			}
		}
		table(w, []string{"processor", "partition", "format", "topic", "committed", "applied", "end", "lag", "published"}, rows)
		printStoppedProcessors(w, all)
		printWaitingProcessors(w, all)
	})
}

type processorsAcceptCmd struct {
	infraFlags
	Processor string           `arg:"" help:"${aprocessor}." enum:"${processors}"`
	Partition int32            `help:"Partition number." required:""`
	Offset    map[string]int64 `help:"topic=offset to go on from. Repeatable." required:""`
}

// Run accepts offsets: what waited to be published there is dropped.
func (c *processorsAcceptCmd) Run(ctx context.Context, out *output) error {
	p, err := processors.Find(c.Processor)
	if err != nil {
		return err
	}
	at := map[schemas.Topic]int64{}
	for topic, offset := range c.Offset {
		if !slices.Contains(p.Topics, schemas.Topic(topic)) {
			return fmt.Errorf("--offset %s=%d: %s does not read topic %q: use one of %v", topic, offset, c.Processor, topic, p.Topics)
		}
		at[schemas.Topic(topic)] = offset
	}
	db, admin, closeBoth, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer closeBoth()
	if err := loop.AcceptOffsets(ctx, admin, db, c.Processor, p.Format, c.Partition, at); err != nil {
		return err
	}
	return out.value(map[string]any{"processor": c.Processor, "partition": c.Partition, "offsets": at}, func(w io.Writer) {
		for _, t := range slices.Sorted(maps.Keys(at)) {
			fmt.Fprintf(w, "%s goes on from offset %d of %s on partition %d\n", c.Processor, at[t], t, c.Partition)
		}
	})
}

type processorsRebuildCmd struct {
	infraFlags
	Processor string `arg:"" help:"${aprocessor}." enum:"${processors}"`
}

// Run restores the state in one transaction; a failure changes nothing.
func (c *processorsRebuildCmd) Run(ctx context.Context, out *output) error {
	cfg, err := c.kafka()
	if err != nil {
		return err
	}
	bar := newProgress(-1, "records read", false, out.JSON)
	records := 0
	err = cfg.Rebuild(ctx, c.Processor, func(n int) {
		records = n
		_ = bar.Set(n)
	})
	_ = bar.Finish()
	if err != nil {
		return err
	}
	p, err := processors.Find(c.Processor)
	if err != nil {
		return err
	}
	return out.value(map[string]any{"processor": c.Processor, "recordsRead": records}, func(w io.Writer) {
		if p.Derives() {
			fmt.Fprintf(w, "The state of %s is cleared. When it is started next it takes over what is known of each contact, and tells none of that.\n", c.Processor)
			return
		}
		fmt.Fprintf(w, "%s is rebuilt from %d records and goes on from its committed offsets.\n", c.Processor, records)
		fmt.Fprintln(w, "Not restored, for no topic holds them: idempotency keys, answers somebody waited for, parked records.")
	})
}

// open opens Postgres and Kafka.
func (f *infraFlags) open(ctx context.Context) (*storage.DB, *stream.Admin, func(), error) {
	cfg, err := f.kafka()
	if err != nil {
		return nil, nil, nil, err
	}
	if cfg.Database.URL == "" {
		return nil, nil, nil, fmt.Errorf("DATABASE_URL is not set: give a postgres:// URL")
	}
	db, err := storage.Open(ctx, storage.Config{URL: cfg.Database.URL, MaxConns: 4})
	if err != nil {
		return nil, nil, nil, err
	}
	admin, err := stream.OpenAdmin(cfg.StreamConfig(), zap.NewNop())
	if err != nil {
		db.Close()
		return nil, nil, nil, err
	}
	return db, admin, func() { admin.Close(); db.Close() }, nil
}
