// Command embed is Hogstream within a program of your own. It adds a kind of destination
// (mailbox.go), a journey whose steps are code (thanks.go) and a middleware, runs everything in
// this process, broker and Postgres included, sends one event and prints what arrives.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hogstream/hogstream"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

// run runs Hogstream for as long as one event takes to get to its destination, and the
// journey that it begins to its end.
//
// On servers of your own, hogstream.New(cfg, options…) and Run take the place of
// hogstream.RunDev, and settings come from the environment.
func run(ctx context.Context, out io.Writer) error {
	cfg, err := hogstream.ConfigFromEnv()
	if err != nil {
		return err
	}
	if cfg.DataDir, err = os.MkdirTemp("", "hogstream-embed-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(cfg.DataDir) }()
	cfg.HTTP.Addr, cfg.Log.Level, cfg.Kafka.Partitions = "127.0.0.1:0", "error", 1

	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, fmt.Errorf("nothing was delivered in two minutes"))
	defer cancel()
	box := make(mailbox, 2)
	tried := make(chan error, 1)
	err = hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		go func() {
			tried <- try(ctx, out, r, box)
			cancel() // ends RunDev
		}()
	}, hogstream.WithSinks(box.kind()), hogstream.WithJourneys(thanks(&vouchers{})), hogstream.WithMiddleware(servedBy("Acme")))
	if err != nil {
		return err
	}
	return <-tried
}

// try makes a destination of our kind, sends an event, and prints what arrives.
func try(ctx context.Context, out io.Writer, r *hogstream.Running, box mailbox) error {
	// The transform runs in a worker process: this binary once more, which becomes a worker
	// before main begins. Nothing has to be done for it here.
	_, err := post(ctx, r, "/v1/admin/webhooks", map[string]any{
		"name": "letters", "kind": "mailbox", "eventTypes": []string{"event.tracked:order.completed", "journey.completed"},
		"config":    map[string]any{"greeting": "Dear Ada"},
		"transform": "{id, type, timestamp, data: (if .data.journeyId then {journey: .data.journeyId} else {total: .data.properties.total} end)}",
	})
	if err != nil {
		return err
	}
	header, err := post(ctx, r, "/v1/events", map[string]any{
		"name": "order.completed", "userId": "ada", "eventProperties": map[string]any{"total": 42, "card": "4242"},
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "served by:", header.Get("Served-By"))
	for range 2 { // the event, and the end of the journey; whichever comes first
		select {
		case letter := <-box:
			fmt.Fprintln(out, "delivered:", letter)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// post sends a JSON body to the API and returns the header of a good answer.
func post(ctx context.Context, r *hogstream.Running, path string, body any) (http.Header, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+r.APIKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("POST %s: %s: %s", path, resp.Status, answer)
	}
	return resp.Header, err
}

// servedBy is middleware: a name in the header of every answer.
func servedBy(name string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Served-By", name)
			next.ServeHTTP(w, r)
		})
	}
}
