package loop

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// publisher publishes: outputs and offsets in one transaction. Two producers take
// turns, for the end of a transaction is written in two steps: the broker answers
// when it is decided, and then takes 5 to 20 ms (Apache Kafka) to write it to all
// partitions, in which no other can be begun under the same transactional id.
//
// Transactions end in the order of their batches all the same: one ends only when
// the one before is through everywhere. So the offsets of the group never go back,
// and after a crash at most the outputs of one batch are not published.
type publisher struct {
	pair   [2]*producer
	turn   int              // whose turn it is
	beside [2]chan struct{} // closed when what is begun beside is; nil for none
	failed [2]error         // of what was begun beside last
	giveUp context.CancelFunc
}

func newPublisher(cfg Config, number int) *publisher {
	return &publisher{pair: [2]*producer{newProducer(cfg, number, ""), newProducer(cfg, number, ".b")}}
}

// open ends what a predecessor or a failed publish left open, under either id.
func (p *publisher) open(ctx context.Context) error {
	var errs [2]error
	var wg sync.WaitGroup
	for i, one := range p.pair {
		wg.Go(func() { errs[i] = one.open(ctx) })
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// close leaves an open transaction to the next open, or to its timeout.
func (p *publisher) close() {
	for _, one := range p.pair {
		one.close()
	}
}

// beginBeside begins the transaction of this batch and the one of the next while
// something else is done. The first is wanted soon; the second is known to be begun
// when the one before this is through, which hides the wait for that. Nobody is held
// up by a transaction that was begun and has nothing in it: the next batch takes it.
// Whether it worked is for publish to find out. through must follow.
//
// With offsets ahead, they are sent beside as well, before anybody knows whether the
// batch will be applied; so this transaction ends or is aborted before through
// returns, and no other batch finds it.
func (p *publisher) beginBeside(ctx context.Context, m *member, a *membership, ahead offsets) {
	ctx, p.giveUp = context.WithTimeoutCause(ctx, p.pair[0].txn, errTxnTime)
	p.spawn(1-p.turn, func(one *producer) error { return one.begin(ctx, m) })
	p.spawn(p.turn, func(one *producer) error {
		if err := one.begin(ctx, m); err != nil || len(ahead) == 0 {
			return err
		}
		return one.sendAhead(ctx, m, a, ahead)
	})
}

func (p *publisher) spawn(which int, do func(*producer) error) {
	done := make(chan struct{})
	p.beside[which], p.failed[which] = done, nil
	go func() {
		defer close(done)
		if err := do(p.pair[which]); err != nil {
			p.failed[which] = err
			p.pair[which].close()
		}
	}()
}

// through ends what beginBeside began, with how the batch went.
func (p *publisher) through(ctx context.Context, outcome error) {
	p.giveUp()
	for i, one := range p.pair {
		p.await(i)
		if len(one.ahead) == 0 {
			continue
		}
		one.close()
		if !errors.Is(outcome, errCrash) {
			// Who takes the partitions over need not wait for the timeout. When this
			// fails, that is what they do.
			p.reopen(ctx, one)
		}
	}
}

func (p *publisher) reopen(ctx context.Context, one *producer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reopenTime)
	defer cancel()
	if err := one.open(ctx); err != nil {
		one.log.Info("processor.abort_failed", zap.String("transactional_id", one.id), zap.Error(err))
	}
}

// reopenTime bounds the abort of a batch that failed.
const reopenTime = 5 * time.Second

// await returns when nothing is done beside with a producer.
func (p *publisher) await(which int) {
	if p.beside[which] != nil {
		<-p.beside[which]
		p.beside[which] = nil
	}
}

var errTxnTime = errors.New("the transaction timed out")

// owns says that a producer's id is that of one of these.
func (p *publisher) owns(id int64) bool {
	return slices.ContainsFunc(p.pair[:], func(one *producer) bool { return one.producerID.Load() == id })
}

// publish produces the records and commits the offsets, all or nothing, under
// the membership that fetched the batch. After an error the client is closed:
// the outcome may be unknown, and the table of recovery finds out. An error
// that is errStale says that the coordinator refused the offsets.
func (p *publisher) publish(ctx context.Context, m *member, a *membership, records []*kgo.Record, at offsets) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.pair[0].txn, errTxnTime)
	defer cancel()
	p.await(p.turn)
	mine := p.pair[p.turn]
	err := p.failed[p.turn]
	p.failed[p.turn] = nil // of this batch only
	if errors.Is(err, errCrash) || errors.Is(err, errStale) {
		return err
	}
	if len(mine.ahead) > 0 && !mine.ahead.equal(at) {
		mine.close() // another owner was found on some of the partitions
	}
	if err := mine.transact(ctx, m, a, records, at, func() error { return p.complete(ctx, m, 1-p.turn) }); err != nil {
		mine.close()
		return err
	}
	p.turn = 1 - p.turn
	return nil
}

// complete returns when the last transaction of a producer is through everywhere.
func (p *publisher) complete(ctx context.Context, m *member, which int) error {
	p.await(which)
	err := p.pair[which].complete(ctx, m)
	if err != nil {
		p.pair[which].close()
	}
	return err
}

// quiet returns when no transaction is on its way, and none holds offsets.
func (p *publisher) quiet(ctx context.Context, m *member) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.pair[0].txn, errTxnTime)
	defer cancel()
	for i, one := range p.pair {
		p.await(i)
		if len(one.ahead) > 0 {
			if err := one.renew(ctx); err != nil {
				return err
			}
		}
	}
	return errors.Join(p.complete(ctx, m, 0), p.complete(ctx, m, 1))
}

// rest gives back what was begun for a batch that has not come, before the broker
// does: it would take the id's epoch with it, and the next batch would find out.
func (p *publisher) rest(ctx context.Context) error {
	for _, one := range p.pair {
		if one.begun.IsZero() || time.Since(one.begun) < one.txn/3 {
			continue
		}
		if err := one.renew(ctx); err != nil {
			return err
		}
	}
	return nil
}
