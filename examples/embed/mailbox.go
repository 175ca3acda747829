package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/hogstream/hogstream/stream/delivery"

	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
)

// mailbox is a kind of destination that does not speak HTTP: what is delivered to it
// goes to whoever receives from the channel.
type mailbox chan string

func (m mailbox) kind() sinks.Kind {
	return sinks.Kind{Name: "mailbox", Records: 1, Bytes: 64 << 10, Open: m.open}
}

// mailboxConfig are the settings of a destination of this kind.
type mailboxConfig struct {
	Greeting string `json:"greeting"`
}

// open checks the settings of a destination.
func (m mailbox) open(dest *storage.Destination, _ *transport.Guard) (sinks.Sink, error) {
	var cfg mailboxConfig
	if err := sinks.ReadConfig(dest.Config, &cfg); err != nil {
		return nil, err
	}
	if cfg.Greeting == "" {
		return nil, errors.New(`config.greeting: is empty: write how a letter begins, for example "Dear Ada"`)
	}
	return &mailboxSink{cfg, m}, nil
}

// mailboxSink is one destination.
type mailboxSink struct {
	cfg     mailboxConfig
	letters mailbox
}

func (s *mailboxSink) letter(a *sinks.Attempt) string {
	p := a.Payloads[0] // Records is 1
	return s.cfg.Greeting + ", " + p.Type + " " + string(p.Data)
}

// Send implements [sinks.Sender]: it makes an attempt, within the deadline of ctx.
func (s *mailboxSink) Send(ctx context.Context, a *sinks.Attempt) delivery.Outcome {
	select {
	case s.letters <- s.letter(a):
		return delivery.Outcome{Verdict: delivery.Delivered}
	case <-ctx.Done(): // the mailbox is full; the record is kept and comes again
		return delivery.Outcome{Verdict: delivery.Retry, Err: "the mailbox is full"}
	}
}

// Build implements [sinks.Sink]: it shows in previews what would be sent.
func (s *mailboxSink) Build(a *sinks.Attempt) (*transport.Request, error) {
	return &transport.Request{URL: &url.URL{Scheme: "mailbox", Host: "letters"}, Header: http.Header{}, Body: []byte(s.letter(a))}, nil
}

// Judge implements [sinks.Sink]: there are no answers of HTTP to judge.
func (s *mailboxSink) Judge(_ *sinks.Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	return sinks.JudgeStatus(ans.Status), ""
}
