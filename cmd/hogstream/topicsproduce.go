package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

type topicsProduceCmd struct {
	infraFlags
	Topic string `arg:"" help:"Topic, with or without prefix."`
	File  string `arg:"" optional:"" help:"File with a record a line, as topics tail --json shows its value; - for standard input." default:"-"`
	Yes   bool   `short:"y" help:"Do not ask."`
}

// Help is shown by --help.
func (c *topicsProduceCmd) Help() string {
	return "For tests and for mending. A record is checked against the topic's schema and gets its key and headers from what is in it. All lines are read before the first record is written. Topics other than ingest are written by processors: what is put there by hand is in nobody's state, and has no number in the order of its contact. It is asked first."
}

// Run appends the records.
func (c *topicsProduceCmd) Run(ctx context.Context, out *output) error {
	cfg, err := c.kafka()
	if err != nil {
		return err
	}
	topic := schemas.Topic(strings.TrimPrefix(c.Topic, cfg.Kafka.Prefix))
	text, err := readFile(c.File)
	if err != nil {
		return err
	}
	records, err := readRecords(topic, text)
	if err != nil {
		return err
	}
	if topic != schemas.TopicIngest && !c.Yes {
		if err := confirm(ctx, fmt.Sprintf("Append %d records to %s, which processors write?", len(records), topic)); err != nil {
			return err
		}
	}
	codec, err := cfg.WritingCodec(ctx)
	if err != nil {
		return err
	}
	log, err := stream.OpenLog(ctx, cfg.StreamConfig(), codec, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	if err := errors.Join(log.Append(ctx, records...), log.Close(ctx)); err != nil {
		return err
	}
	return out.value(map[string]int{"appended": len(records)}, func(w io.Writer) {
		fmt.Fprintf(w, "%d records appended to %s\n", len(records), topic)
	})
}

// readRecords reads a record a line.
func readRecords(topic schemas.Topic, text []byte) (records []schemas.Message, err error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, len(text)+1)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		m, err := schemas.FromJSON(topic, line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if m.Meta().ID == "" {
			return nil, fmt.Errorf("line %d: field id: is missing: give the record an id, such as a new UUID", n)
		}
		records = append(records, m)
	}
	if len(records) == 0 {
		return nil, errors.Join(lines.Err(), errors.New("there is no record to append"))
	}
	return records, lines.Err()
}
