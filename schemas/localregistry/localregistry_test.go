package localregistry_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/localregistry"
)

func start(t *testing.T, dir string) *localregistry.Server {
	t.Helper()
	s, err := localregistry.Start(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func registered(t *testing.T, url, prefix string) *schemas.Codec {
	t.Helper()
	r, err := schemas.NewRegistry(schemas.RegistryConfig{URLs: []string{url}, Prefix: prefix})
	require.NoError(t, err)
	require.NoError(t, r.Register(t.Context()))
	return r.Codec()
}

func TestIDsMeanTheSameAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	first, err := localregistry.Start(dir)
	require.NoError(t, err)
	registered(t, first.URL(), "other.") // takes the first ids
	value, err := registered(t, first.URL(), "hogstream.").Encode(&schemas.Event{Name: "opened"})
	require.NoError(t, err)
	require.NoError(t, first.Close())

	second := start(t, dir)
	codec := registered(t, second.URL(), "hogstream.")
	got, err := codec.DecodeEvent(value)
	require.NoError(t, err)
	require.Equal(t, "opened", got.Name)
	again, err := codec.Encode(&schemas.Event{Name: "opened"})
	require.NoError(t, err)
	require.Equal(t, value, again)
}

func TestTheAddressStaysOverRestartsUnlessItsPortIsTaken(t *testing.T) {
	dir := t.TempDir()
	first, err := localregistry.Start(dir)
	require.NoError(t, err)
	address := first.URL()
	require.NoError(t, first.Close())
	second, err := localregistry.Start(dir)
	require.NoError(t, err)
	require.Equal(t, address, second.URL())
	require.False(t, second.Moved())
	require.NoError(t, second.Close())

	other, err := net.Listen("tcp", strings.TrimPrefix(address, "http://"))
	require.NoError(t, err)
	defer other.Close()
	third, err := localregistry.Start(dir)
	require.NoError(t, err)
	require.NotEqual(t, address, third.URL())
	require.True(t, third.Moved())
	require.NoError(t, third.Close())

	_, err = localregistry.StartOn(dir, other.Addr().(*net.TCPAddr).Port)
	require.ErrorContains(t, err, "in use", "a port that was asked for is not exchanged")
}

func TestAnUnreadableFileIsAnErrorAndStaysAsItIs(t *testing.T) {
	for _, text := range []string{"{", `[{"subject":"a","version":1,"id":1,"schema":"x"}]`} {
		dir := t.TempDir()
		path := filepath.Join(dir, "schemas.json")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := localregistry.Start(dir)
		require.ErrorContains(t, err, "schemas.json")
		left, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, text, string(left))
	}
}

func TestWithoutADirectoryNothingIsKept(t *testing.T) {
	s := start(t, "")
	registered(t, s.URL(), "")
	require.NoError(t, s.Close())
}
