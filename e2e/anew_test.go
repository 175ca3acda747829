package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
)

func TestFaultIngestMadeAnewTakesEventsAgainWithoutARestart(t *testing.T) {
	beside(t)
	w := newWorld(t, withEnv("HOGSTREAM_ROLES=ingest"))
	p := w.serve("one")
	c := w.client()
	post := func(ctx context.Context, n int) (int, error) {
		status, _, err := c.call(ctx, http.MethodPost, "/v1/events", event{Name: "n", UserID: fmt.Sprint("u", n)})
		return status, err
	}
	for n := range 9 { // on every partition
		status, err := post(w.ctx(), n)
		require.NoError(t, err)
		require.Equal(t, http.StatusAccepted, status)
	}
	cl, err := w.cfg.StreamConfig().NewClient("vandal", nil)
	require.NoError(t, err)
	defer cl.Close()
	deleted, err := kadm.NewClient(cl).DeleteTopics(w.ctx(), w.cfg.StreamConfig().Topic(schemas.TopicIngest))
	require.NoError(t, err)
	require.NoError(t, deleted.Error())
	w.eventually("requests to be refused, and the process not to be ready", func(ctx context.Context) error {
		status, err := post(ctx, 0)
		if err != nil || status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d %w", status, err)
		}
		if get(ctx, p.url+"/v1/health/ready") == nil {
			return fmt.Errorf("ready")
		}
		return nil
	})

	require.NoError(t, w.admin.EnsureTopics(w.ctx()))
	p.waitReady() // while nobody sends anything
	w.eventually("requests to be taken again", func(ctx context.Context) error {
		for n := range 9 {
			if status, err := post(ctx, n); err != nil || status != http.StatusAccepted {
				return fmt.Errorf("%d %w", status, err)
			}
		}
		return nil
	})
	require.NoError(t, get(w.ctx(), p.url+"/v1/health/ready"))
	p.stop()
}
