package localbroker_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/localbroker"
	"github.com/hogstream/hogstream/stream/reader"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("LOCALBROKER_TEST_HOLD"); dir != "" {
		b, err := localbroker.Start(localbroker.Config{Dir: dir})
		fmt.Println(err)
		if err == nil {
			io.Copy(io.Discard, os.Stdin) //nolint:errcheck // ends with the parent
			b.Stop()                      //nolint:errcheck // so does this process
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func start(t testing.TB, dir string) *localbroker.Broker {
	t.Helper()
	b, err := localbroker.Start(localbroker.Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { b.Stop() }) //nolint:errcheck // tests that care stop it themselves
	return b
}

func client(t testing.TB, b *localbroker.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := stream.Config{Brokers: []string{b.Addr()}}.NewClient("test", nil, opts...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func TestStateAndAddressSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir)
	config := stream.Config{Brokers: []string{b.Addr()}, Partitions: 2}
	require.NoError(t, stream.EnsureTopics(context.Background(), config, nil))
	cl := client(t, b)
	for i := range 10 {
		r := stream.NewKafkaRecord(config.Topic(schemas.TopicEvents), "k", []byte(fmt.Sprint(i)), schemas.Meta{}, stream.Trace{})
		require.NoError(t, cl.ProduceSync(context.Background(), r).FirstErr())
	}
	require.NoError(t, b.Stop())
	again := start(t, dir)
	require.Equal(t, b.Addr(), again.Addr())
	require.NoError(t, stream.EnsureTopics(context.Background(), config, nil))
	next := 0
	require.NoError(t, reader.Tail(context.Background(), config, reader.TailOptions{Topics: []schemas.Topic{schemas.TopicEvents}}, nil, func(r *stream.Record) error {
		require.Equal(t, fmt.Sprint(next), string(r.Value))
		next++
		return nil
	}))
	require.Equal(t, 10, next)
}

func TestASecondStartOnOneDirectorySaysWhoHoldsIt(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOCALBROKER_TEST_HOLD="+dir)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "<nil>", strings.TrimSpace(line))

	_, err = localbroker.Start(localbroker.Config{Dir: dir})
	require.ErrorIs(t, err, localbroker.ErrInUse)
	require.ErrorContains(t, err, fmt.Sprintf("process %d", cmd.Process.Pid))

	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait())
	start(t, dir)
}

func TestAPortInUseIsRefusedWhenGivenAndReplacedWhenRemembered(t *testing.T) {
	first := start(t, t.TempDir())
	var port int
	_, err := fmt.Sscanf(first.Addr(), "127.0.0.1:%d", &port)
	require.NoError(t, err)
	_, err = localbroker.Start(localbroker.Config{Dir: t.TempDir(), Port: port})
	require.ErrorContains(t, err, fmt.Sprintf("port %d is in use", port))

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/port", []byte(fmt.Sprint(port)), 0o644))
	require.NotEqual(t, first.Addr(), start(t, dir).Addr())
}

func TestRetentionDeletesAndCompactionKeepsTheNewest(t *testing.T) {
	b := start(t, t.TempDir())
	ctx := context.Background()
	config := stream.Config{Brokers: []string{b.Addr()}, Partitions: 1, Retention: map[schemas.Topic]time.Duration{schemas.TopicEvents: time.Minute}}
	require.NoError(t, stream.EnsureTopics(ctx, config, nil))
	cl := client(t, b)
	for i := range 20 {
		r := stream.NewKafkaRecord(config.Topic(schemas.TopicContacts), "c", []byte(fmt.Sprint(i)), schemas.Meta{}, stream.Trace{})
		require.NoError(t, cl.ProduceSync(ctx, r).FirstErr())
	}
	b.Cluster().Compact()
	var values []string
	require.NoError(t, reader.Tail(ctx, config, reader.TailOptions{Topics: []schemas.Topic{schemas.TopicContacts}}, nil, func(r *stream.Record) error {
		values = append(values, string(r.Value))
		return nil
	}))
	require.Contains(t, values, "19")
	require.LessOrEqual(t, len(values), 2, "the last batch is never compacted")
}

// How long a start takes with a million records on disk: LOCALBROKER_MILLION=1.
func TestStartWithAMillionRecords(t *testing.T) {
	if os.Getenv("LOCALBROKER_MILLION") == "" {
		t.Skip("writes 1 GB; set LOCALBROKER_MILLION to run it")
	}
	dir := t.TempDir()
	b := start(t, dir)
	config := stream.Config{Brokers: []string{b.Addr()}}
	require.NoError(t, stream.EnsureTopics(context.Background(), config, nil))
	// One record a batch is the worst case: a start reads the frame of each batch.
	cl := client(t, b, kgo.MaxBufferedRecords(100_000), kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(2000))
	value := []byte(strings.Repeat("abcdefgh 01234567 ", 57))
	for i := range 1_000_000 {
		cl.Produce(context.Background(), stream.NewKafkaRecord(config.Topic(schemas.TopicEvents), fmt.Sprint(i%50_000), value, schemas.Meta{ID: "x", Type: "event"}, stream.Trace{}), nil)
	}
	require.NoError(t, cl.Flush(context.Background()))
	cl.Close()
	require.NoError(t, b.Stop())
	began := time.Now()
	b = start(t, dir)
	t.Logf("start after an orderly stop: %s", time.Since(began))
	require.NoError(t, b.Stop())
	require.NoError(t, exec.Command("find", dir, "-name", "snapshot.json", "-delete").Run())
	began = time.Now()
	start(t, dir)
	t.Logf("start without snapshots, as after a kill: %s", time.Since(began))
}

func TestTheBrokerIsReachedFromInsideAndFromOutsideUntilItStops(t *testing.T) {
	b := start(t, t.TempDir())
	outside := client(t, b)
	inside, err := stream.Config{Brokers: []string{b.Addr()}, Dialer: b.Dial}.NewClient("inside", nil, kgo.AllowAutoTopicCreation())
	require.NoError(t, err)
	defer inside.Close()
	require.NoError(t, stream.EnsureTopics(t.Context(), stream.Config{Brokers: []string{b.Addr()}, Dialer: b.Dial}, nil))
	large := []byte(strings.Repeat("x", 1<<20)) // more than is under way at once
	for _, cl := range []*kgo.Client{inside, outside} {
		produced := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "hogstream.ingest", Value: large})
		require.NoError(t, produced.FirstErr())
	}
	for _, cl := range []*kgo.Client{inside, outside} {
		cl.AddConsumeTopics("hogstream.ingest")
		for n := 0; n < 2; {
			fetched := cl.PollFetches(t.Context())
			require.NoError(t, fetched.Err())
			fetched.EachRecord(func(r *kgo.Record) { n++; require.Equal(t, large, r.Value) })
		}
	}

	require.NoError(t, b.Stop())
	_, err = b.Dial(t.Context(), "", "")
	require.Error(t, err)
	_, err = net.Dial("tcp", b.Addr())
	require.Error(t, err)
}
