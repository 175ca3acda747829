package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// mailsShown shows a developer the mails that journeys ask for, as they do, until ctx ends:
// nobody sends them yet. What it returns waits for its end.
func mailsShown(ctx context.Context, to io.Writer, cfg hogstream.Config, running *hogstream.Running) (wait func()) {
	running.FillIn(&cfg)
	var showing sync.WaitGroup
	showing.Go(func() {
		codec, err := cfg.Codec()
		if err == nil {
			kafka := cfg.StreamConfig()
			kafka.Contents = codec
			err = reader.Tail(ctx, kafka, reader.TailOptions{Topics: []schemas.Topic{schemas.TopicEmailRequests}, From: reader.AtEnd(), Follow: true}, zap.NewNop(), func(r *stream.Record) error {
				m, err := codec.DecodeEmailRequest(r.Value)
				if err == nil {
					fmt.Fprintln(to, mailLine(m))
				}
				return nil
			})
		}
		if err != nil && ctx.Err() == nil {
			fmt.Fprintf(stderr, "mails that journeys ask for are not shown: %v\n", err)
		}
	})
	return showing.Wait
}

// mailLine is a mail in a line.
func mailLine(m *schemas.EmailRequest) string {
	line := "mail " + m.Template + " to " + text(m.To)
	if m.To == nil || *m.To == "" {
		line = "mail " + m.Template + " to contact " + m.ContactID + ", which has no address"
	}
	if m.JourneyID != nil {
		line += " (journey " + *m.JourneyID + ")"
	}
	return strings.TrimSpace(line + " " + m.Props)
}
