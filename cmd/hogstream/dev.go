package main

import (
	"context"
	"fmt"
	"io"

	"github.com/hogstream/hogstream"
)

type devCmd struct {
	hogstream.Config `embed:""`
}

// Run runs everything until Ctrl-C.
func (c *devCmd) Run(ctx context.Context, out *output) error {
	return untilStopped(ctx, hogstream.RunDev(ctx, c.Config, func(r *hogstream.Running) {
		_ = out.value(r, func(w io.Writer) { printReady(w, r, c.DataDir) })
	}))
}

func printReady(w io.Writer, r *hogstream.Running, dataDir string) {
	fmt.Fprintf(w, `
Hogstream is ready.

  API       %s   (docs %s/docs, metrics %s/metrics)
  Kafka     %v
  Registry  %s
  Postgres  %s
  Data      %s
  API key   %s

Send a first event:

  curl -s %s/v1/events -H 'Authorization: Bearer %s' -H 'Content-Type: application/json' \
    -d '{"name":"signed_up","userId":"u1","email":"ada@example.com","contactProperties":{"plan":"pro"}}'

Ctrl-C stops it; what it knows stays in %s.
`, r.URL, r.URL, r.URL, r.Brokers, r.Registry, r.Database, dataDir, r.APIKey, r.URL, r.APIKey, dataDir)
}
