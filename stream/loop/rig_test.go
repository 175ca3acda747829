package loop_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// patience bounds every wait of these tests; nothing that works takes so long.
const patience = streamtest.Patience

// rig is a broker, a database, and a processor that copies each record of topic
// `ingest` (and others that a test names) to topic `events`, with the same key
// and so to the same partition, and counts in Postgres how often it was applied.
type rig struct {
	t          testing.TB
	env        *streamtest.Env
	direct     stream.Config // to the brokers, whatever happens to env's network
	db         *storage.DB
	admin      *kadm.Client
	client     *kgo.Client // produces inputs
	partitions int32
	keys       [][]byte // one for each partition

	reader  *kgo.Client
	visible map[int32][]string // outputs by partition, in the order on the log
	read    map[int32]int64    // how far the reader is, over markers too
}

func newRig(t testing.TB, partitions int32, opts ...streamtest.Option) *rig {
	t.Helper()
	return newRigOn(t, storagetest.New(t), partitions, opts...)
}

func newRigOn(t testing.TB, db *storage.DB, partitions int32, opts ...streamtest.Option) *rig {
	t.Helper()
	r := &rig{t: t, db: db, partitions: partitions, visible: map[int32][]string{}, read: map[int32]int64{}}
	r.env = streamtest.New(t, append(opts, streamtest.Partitions(partitions))...)
	r.direct = r.env.Config
	r.direct.Dialer = nil
	r.client = r.newClient(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	r.admin = kadm.NewClient(r.client)
	r.keys = keyPerPartition(partitions)
	_, err := storagetest.SQL(r.db).Exec(t.Context(), `CREATE TABLE applied (
		topic text, partition integer, "offset" bigint, times integer, PRIMARY KEY (topic, partition, "offset"))`)
	require.NoError(t, err)
	r.reader = r.newClient(kgo.ConsumeTopics(r.direct.Topic(schemas.TopicEvents)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))
	return r
}

func (r *rig) newClient(opts ...kgo.Opt) *kgo.Client {
	r.t.Helper()
	client, err := r.direct.NewClient("test", nil, opts...)
	require.NoError(r.t, err)
	r.t.Cleanup(client.Close)
	return client
}

// keyPerPartition finds for each partition a key that goes there.
func keyPerPartition(partitions int32) [][]byte {
	keys := make([][]byte, partitions)
	picker := kgo.StickyKeyPartitioner(nil).ForTopic("")
	for i, left := 0, partitions; left > 0; i++ {
		key := []byte(fmt.Sprintf("k%d", i))
		if p := picker.Partition(&kgo.Record{Key: key}, int(partitions)); keys[p] == nil {
			keys[p] = key
			left--
		}
	}
	return keys
}

// give appends n records to a partition of a topic.
func (r *rig) give(topic schemas.Topic, partition int32, n int) {
	r.t.Helper()
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = r.input(topic, partition, "x")
	}
	require.NoError(r.t, r.client.ProduceSync(r.t.Context(), records...).FirstErr())
}

func (r *rig) input(topic schemas.Topic, partition int32, value string) *kgo.Record {
	kr := stream.NewKafkaRecord(r.direct.Topic(topic), string(r.keys[partition]), []byte(value), schemas.Meta{ID: "id", Type: "test"}, stream.Trace{Parent: "00-trace-01"})
	kr.Partition = partition
	return kr
}

// copier is the processor.
type copier struct {
	topics []schemas.Topic
	before func()                                          // called for each batch
	tx     func(ctx context.Context, tx *storage.Tx) error // called for each batch
	extra  func(b *loop.Batch, r *stream.Record) error     // called for each record
	silent func(r *stream.Record) bool                     // says which records have no output
}

func (copier) Name() string              { return "copier" }
func (c copier) Topics() []schemas.Topic { return c.topics }

func (c copier) Apply(ctx context.Context, tx *storage.Tx, b *loop.Batch) error {
	if c.before != nil {
		c.before()
	}
	if c.tx != nil {
		if err := c.tx(ctx, tx); err != nil {
			return err
		}
	}
	var topics []string
	var partitions []int32
	var at []int64
	for _, r := range b.Records {
		if c.extra != nil {
			if err := c.extra(b, r); err != nil {
				return err
			}
		}
		topics, partitions, at = append(topics, string(r.Topic)), append(partitions, r.Partition), append(at, r.Offset)
		if c.silent != nil && c.silent(r) {
			continue
		}
		if err := b.Emit(r, copied{r}); err != nil {
			return err
		}
	}
	_, err := storagetest.SQL(tx).Exec(ctx, `
		INSERT INTO applied AS a (topic, partition, "offset", times)
		SELECT topic, partition, "offset", 1 FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS v (topic, partition, "offset")
		ON CONFLICT (topic, partition, "offset") DO UPDATE SET times = a.times + 1`, topics, partitions, at)
	return err
}

// copied is the output of a record; it names where its cause stands.
type copied struct{ from *stream.Record }

func (copied) Topic() schemas.Topic { return schemas.TopicEvents }
func (c copied) Key() string        { return string(c.from.Key) }
func (c copied) Meta() schemas.Meta {
	return schemas.Meta{ID: c.text(), Type: "copied", OccurredAt: outputTime}
}
func (c copied) text() string {
	return fmt.Sprintf("%s/%d/%d", c.from.Topic, c.from.Partition, c.from.Offset)
}

var outputTime = time.Date(2024, 2, 29, 12, 0, 0, 123456789, time.UTC)

// plainText encodes what this file's processor emits.
type plainText struct{}

func (plainText) Encode(m schemas.Message) ([]byte, error) {
	switch m := m.(type) {
	case copied:
		return []byte(m.text()), nil
	case *schemas.DeadLetter:
		return []byte(fmt.Sprintf("%s %s/%d/%d %s", m.Reason, m.SourceTopic, m.Partition, m.Offset, m.Error)), nil
	}
	return nil, fmt.Errorf("unexpected %T", m)
}

// runner is one running loop: an instance of the deployment.
type runner struct {
	r      *rig
	loop   *loop.Loop
	cancel context.CancelCauseFunc
	ended  chan struct{}
	err    error // once ended

	mu    sync.Mutex
	gates map[string]*gate
	made  []*gate
}

// gate holds a process at a step.
type gate struct {
	reached chan struct{}
	open    chan error
}

// await waits until the process stands at the gate.
func (g *gate) await(t testing.TB) {
	t.Helper()
	select {
	case <-g.reached:
	case <-time.After(patience):
		require.FailNow(t, "the step was not reached")
	}
}

// passed says that the process came to the gate.
func (g *gate) passed() bool {
	select {
	case <-g.reached:
		return true
	default:
		return false
	}
}

// either waits until the process stands at one of two gates.
func either(t testing.TB, a, b *gate) {
	t.Helper()
	select {
	case <-a.reached:
	case <-b.reached:
	case <-time.After(patience):
		require.FailNow(t, "neither step was reached")
	}
}

// pass lets the process go on; with stream.ErrCrash it dies there.
func (g *gate) pass(err error) { g.open <- err }

// start runs an instance. Options change its configuration before it starts.
func (r *rig) start(instance string, opts ...func(*loop.Config)) *runner {
	r.t.Helper()
	p := r.prepare(instance, opts...)
	p.run()
	return p
}

// prepare makes an instance whose gates can be set before it runs.
func (r *rig) prepare(instance string, opts ...func(*loop.Config)) *runner {
	r.t.Helper()
	p := &runner{r: r, ended: make(chan struct{}), gates: map[string]*gate{}}
	cfg := loop.Config{
		Kafka: r.env.Config, DB: r.db, Encoder: plainText{}, Processor: copier{topics: []schemas.Topic{schemas.TopicIngest}},
		SessionTimeout: 10 * time.Second, Logger: testLogger(r.t),
	}
	*cfg.Timing() = loop.Timing{Heartbeat: 50 * time.Millisecond, Txn: 10 * time.Second,
		Idle: time.Hour, RevokeGrace: time.Millisecond, Recheck: 50 * time.Millisecond}
	cfg.Kafka.Instance = instance
	cfg.Hook(p.step)
	for _, o := range opts {
		o(&cfg)
	}
	var err error
	p.loop, err = loop.New(cfg)
	require.NoError(r.t, err)
	return p
}

func testLogger(t testing.TB) *zap.Logger {
	if os.Getenv("HOGSTREAM_TEST_LOG") == "" {
		return zap.NewNop()
	}
	return zaptest.NewLogger(t)
}

func (p *runner) run() {
	ctx, cancel := context.WithCancelCause(context.Background())
	p.cancel = cancel
	go func() {
		defer close(p.ended)
		p.err = p.loop.Run(ctx)
	}()
	p.r.t.Cleanup(func() {
		p.kill()
		p.mu.Lock()
		for _, g := range p.made {
			select {
			case g.open <- loop.ErrCrash:
			default:
			}
		}
		p.mu.Unlock()
		p.wait()
	})
}

func (p *runner) step(step string, _ []int32) error {
	p.mu.Lock()
	g := p.gates[step]
	delete(p.gates, step)
	p.mu.Unlock()
	if g == nil {
		return nil
	}
	close(g.reached)
	return <-g.open
}

// at holds the process when it comes to a step, once.
func (p *runner) at(step string) *gate {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := &gate{reached: make(chan struct{}), open: make(chan error, 1)}
	p.gates[step] = g
	p.made = append(p.made, g)
	return g
}

// stopAfter stops gracefully once n outputs are visible.
func (p *runner) stopAfter(n int) {
	p.r.t.Helper()
	p.r.awaitOutputs(n)
	p.stop()
}

// stop is a graceful stop.
func (p *runner) stop() {
	p.r.t.Helper()
	p.cancel(nil)
	p.wait()
	require.NoError(p.r.t, p.err)
}

// kill ends the process between two steps, tidying nothing.
func (p *runner) kill() { p.cancel(loop.ErrCrash) }

func (p *runner) wait() {
	p.r.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		require.FailNow(p.r.t, "the process does not end")
	}
}

func (p *runner) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// crashed says that the process died as injected.
func (p *runner) crashed() bool { return errors.Is(p.err, loop.ErrCrash) }

// expel takes a member out of the group behind its back, as the coordinator
// does with one that went silent.
func (r *rig) expel(instance string) {
	r.t.Helper()
	require.NoError(r.t, r.tryExpel(instance))
}

func (r *rig) tryExpel(instance string) error {
	left, err := r.admin.LeaveGroup(r.t.Context(), kadm.LeaveGroup(r.direct.Group("copier")).InstanceIDs(instance+"-copier-0"))
	if err != nil {
		return err
	}
	return left.Error()
}

// awaitOutputs reads topic events until n outputs are visible to a read-committed
// reader.
func (r *rig) awaitOutputs(n int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for r.count() < n {
		r.poll(ctx)
		if ctx.Err() != nil {
			require.FailNowf(r.t, "outputs are missing", "%d of %d: %v", r.count(), n, r.visible)
		}
	}
}

// awaitOutput waits until the output of one record is visible.
func (r *rig) awaitOutput(want string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !r.has(want) {
		r.poll(ctx)
		if ctx.Err() != nil {
			require.FailNowf(r.t, "an output is missing", "%s: %v", want, r.visible)
		}
	}
}

func (r *rig) has(output string) bool {
	for _, v := range r.visible {
		if slices.Contains(v, output) {
			return true
		}
	}
	return false
}

func (r *rig) poll(ctx context.Context) {
	fetches := r.reader.PollFetches(ctx)
	fetches.EachRecord(func(kr *kgo.Record) {
		r.read[kr.Partition] = kr.Offset + 1
		if !kr.Attrs.IsControl() {
			r.visible[kr.Partition] = append(r.visible[kr.Partition], string(kr.Value))
		}
	})
}

func (r *rig) count() int {
	n := 0
	for _, v := range r.visible {
		n += len(v)
	}
	return n
}

// readToEnd reads all that a read-committed reader can see now.
func (r *rig) readToEnd() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ends, err := r.admin.ListCommittedOffsets(ctx, r.direct.Topic(schemas.TopicEvents))
	require.NoError(r.t, err)
	require.NoError(r.t, ends.Error())
	behind := func() bool {
		late := false
		ends.Each(func(o kadm.ListedOffset) { late = late || r.read[o.Partition] < o.Offset })
		return late
	}
	for behind() {
		r.poll(ctx)
		require.NoError(r.t, ctx.Err(), "reading topic events to its end")
	}
}

// fault says what is wrong with outputs or state: the committed output of each
// partition must be a prefix of the records' outputs, each once and in order;
// and each record below next_offset must have changed the state once, others
// not. Empty when nothing is.
func (r *rig) fault() string {
	r.t.Helper()
	r.readToEnd()
	for p, values := range r.visible {
		last := map[string]int64{}
		for _, v := range values {
			topic, rest, _ := strings.Cut(v, "/")
			var partition int32
			var offset int64
			_, err := fmt.Sscanf(rest, "%d/%d", &partition, &offset)
			require.NoError(r.t, err, v)
			before, seen := last[topic]
			if partition != p || seen && offset <= before {
				return fmt.Sprintf("outputs of partition %d are out of order or repeated: %v", p, values)
			}
			last[topic] = offset
		}
	}
	rows, err := r.db.LoadProgress(r.t.Context(), "copier", nil)
	require.NoError(r.t, err)
	next := map[string]int64{}
	for _, row := range rows {
		for topic, x := range row.Ranges {
			next[fmt.Sprintf("%s/%d", topic, row.Partition)] = x.Next
		}
	}
	state, err := storagetest.SQL(r.db).Query(r.t.Context(), `SELECT topic, partition, "offset", times FROM applied`)
	require.NoError(r.t, err)
	defer state.Close()
	for state.Next() {
		var topic string
		var partition, times int32
		var offset int64
		require.NoError(r.t, state.Scan(&topic, &partition, &offset, &times))
		if times != 1 {
			return fmt.Sprintf("%s/%d/%d was applied %d times", topic, partition, offset, times)
		}
		if at := next[fmt.Sprintf("%s/%d", topic, partition)]; offset >= at {
			return fmt.Sprintf("%s/%d/%d was applied, and next_offset is %d", topic, partition, offset, at)
		}
	}
	require.NoError(r.t, state.Err())
	return ""
}

// applied is how many records changed the state.
func (r *rig) applied() int {
	r.t.Helper()
	var n int
	require.NoError(r.t, storagetest.SQL(r.db).QueryRow(r.t.Context(), `SELECT count(*) FROM applied`).Scan(&n))
	return n
}

// committed is the group's offset; -1 when there is none.
func (r *rig) committed(topic schemas.Topic, partition int32) int64 {
	r.t.Helper()
	found, err := r.admin.FetchOffsets(context.Background(), r.direct.Group("copier"))
	if errors.Is(err, kerr.GroupIDNotFound) {
		return -1
	}
	require.NoError(r.t, err)
	if o, ok := found.Lookup(r.direct.Topic(topic), partition); ok && o.At >= 0 {
		return o.At
	}
	return -1
}

// row is the progress row of a partition.
func (r *rig) row(partition int32) *storage.Progress {
	r.t.Helper()
	rows, err := r.db.LoadProgress(context.Background(), "copier", []int32{partition})
	require.NoError(r.t, err)
	if len(rows) == 0 {
		return nil
	}
	return &rows[0]
}

// eventually waits for a condition that only polling can see.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	require.Eventually(r.t, ok, patience, 5*time.Millisecond, what)
}
