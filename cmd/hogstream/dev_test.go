package main

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
)

func TestAStartThatTakesLongSaysSoUntilItIsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := tellSteps(&out, stepEvery)
		s.step("starting Postgres")
		<-time.After(2*stepEvery + time.Second)
		s.step("opening the database")
		s.done()
		<-time.After(2 * stepEvery)
		require.Equal(t, "starting Postgres …\nstarting Postgres … (3 s)\nstarting Postgres … (6 s)\nopening the database …\n", out.String())
	})
}

func TestTheNextStepIsOnTheSameDataDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	own, err := filepath.Abs(".hogstream")
	require.NoError(t, err)
	next := func(dir string) string {
		var b strings.Builder
		printReady(&b, &hogstream.Running{}, &devCmd{Config: hogstream.Config{DataDir: dir}})
		return b.String()
	}
	require.Contains(t, next(own), " listen\n")
	require.Contains(t, next("/srv/other"), " listen --data-dir /srv/other\n")

	running := httptest.NewServer(http.NotFoundHandler()) // its port is taken, so that it goes no further
	t.Cleanup(running.Close)
	port := running.Listener.Addr().(*net.TCPAddr).Port
	c := listenCmd{Host: "127.0.0.1", Port: port, Status: 204, DataDir: "elsewhere"}
	require.ErrorContains(t, c.Run(t.Context(), nil), "--port")
	require.FileExists(t, filepath.Join("elsewhere", "listen-secret"))
}

func TestALogThatHasBecomeLargeIsPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hogstream.log")
	require.NoError(t, startLog(path), "there is none yet")
	require.NoError(t, os.WriteFile(path, []byte("small"), 0o600))
	require.NoError(t, startLog(path))
	require.FileExists(t, path)
	require.NoError(t, os.Truncate(path, maxLog+1))
	require.NoError(t, startLog(path))
	require.NoFileExists(t, path)
	require.FileExists(t, path+".1")
}

func TestATimelineFollowsAContactsNumbersAndNotTheClocksOfTopics(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	records := inOrder([]entry{{ID: "c", Seq: 3, At: at(5)}, {ID: "b", Seq: 2, At: at(9)}, {ID: "old", At: at(1)}, {ID: "a", Seq: 1, At: at(4)}, {ID: "bucket", At: at(20)}, {ID: "next era", Seq: 1, Era: 7, At: at(21)}})
	delivery := entry{ID: "delivery", At: at(10), place: at(10)}
	var ids []string
	for _, e := range newest(append(records, delivery), 6) {
		ids = append(ids, e.ID)
	}
	require.Equal(t, []string{"a", "b", "c", "delivery", "bucket", "next era"}, ids)

	var b strings.Builder
	printTimeline(&b, newest(append(records, delivery), 6))
	require.Equal(t, 1, strings.Count(b.String(), "numbers begin again, in era 7\n"))
	require.Less(t, strings.Index(b.String(), "begin again"), strings.LastIndex(b.String(), "#1"))
}

func TestATimelineHasAtLeastOneEntry(t *testing.T) {
	require.ErrorContains(t, (&contactsShowCmd{Limit: -1}).Run(t.Context(), nil), "--limit is -1")
}
