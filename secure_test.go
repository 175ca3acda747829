package hogstream

import (
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAListenerOnLoopbackIsServedUnderItsOwnNamesAlone(t *testing.T) {
	a := &App{}
	a.cfg.HTTP.PublicURL = "https://events.example.com/in"
	ask := func(listener, host string) int {
		at, err := net.ResolveTCPAddr("tcp", listener)
		require.NoError(t, err)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/health/live", nil)
		r.Host = host
		w := httptest.NewRecorder()
		a.onlyOwnHosts(at, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })).ServeHTTP(w, r)
		return w.Code
	}
	for _, host := range []string{"localhost", "LOCALHOST:3002", "127.0.0.1:3002", "[::1]:3002", "app.localhost:3002", "events.example.com"} {
		require.Equal(t, http.StatusNoContent, ask("127.0.0.1:3002", host), host)
	}
	for _, host := range []string{"rebound.example.net:3002", "", "localhost.example.net", "10.0.0.1:3002", "127.0.0.1.nip.io"} {
		require.Equal(t, http.StatusMisdirectedRequest, ask("127.0.0.1:3002", host), host)
		require.Equal(t, http.StatusMisdirectedRequest, ask("[::1]:3002", host), host)
		require.Equal(t, http.StatusNoContent, ask("0.0.0.0:3002", host), host)
	}
}

func TestADataDirectoryIsItsOwnersAloneAlsoWhenItWasMadeBefore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "kafka", "topic"), 0o755))
	for _, name := range []string{"api-key", "kafka/topic/0.dat", "encryption-key"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("secret"), 0o644))
	}
	require.NoError(t, tighten(dir))
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := e.Info()
		require.NoError(t, err)
		allowed := fs.FileMode(0o600)
		switch {
		case path == dir && os.Geteuid() == 0: // Postgres, who is not root then, passes through
			allowed = 0o711
		case e.IsDir():
			allowed = 0o700
		}
		require.Equal(t, allowed, info.Mode().Perm(), path)
		return nil
	}))
}

func TestAShortAdminKeyIsRefused(t *testing.T) {
	for length, refused := range map[int]bool{0: false, 1: true, 23: true, 24: false} {
		c := Config{AdminAPIKey: strings.Repeat("k", length)}
		require.Equal(t, refused, strings.Contains(c.ValidateServing().Error(), "ADMIN_API_KEY"), "%d", length)
	}
}
