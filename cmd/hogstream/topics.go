package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

type topicsCmd struct {
	Ls         topicsLsCmd         `cmd:"" help:"List topics."`
	Describe   topicsDescribeCmd   `cmd:"" help:"Show a topic's partitions, offsets and settings."`
	Create     topicsCreateCmd     `cmd:"" help:"Create the topics that are missing and check the others."`
	Tail       topicsTailCmd       `cmd:"" help:"Show records, decoded."`
	Produce    topicsProduceCmd    `cmd:"" help:"Append records, given as JSON, after a check against the schema."`
	CheckOrder topicsCheckOrderCmd `cmd:"" help:"Prove that the records of every contact are all there and in order."`
}

type topicsLsCmd struct{ infraFlags }

// Run lists topics and what is wrong with them.
func (c *topicsLsCmd) Run(ctx context.Context, out *output) error {
	infos, err := describeTopics(ctx, &c.infraFlags)
	if err != nil {
		return err
	}
	return out.value(infos, func(w io.Writer) {
		rows := make([][]string, 0, len(infos))
		for _, t := range infos {
			state := "ok"
			if !t.Exists {
				state = "missing: hogstream topics create"
			} else if len(t.Problems) > 0 {
				state = t.Problems[0].Problem
			}
			rows = append(rows, []string{t.Name, strconv.Itoa(len(t.Partitions)), strconv.FormatInt(t.Records, 10), size(t.Bytes), t.Configs["cleanup.policy"], state})
		}
		table(w, []string{"topic", "partitions", "records", "bytes", "cleanup", "state"}, rows)
	})
}

type topicsDescribeCmd struct {
	infraFlags
	Topic string `arg:"" help:"Topic, with or without prefix."`
}

// Run describes one topic.
func (c *topicsDescribeCmd) Run(ctx context.Context, out *output) error {
	infos, err := describeTopics(ctx, &c.infraFlags)
	if err != nil {
		return err
	}
	for _, t := range infos {
		if string(t.Topic) != c.Topic && t.Name != c.Topic {
			continue
		}
		return out.value(t, func(w io.Writer) {
			fmt.Fprintf(w, "%s: %d records, %s\n\n", t.Name, t.Records, size(t.Bytes))
			rows := make([][]string, 0, len(t.Partitions))
			for _, p := range t.Partitions {
				rows = append(rows, []string{fmt.Sprint(p.Partition), fmt.Sprint(p.Leader), fmt.Sprint(p.Replicas), fmt.Sprint(p.InSync), fmt.Sprint(p.Start), fmt.Sprint(p.End), size(p.Bytes)})
			}
			table(w, []string{"partition", "leader", "replicas", "in sync", "start", "end", "bytes"}, rows)
			fmt.Fprintln(w)
			for _, name := range slices.Sorted(maps.Keys(t.Configs)) {
				fmt.Fprintf(w, "  %s=%s\n", name, t.Configs[name])
			}
			for _, p := range t.Problems {
				fmt.Fprintf(w, "\n  problem: %s\n  fix:     %s\n", p.Problem, p.Fix)
			}
		})
	}
	return fmt.Errorf("no topic %q: hogstream topics ls shows them", c.Topic)
}

type topicsCreateCmd struct{ infraFlags }

// Run creates what is missing.
func (c *topicsCreateCmd) Run(ctx context.Context, out *output) error {
	cfg, err := c.kafka()
	if err != nil {
		return err
	}
	admin, err := stream.OpenAdmin(cfg.StreamConfig(), zap.NewNop())
	if err != nil {
		return err
	}
	defer admin.Close()
	created, err := admin.CreateTopics(ctx)
	if err != nil {
		if len(created) > 0 {
			err = fmt.Errorf("created %s, but %w", strings.Join(created, ", "), err)
		}
		return err
	}
	return out.value(map[string]any{"ok": true, "created": append([]string{}, created...)}, func(w io.Writer) {
		for _, name := range created {
			fmt.Fprintf(w, "created %s\n", name)
		}
		fmt.Fprintf(w, "%d created; all topics are as they must be\n", len(created))
	})
}

// kafka is the config of a command that needs Kafka.
func (f *infraFlags) kafka() (hogstream.Config, error) {
	cfg, err := f.config()
	if err == nil && len(cfg.Kafka.Brokers) == 0 {
		err = fmt.Errorf("KAFKA_BROKERS is not set, and no developer's instance runs on %s (HOGSTREAM_DATA_DIR)", cfg.DataDir)
	}
	return cfg, err
}

func describeTopics(ctx context.Context, f *infraFlags) ([]stream.TopicInfo, error) {
	cfg, err := f.kafka()
	if err != nil {
		return nil, err
	}
	admin, err := stream.OpenAdmin(cfg.StreamConfig(), zap.NewNop())
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return admin.DescribeTopics(ctx)
}

func size(bytes int64) string {
	switch {
	case bytes < 0:
		return "?"
	case bytes < 1<<10:
		return fmt.Sprintf("%d B", bytes)
	case bytes < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
	case bytes < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
}

type topicsTailCmd struct {
	infraFlags
	Topic       []string `arg:"" help:"Topics, without prefix." default:"lifecycle,events"`
	Follow      bool     `short:"f" help:"Go on with what arrives."`
	From        string   `help:"start or earliest, end or latest, an offset (-10: ten before the end), a time such as 2026-01-31T12:00:00Z, a date, or how long ago such as 36h or 7d; end with --follow, else start."`
	Type        []string `help:"Only these types: event.tracked for all product events, event.tracked:NAME for those of one name, a * at the end for any ending. Repeatable."`
	Key         string   `help:"Only this key."`
	Limit       int      `short:"n" help:"The newest so many records; with --from, so many from there on."`
	Uncommitted bool     `help:"Records of open and aborted transactions too."`
}

// Run prints records as they are read.
func (c *topicsTailCmd) Run(ctx context.Context, out *output) error {
	cfg, err := c.kafka()
	if err != nil {
		return err
	}
	opts := reader.TailOptions{Follow: c.Follow, Types: c.Type, Key: c.Key, Uncommitted: c.Uncommitted}
	if err := c.newestOrFrom(&opts, time.Now()); err != nil {
		return err
	}
	for _, t := range c.Topic {
		opts.Topics = append(opts.Topics, schemas.Topic(strings.TrimPrefix(t, cfg.Kafka.Prefix)))
	}
	codec, err := cfg.Codec()
	if err != nil {
		return err
	}
	kafka := cfg.StreamConfig()
	kafka.Contents = codec
	return reader.Tail(ctx, kafka, opts, zap.NewNop(), func(r *stream.Record) error {
		value, err := codec.JSON(r.Topic, r.Value)
		if err != nil {
			value, _ = json.Marshal(map[string]string{"undecodable": err.Error()})
		}
		return out.line(map[string]any{
			"topic": r.Topic, "partition": r.Partition, "offset": r.Offset, "appendTime": r.AppendTime,
			"key": string(r.Key), "id": r.ID, "type": r.Type, "value": json.RawMessage(value),
		}, fmt.Sprintf("%s %s/%d@%d %s %s\n    %s", r.AppendTime.Format("15:04:05.000"), r.Topic, r.Partition, r.Offset, r.Type, r.Key, value))
	})
}

// newestOrFrom says where to begin: without a place, -n asks for the newest records.
func (c *topicsTailCmd) newestOrFrom(opts *reader.TailOptions, now time.Time) (err error) {
	switch {
	case c.From != "":
		if opts.From, err = reader.ParsePosition(c.From, now); err != nil {
			return fmt.Errorf("--from: %w", err)
		}
		opts.Limit = c.Limit
	case c.Limit > 0:
		opts.Newest = c.Limit
	case c.Follow:
		opts.From = reader.AtEnd()
	}
	return nil
}
