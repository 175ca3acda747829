package hogstream_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/hogstream/hogstream"
	"github.com/stretchr/testify/require"
)

func devConfig(t *testing.T) hogstream.Config {
	t.Helper()
	cfg, err := hogstream.ConfigFromEnv()
	require.NoError(t, err)
	cfg.DataDir = reachableDir(t)
	cfg.HTTP.Addr = "127.0.0.1:0"
	cfg.Log.Level = "warn"
	return cfg
}

// reachableDir is a temporary directory that Postgres can reach also when the
// tests run as root and it runs as another user.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hogstream-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o711))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// inDev runs f while a developer's instance runs on cfg, and expects it to stop cleanly.
func inDev(t *testing.T, cfg hogstream.Config, f func(*hogstream.Running)) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	reached := false
	err := hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop()
		reached = true
		f(r)
	})
	require.NoError(t, err)
	require.True(t, reached, "the instance must become ready within a minute")
}

func TestADevelopersInstanceDescribesItselfAndItsStateSurvivesARestart(t *testing.T) {
	cfg := devConfig(t)
	var key string
	inDev(t, cfg, func(r *hogstream.Running) {
		key = r.APIKey
		resp, err := http.Get(r.URL + "/openapi.json")
		require.NoError(t, err)
		defer resp.Body.Close()
		var doc struct {
			OpenAPI string         `json:"openapi"`
			Paths   map[string]any `json:"paths"`
		}
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&doc))
		require.Equal(t, "3.1.0", doc.OpenAPI)
		require.Contains(t, doc.Paths, "/v1/events/batch")
		require.Contains(t, doc.Paths, "/v1/admin/webhooks")

		other := cfg
		err = hogstream.RunDev(t.Context(), other, func(*hogstream.Running) {})
		require.ErrorContains(t, err, "is held by process", "a second instance on the directory says who holds it")
	})
	inDev(t, cfg, func(r *hogstream.Running) {
		require.Equal(t, key, r.APIKey)
	})
}
