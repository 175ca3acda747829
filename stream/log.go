package stream

import (
	"context"
	"errors"
	"fmt"
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

// Log appends messages to the topics: idempotent, acknowledged by all in-sync
// replicas, in order for each key, with a bounded buffer. Safe for concurrent
// use.
//
// A record whose request was sent and not answered stays in the buffer until
// the broker answers, for giving it up would break the sequence that makes
// retries idempotent; its Append returns ErrBusy after the timeout, and it may
// still reach the log. A record that was never sent is given up after the
// timeout. So after an outage of any length the log goes on by itself.
type Log struct {
	cfg    Config
	enc    Encoder
	append appendEncoder // enc, when it can append to a buffer
	topics map[schemas.Topic]string
	client *kgo.Client
	closed atomic.Bool

	records atomic.Int64 // admitted and not acknowledged
	bytes   atomic.Int64
	calls   sync.Pool // *appendCall
	gather  gathering

	metrics logMetrics
}

// appendEncoder is an Encoder that saves an allocation a message.
type appendEncoder interface {
	Append(dst []byte, m schemas.Message) ([]byte, error)
}

var _ Appender = (*Log)(nil)

// OpenLog makes a Log. It does not wait for a broker (see Ping); registerer may
// be nil. Close releases it.
func OpenLog(ctx context.Context, cfg Config, enc Encoder, logger *zap.Logger, registerer prometheus.Registerer) (*Log, error) {
	cfg = cfg.withDefaults()
	giveUp := max(cfg.AppendTimeout, time.Second) // the client takes no less
	client, err := cfg.NewClient("log", logger,
		// The broker gets what hand gives as soon as there is a free request,
		// of which five may be in flight.
		kgo.ProducerLinger(0),
		kgo.ProduceRequestTimeout(giveUp),
		kgo.RequestTimeoutOverhead(giveUp),
		kgo.RecordDeliveryTimeout(giveUp),
		// Admission is ours, all or nothing for each call; the client counts a
		// record a little longer than we do.
		kgo.MaxBufferedRecords(2*cfg.MaxBufferedRecords+10_000),
		// Do not wait for a missing topic longer than for a missing broker.
		kgo.UnknownTopicRetries(8),
	)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l := &Log{cfg: cfg, enc: enc, client: client, topics: make(map[schemas.Topic]string)}
	l.append, _ = enc.(appendEncoder)
	for _, s := range schemas.Topics() {
		l.topics[s.Topic] = cfg.Topic(s.Topic)
	}
	l.gather.due = time.AfterFunc(time.Hour, l.handGathered)
	l.gather.due.Stop()
	l.calls.New = func() any { return newAppendCall(l) }
	if err := l.metrics.register(registerer, l); err != nil {
		client.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

// Append implements Appender. It waits at most Config.AppendTimeout, and less
// when ctx ends; the messages that were taken are then still on their way. The
// error is an *AppendError, except ErrClosed. Messages that cannot be encoded
// or are too large fail alone.
func (l *Log) Append(ctx context.Context, msgs ...schemas.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if l.closed.Load() {
		return ErrClosed
	}
	start := time.Now()
	call := l.calls.Get().(*appendCall)
	call.prepare(msgs, TraceFrom(ctx))
	if !l.admit(call.sent, call.size) {
		call.records = call.records[:0]
		l.calls.Put(call)
		l.metrics.busy.Inc()
		return allFailed(len(msgs), fmt.Errorf("%w: %d records of %d bytes wait for the broker", ErrBusy, l.records.Load(), l.bytes.Load()))
	}
	l.hand(call)
	err := call.wait(ctx)
	l.metrics.observe(time.Since(start), err)
	return err
}

// admit counts a call in, or refuses it when the buffer would overflow. A call
// that is larger than the whole buffer gets in when it is alone.
func (l *Log) admit(records, size int64) bool {
	r, b := l.records.Add(records), l.bytes.Add(size)
	full := r > int64(l.cfg.MaxBufferedRecords) || b > int64(l.cfg.MaxBufferedBytes)
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

// Ping asks the brokers for a sign of life.
func (l *Log) Ping(ctx context.Context) error {
	if err := l.client.Ping(ctx); err != nil {
		return fmt.Errorf("ping kafka: %w", err)
	}
	return nil
}

// Close refuses further appends, waits until the broker has acknowledged what
// was taken or ctx ends, and closes the connections. It may be called twice.
func (l *Log) Close(ctx context.Context) error {
	if l.closed.Swap(true) {
		return nil
	}
	l.handGathered()
	err := l.client.Flush(ctx)
	l.client.Close()
	l.metrics.unregister()
	if err != nil {
		return fmt.Errorf("close log with %d records not acknowledged: %w", l.records.Load(), err)
	}
	return nil
}

// appendCall is one Append on its way. Its memory is used again once the broker
// has answered for every record and the caller is gone, whichever is later.
type appendCall struct {
	log     *Log
	promise func(*kgo.Record, error)
	timer   *time.Timer
	done    chan struct{} // one token when the last record is answered

	msgs    int
	records []kgo.Record
	index   []int // of the message of each record; shorter than msgs when some failed early
	headers []kgo.RecordHeader
	buf     []byte
	sent    int64
	size    int64

	left    atomic.Int64 // records that are not answered
	holders atomic.Int32 // the caller, and the client while left > 0

	mu     sync.Mutex
	failed []AppendFailure
}

func newAppendCall(l *Log) *appendCall {
	c := &appendCall{log: l, done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	c.timer.Stop()
	c.promise = c.answered
	return c
}

// prepare encodes the messages into records.
func (c *appendCall) prepare(msgs []schemas.Message, t Trace) {
	c.msgs = len(msgs)
	c.records, c.index, c.headers, c.buf = c.records[:0], c.index[:0], c.headers[:0], c.buf[:0]
	c.failed, c.size = nil, 0
	if cap(c.records) < len(msgs) {
		c.records = make([]kgo.Record, 0, len(msgs))
		c.headers = make([]kgo.RecordHeader, 0, maxHeaders*len(msgs))
	}
	for i, m := range msgs {
		if err := c.add(i, m, t); err != nil {
			c.failed = append(c.failed, AppendFailure{Index: i, Err: err})
		}
	}
	c.sent = int64(len(c.records))
}

func (c *appendCall) add(i int, m schemas.Message, t Trace) error {
	topic, ok := c.log.topics[m.Topic()]
	if !ok {
		return fmt.Errorf("message %s: there is no topic %q", m.Meta().ID, m.Topic())
	}
	value, err := c.encode(m)
	if err != nil {
		return fmt.Errorf("encode %s for %s: %w", m.Topic(), m.Key(), err)
	}
	text, meta := m.Key(), m.Meta()
	if err := fits(m.Topic(), text, meta, t); err != nil {
		return err
	}
	if len(value) > maxValue {
		return fmt.Errorf("%s %s has %d bytes: %w", m.Topic(), meta.ID, len(value), ErrTooLarge)
	}
	start := len(c.buf)
	c.buf = append(c.buf, text...)
	key := c.buf[start:len(c.buf):len(c.buf)]
	first := len(c.headers)
	c.headers, c.buf = appendHeaders(c.headers, c.buf, meta, t)
	c.records = append(c.records, kgo.Record{
		Topic: topic, Key: key, Value: value,
		Headers: c.headers[first:len(c.headers):len(c.headers)],
	})
	c.index = append(c.index, i)
	c.size += int64(len(value) + len(key))
	return nil
}

// maxValue leaves room for key, headers and the batch's frame in MaxRecord.
const maxValue = schemas.MaxRecord - 64<<10

func (c *appendCall) encode(m schemas.Message) ([]byte, error) {
	if c.log.append == nil {
		return c.log.enc.Encode(m)
	}
	start := len(c.buf)
	buf, err := c.log.append.Append(c.buf, m)
	if err != nil {
		return nil, err
	}
	c.buf = buf
	if len(buf) == start {
		return nil, nil // a tombstone
	}
	return buf[start:len(buf):len(buf)], nil
}

func (c *appendCall) produce() {
	c.left.Store(c.sent)
	if c.sent == 0 {
		c.holders.Store(1)
		c.done <- struct{}{}
		return
	}
	c.holders.Store(2)
	for i := range c.records {
		// The caller's context would cancel records in the midst of a sequence.
		c.log.client.TryProduce(context.Background(), &c.records[i], c.promise)
	}
}

// answered is the client's promise: one call a record, from one goroutine.
func (c *appendCall) answered(r *kgo.Record, err error) {
	if err != nil {
		c.fail(r, err)
	}
	if c.left.Add(-1) > 0 {
		return
	}
	c.log.release(c.sent, c.size)
	c.log.gather.landed(c.sent)
	c.mu.Lock()
	onLog := c.msgs - len(c.failed)
	c.mu.Unlock()
	if onLog > 0 {
		c.log.metrics.appended(int64(onLog), c.size)
	}
	c.done <- struct{}{}
	c.drop()
}

func (c *appendCall) fail(r *kgo.Record, err error) {
	err = classify(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.records {
		if &c.records[i] == r {
			c.failed = append(c.failed, AppendFailure{Index: c.index[i], Err: err})
			return
		}
	}
}

// classify tells what a retry may help from what it will not.
func classify(err error) error {
	switch {
	case errors.Is(err, kgo.ErrClientClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, kerr.MessageTooLarge):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrMaxBuffered), errors.Is(err, kgo.ErrRecordRetries),
		kerr.IsRetriable(err), !isKafkaError(err):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

func isKafkaError(err error) bool {
	var ke *kerr.Error
	return errors.As(err, &ke)
}

// wait returns when every record is answered, or time is up.
func (c *appendCall) wait(ctx context.Context) error {
	c.timer.Reset(c.log.cfg.AppendTimeout)
	var err error
	select {
	case <-c.done:
		err = c.result()
	case <-c.timer.C:
		err = allFailed(c.msgs, fmt.Errorf("%w: no acknowledgement within %s", ErrBusy, c.log.cfg.AppendTimeout))
	case <-ctx.Done():
		err = allFailed(c.msgs, fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx)))
	}
	c.timer.Stop()
	c.drop()
	return err
}

func (c *appendCall) result() error {
	if len(c.failed) == 0 {
		return nil
	}
	failed := c.failed
	c.failed = nil
	sortFailures(failed)
	return &AppendError{Failed: failed, Total: c.msgs}
}

// drop lets go of the call; the last holder returns its memory.
func (c *appendCall) drop() {
	if c.holders.Add(-1) > 0 {
		return
	}
	select {
	case <-c.done: // the caller had left
	default:
	}
	if cap(c.buf) > maxPooledBuffer || cap(c.records) > maxPooledRecords {
		return
	}
	c.log.calls.Put(c)
}

// A call larger than this is left to the garbage collector.
const (
	maxPooledBuffer  = 1 << 20
	maxPooledRecords = 1000
)

func allFailed(n int, cause error) error {
	e := &AppendError{Total: n, Failed: make([]AppendFailure, n)}
	for i := range e.Failed {
		e.Failed[i] = AppendFailure{Index: i, Err: cause}
	}
	return e
}

func sortFailures(fs []AppendFailure) {
	for i := 1; i < len(fs); i++ { // few, and mostly in order
		for j := i; j > 0 && fs[j].Index < fs[j-1].Index; j-- {
			fs[j], fs[j-1] = fs[j-1], fs[j]
		}
	}
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
	case errors.Is(err, ErrBusy):
		m.busy.Inc()
	default:
		m.failed.Inc()
	}
}
