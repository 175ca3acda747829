package localbroker_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/localbroker"
)

// The kernel would leave it for half a minute, and then write it all at once while others wait
// for the disk.
func TestWhatIsAppendedIsWrittenOutSoonAndWhatIsOldIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir)
	config := stream.Config{Brokers: []string{b.Addr()}, Partitions: 3}
	require.NoError(t, stream.EnsureTopics(t.Context(), config, nil))
	produce := func(b *localbroker.Broker, key string) (partition string) {
		r := stream.NewKafkaRecord(config.Topic(schemas.TopicEvents), key, []byte("1"), schemas.Meta{}, stream.Trace{})
		require.NoError(t, client(t, b).ProduceSync(t.Context(), r).FirstErr())
		return fmt.Sprintf("%s-%d", r.Topic, r.Partition)
	}
	old := produce(b, "a")
	require.NoError(t, b.Stop())
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, _ error) error {
		return os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour))
	}))

	written := make(chan string, 1000)
	b, err := localbroker.Start(localbroker.Config{Dir: dir}.WritingOut(func(path string) { written <- path }))
	require.NoError(t, err)
	defer b.Stop() //nolint:errcheck // the directory goes as well
	partition := produce(b, "b")
	require.NotEqual(t, old, partition)
	minute := time.After(time.Minute)
	for {
		select {
		case path := <-written:
			if filepath.Ext(path) != ".dat" {
				continue // what the broker notes of clients
			}
			require.True(t, strings.HasSuffix(filepath.Dir(path), partition), "%s was not changed", path)
			return
		case <-minute:
			require.FailNow(t, "what was appended is not written out")
		}
	}
}
