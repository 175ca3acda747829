package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
)

// ErrBusy says that the log does not take more now: the bounded buffer is full,
// or the broker did not answer in time. In the second case the fate of the
// messages is unknown. Callers answer 503.
var ErrBusy = errors.New("log is busy")

// ErrClosed is returned by Append after Close.
var ErrClosed = errors.New("log is closed")

// AppendError says which messages of an Append are not known to be on the log.
// All others are. errors.Is finds ErrBusy in it when a retry may help.
type AppendError struct {
	// Failed are the messages by their index in the call, ascending.
	Failed []AppendFailure
	// Total is how many messages were given.
	Total int
}

// AppendFailure is why one message is not known to be on the log.
type AppendFailure struct {
	Index int
	Err   error
}

// Error names the first cause and how many failed.
func (e *AppendError) Error() string {
	first := e.Failed[0]
	if e.Total == 1 {
		return fmt.Sprintf("append: %v", first.Err)
	}
	return fmt.Sprintf("append: %d of %d messages failed, the first is number %d: %v", len(e.Failed), e.Total, first.Index, first.Err)
}

// Unwrap returns the distinct causes.
func (e *AppendError) Unwrap() []error {
	seen := make(map[string]bool)
	var errs []error
	for _, f := range e.Failed {
		if text := f.Err.Error(); !seen[text] {
			seen[text] = true
			errs = append(errs, f.Err)
		}
	}
	return errs
}

// What a Log holds at most that the broker has not acknowledged.
const (
	maxBufferedRecords = 50_000
	maxBufferedBytes   = 128 << 20
)

// Log appends messages to the topics: idempotent, acknowledged by all in-sync
// replicas, in order for each key, with a bounded buffer. Safe for concurrent
// use.
//
// A record whose request was sent and not answered stays in the buffer until
// the broker answers, for giving it up would break the sequence that makes
// retries idempotent; its Append returns ErrBusy after the timeout, and it may
// still reach the log. A record that was never sent is given up after the
// timeout. So after an outage of any length the log goes on by itself, and
// also after a topic was deleted and made anew.
type Log struct {
	cfg        Config
	enc        Encoder
	topics     map[schemas.Topic]string
	log        *zap.Logger
	closed     atomic.Bool
	clients    logClients
	experience experience

	records atomic.Int64 // admitted and not acknowledged
	bytes   atomic.Int64

	maxRecords int64 // maxBufferedRecords, but in tests

	metrics logMetrics
}

var _ Appender = (*Log)(nil)

// OpenLog makes a Log. It does not wait for a broker (see Ready); registerer may
// be nil. Close releases it.
func OpenLog(ctx context.Context, cfg Config, enc Encoder, logger *zap.Logger, registerer prometheus.Registerer) (*Log, error) {
	if logger == nil {
		logger = zap.NewNop()
	}
	l := &Log{cfg: cfg.WithDefaults(), enc: enc, log: logger, topics: make(map[schemas.Topic]string), maxRecords: maxBufferedRecords}
	for _, s := range schemas.Topics() {
		l.topics[s.Topic] = l.cfg.Topic(s.Topic)
	}
	client, err := l.newClient()
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l.clients.current = client
	if err := l.metrics.register(registerer, l); err != nil {
		client.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

// Append implements Appender. It waits at most Config.AppendTimeout, and less
// when ctx ends; the messages that were taken are then still on their way. It
// keeps nothing of the messages. The error is an *AppendError, except ErrClosed.
// Messages that cannot be encoded or are too large fail alone.
func (l *Log) Append(ctx context.Context, msgs ...schemas.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if l.closed.Load() {
		return ErrClosed
	}
	start := time.Now()
	due := start.Add(l.cfg.AppendTimeout)
	err := l.send(ctx, l.prepare(msgs, TraceFrom(ctx)), due)
	for {
		again := unsent(err)
		var more bool
		if due, more = stillDue(due, time.Now(), l.cfg.AppendTimeout); !more || len(again) == 0 {
			break
		}
		rest := make([]schemas.Message, len(again))
		for i, m := range again {
			rest[i] = msgs[m]
		}
		err = resent(len(msgs), err, again, l.send(ctx, l.prepare(rest, TraceFrom(ctx)), due))
	}
	l.metrics.observe(time.Since(start), err)
	return err
}

// stillDue says whether an append that was due by then may go on, and until when. Late
// by much, this process stood still, and not the broker: it was not asked, or its
// answer may be here.
func stillDue(due, now time.Time, timeout time.Duration) (time.Time, bool) {
	switch late := now.Sub(due); {
	case late < 0:
		return due, true
	case late > timeout/10:
		return now.Add(timeout), true
	}
	return due, false
}

// send hands the records of a call to the client and waits for the answers.
func (l *Log) send(ctx context.Context, call *appendCall, due time.Time) error {
	sent := int64(len(call.records))
	if sent == 0 {
		return call.result()
	}
	if !l.admit(sent, call.size) {
		err := fmt.Errorf("%w: %d records of %d bytes wait for the broker", ErrBusy, l.records.Load(), l.bytes.Load())
		l.experience.failed(err)
		return allFailed(call.messages, err)
	}
	call.left.Store(sent)
	l.produce(call)
	return call.wait(ctx, due)
}

// unsent are the messages, by their index in the call, that the client gave up before
// it sent them. It gives up all that wait for a partition when the first of them is
// too old, so also those that are not: after this process stood still, for one.
func unsent(err error) []int {
	var indexes []int
	for _, f := range failures(err) {
		if errors.Is(f.Err, errNotSent) {
			indexes = append(indexes, f.Index)
		}
	}
	return indexes
}

// resent is what came of a call of total messages when those of indexes again were
// sent a second time.
func resent(total int, first error, again []int, second error) error {
	still := slices.DeleteFunc(slices.Clone(failures(first)), func(f AppendFailure) bool {
		return slices.Contains(again, f.Index)
	})
	for _, f := range failures(second) {
		still = append(still, AppendFailure{Index: again[f.Index], Err: f.Err})
	}
	return failedOf(total, still)
}

func failures(err error) []AppendFailure {
	var e *AppendError
	if errors.As(err, &e) {
		return e.Failed
	}
	return nil
}

// admit counts a call in, or refuses it when the buffer would overflow. A call
// that is larger than the whole buffer gets in when it is alone.
func (l *Log) admit(records, size int64) bool {
	r, b := l.records.Add(records), l.bytes.Add(size)
	full := r > l.maxRecords || b > maxBufferedBytes
	if full && r != records {
		l.release(records, size)
		return false
	}
	return true
}

func (l *Log) release(records, size int64) {
	l.records.Add(-records)
	l.bytes.Add(-size)
}

// Close refuses further appends, waits until the broker has acknowledged what
// was taken or ctx ends, and closes the connections. It may be called twice.
func (l *Log) Close(ctx context.Context) error {
	if l.closed.Swap(true) {
		return nil
	}
	err := l.clients.close(ctx)
	l.metrics.unregister()
	if err != nil {
		return fmt.Errorf("close log with %d records not acknowledged: %w", l.records.Load(), err)
	}
	return nil
}

// appendCall is one Append on its way. Its caller may leave before the broker has
// answered: then nobody looks at it any more.
type appendCall struct {
	log      *Log
	messages int
	records  []kgo.Record
	index    []int // of the message of each record; shorter than messages when some failed early
	size     int64
	left     atomic.Int64  // records that are not answered
	done     chan struct{} // closed when none is left

	mu       sync.Mutex
	failures []AppendFailure
}

// prepare encodes the messages into records.
func (l *Log) prepare(msgs []schemas.Message, t Trace) *appendCall {
	c := &appendCall{
		log: l, messages: len(msgs), done: make(chan struct{}),
		records: make([]kgo.Record, 0, len(msgs)), index: make([]int, 0, len(msgs)),
	}
	for i, m := range msgs {
		r, err := l.record(m, t)
		if err != nil {
			c.failures = append(c.failures, AppendFailure{Index: i, Err: err})
			continue
		}
		c.records, c.index = append(c.records, r), append(c.index, i)
		c.size += int64(len(r.Value) + len(r.Key))
	}
	return c
}

func (l *Log) record(m schemas.Message, t Trace) (kgo.Record, error) {
	topic, ok := l.topics[m.Topic()]
	if !ok {
		return kgo.Record{}, fmt.Errorf("message %s: there is no topic %q", m.Meta().ID, m.Topic())
	}
	value, err := l.enc.Encode(m)
	if err != nil {
		return kgo.Record{}, fmt.Errorf("encode %s for %s: %w", m.Topic(), m.Key(), err)
	}
	key, meta := m.Key(), m.Meta()
	if err := Fits(m.Topic(), key, meta, t); err != nil {
		return kgo.Record{}, err
	}
	if len(value) > MaxValue {
		return kgo.Record{}, fmt.Errorf("%s %s has %d bytes: %w", m.Topic(), meta.ID, len(value), ErrTooLarge)
	}
	return *NewKafkaRecord(topic, key, value, meta, t), nil
}

// MaxValue leaves room for key, headers and the batch's frame in MaxRecord.
const MaxValue = schemas.MaxRecord - 64<<10

// answered is told once for each record what became of it.
func (c *appendCall) answered(record int, err error) {
	if err != nil {
		c.mu.Lock()
		c.failures = append(c.failures, AppendFailure{Index: c.index[record], Err: c.log.classify(err)})
		c.mu.Unlock()
	}
	if c.left.Add(-1) > 0 {
		return
	}
	c.log.release(int64(len(c.records)), c.size)
	c.mu.Lock()
	onLog := c.messages - len(c.failures)
	c.mu.Unlock()
	if onLog > 0 {
		c.log.metrics.appended(int64(onLog), c.size)
	}
	close(c.done)
}

// classify tells what a retry may help from what it will not.
func (l *Log) classify(err error) error {
	switch {
	case errors.Is(err, kgo.ErrClientClosed) && l.closed.Load():
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, kerr.MessageTooLarge):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, kgo.ErrRecordTimeout), isNetworkError(err):
		return fmt.Errorf("%w: %w: %w", ErrBusy, errNotSent, err)
	case errors.Is(err, kgo.ErrMaxBuffered), errors.Is(err, kgo.ErrRecordRetries), kerr.IsRetriable(err), !isKafkaError(err):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

// errNotSent says that the client gave up a record before it sent it. For its age, that
// is; once sent it is kept until the broker answers. The error is then the one that
// the client has just met, of the network perhaps.
var errNotSent = errors.New("not sent")

func isNetworkError(err error) bool {
	var network net.Error
	return kgo.IsRetryableBrokerErr(err) || errors.As(err, &network)
}

func isKafkaError(err error) bool {
	var ke *kerr.Error
	return errors.As(err, &ke)
}

// wait returns when every record is answered, or time is up, or the caller leaves.
func (c *appendCall) wait(ctx context.Context, due time.Time) error {
	timeout := c.log.cfg.AppendTimeout
	patience := time.NewTimer(time.Until(due))
	defer patience.Stop()
	for {
		select {
		case <-c.done:
			err := c.result()
			c.log.experience.note(err)
			return err
		case <-patience.C:
			if next, more := stillDue(due, time.Now(), timeout); more {
				due = next
				patience.Reset(time.Until(due))
				continue
			}
			err := fmt.Errorf("%w: no acknowledgement within %s", ErrBusy, timeout)
			c.log.experience.failed(err)
			return allFailed(c.messages, err)
		case <-ctx.Done():
			return allFailed(c.messages, fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx)))
		}
	}
}

// result is for a call of which every record is answered.
func (c *appendCall) result() error {
	return failedOf(c.messages, c.failures)
}

// failedOf is nil when none failed.
func failedOf(total int, failed []AppendFailure) error {
	if len(failed) == 0 {
		return nil
	}
	slices.SortFunc(failed, func(a, b AppendFailure) int { return a.Index - b.Index })
	return &AppendError{Failed: failed, Total: total}
}

func allFailed(n int, cause error) error {
	e := &AppendError{Total: n, Failed: make([]AppendFailure, n)}
	for i := range e.Failed {
		e.Failed[i] = AppendFailure{Index: i, Err: cause}
	}
	return e
}

// logMetrics are what Log tells Prometheus.
type logMetrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	records, size, busy, failed prometheus.Counter
	latency                     prometheus.Histogram
}

func (m *logMetrics) register(reg prometheus.Registerer, l *Log) error {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "hogstream_log_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	gauge := func(name, help string, v *atomic.Int64) {
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hogstream_log_" + name, Help: help},
			func() float64 { return float64(v.Load()) }))
	}
	m.records = counter("appended_records_total", "Records acknowledged by all in-sync replicas.")
	m.size = counter("appended_bytes_total", "Bytes of keys and values acknowledged, before compression.")
	m.busy = counter("busy_total", "Appends refused or given up because the buffer was full or the broker did not answer.")
	m.failed = counter("failed_total", "Appends that failed for a reason a retry will not mend.")
	m.latency = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "hogstream_log_append_seconds", Help: "Time from Append to the acknowledgement of its last record.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	})
	m.all = append(m.all, m.latency)
	gauge("buffered_records", "Records taken and not acknowledged.", &l.records)
	gauge("buffered_bytes", "Bytes taken and not acknowledged.", &l.bytes)
	if reg == nil {
		return nil
	}
	m.registerer = reg
	for i, c := range m.all {
		if err := reg.Register(c); err != nil {
			for _, registered := range m.all[:i] {
				reg.Unregister(registered)
			}
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func (m *logMetrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}

func (m *logMetrics) appended(records, size int64) {
	m.records.Add(float64(records))
	m.size.Add(float64(size))
}

func (m *logMetrics) observe(took time.Duration, err error) {
	switch {
	case err == nil:
		m.latency.Observe(took.Seconds())
	case errors.Is(err, context.Canceled): // the caller left, whatever the log does
	case errors.Is(err, ErrBusy):
		m.busy.Inc()
	default:
		m.failed.Inc()
	}
}
