package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// logClients are the client that a Log produces with, and those that it replaced
// and that still wait for answers.
type logClients struct {
	mu       sync.RWMutex // held to read while records are handed over, so that none goes to a client that is closed
	current  *logClient
	replaced time.Time // when current took the place of another
	retiring sync.WaitGroup
	closed   bool
}

// logClient is a client and whether its replacement was asked for.
type logClient struct {
	*kgo.Client
	doubted atomic.Bool
}

// replaceEvery is the least time between two replacements: while a topic is missing,
// every append fails, with the new client too.
const replaceEvery = time.Second

func (l *Log) newClient() (*logClient, error) {
	giveUp := max(l.cfg.AppendTimeout, time.Second) // the client takes no less
	client, err := l.cfg.NewClient("log", l.log,
		kgo.ProducerLinger(0),
		kgo.ProduceRequestTimeout(giveUp),
		kgo.RequestTimeoutOverhead(giveUp),
		kgo.RecordDeliveryTimeout(giveUp),
		// Admission is ours, all or nothing for each call; the client counts a
		// record a little longer than we do.
		kgo.MaxBufferedRecords(2*maxBufferedRecords+10_000),
		// Do not wait for a missing topic longer than for a missing broker.
		kgo.UnknownTopicRetries(8),
	)
	if err != nil {
		return nil, err
	}
	return &logClient{Client: client}, nil
}

// produce hands the records of a call over, in their order.
func (l *Log) produce(call *appendCall) {
	l.clients.mu.RLock()
	defer l.clients.mu.RUnlock()
	client := l.clients.current
	for i := range call.records {
		// The caller's context would cancel records in the midst of a sequence.
		client.TryProduce(context.Background(), &call.records[i], func(_ *kgo.Record, err error) {
			if otherTopic(err) && !client.doubted.Swap(true) {
				go l.replaceClient(client, err)
			}
			call.answered(i, err)
		})
	}
}

// otherTopic says that the topic a client knows is gone. When one of that name was
// made anew, the client refuses it for ever; and it must: with the sequence numbers
// of the old log, records could be taken for repetitions on the new one and dropped.
func otherTopic(err error) bool {
	return errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition)
}

// replaceClient puts a client with a producer id of its own in the place of one whose
// topic is gone. The old one gets the answers that it still waits for.
// Records that are on their way then may come after later ones.
func (l *Log) replaceClient(old *logClient, why error) {
	c := &l.clients
	c.mu.Lock()
	defer c.mu.Unlock()
	old.doubted.Store(false) // the next failure asks again
	if c.closed || c.current != old || time.Since(c.replaced) < replaceEvery {
		return
	}
	client, err := l.newClient()
	if err != nil { // it cannot be: the configuration made the old one
		l.log.Error("log.client_not_replaced", zap.Error(err))
		return
	}
	l.log.Warn("log.client_replaced", zap.String("why", why.Error()))
	c.current, c.replaced = client, time.Now()
	c.retiring.Go(func() {
		// Records are given up after AppendTimeout unless their request was sent.
		ctx, cancel := context.WithTimeout(context.Background(), 4*l.cfg.AppendTimeout)
		defer cancel()
		_ = old.Flush(ctx) // what is left fails when it is closed
		old.Close()
	})
}

// client is the one in use. It may be replaced at any time.
func (c *logClients) client() *logClient {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.current
}

// close waits until everything is answered, or ctx ends.
func (c *logClients) close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	client := c.current
	c.mu.Unlock()
	err := client.Flush(ctx)
	client.Close()
	retired := make(chan struct{})
	go func() { c.retiring.Wait(); close(retired) }()
	select {
	case <-retired:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("a replaced client still waits for answers: %w", context.Cause(ctx)))
	}
	return err
}
