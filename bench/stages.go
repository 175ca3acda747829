package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// stage is when product events came to a topic.
type stage struct {
	topic    schemas.Topic
	p50, p99 time.Duration // since acceptance, by the broker's clock
}

// stages reads when the product events accepted since began were appended to each
// topic on their way. What they wait for after that, the end of the transaction
// and the reader, shows in the next stage.
func stages(ctx context.Context, kafka stream.Config, began time.Time) ([]stage, error) {
	codec := schemas.NewCodec()
	var all []stage
	for _, topic := range []schemas.Topic{schemas.TopicIngest, schemas.TopicResolved, schemas.TopicEvents} {
		var took []time.Duration
		options := reader.TailOptions{Topics: []schemas.Topic{topic}, From: reader.AtTime(began)}
		err := reader.Tail(ctx, kafka, options, nil, func(r *stream.Record) error {
			accepted, err := acceptedAt(codec, r)
			if err == nil && accepted.After(began) {
				took = append(took, r.AppendTime.Sub(accepted))
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read the stages of %s: %w", topic, err)
		}
		slices.Sort(took)
		all = append(all, stage{topic, max(quantile(took, 0.5), 0), max(quantile(took, 0.99), 0)})
	}
	return all, nil
}

// acceptedAt is when the input behind a record was accepted; zero for none.
func acceptedAt(codec *schemas.Codec, r *stream.Record) (time.Time, error) {
	switch r.Topic {
	case schemas.TopicIngest:
		in, err := codec.DecodeInput(r.Value)
		if err != nil {
			return time.Time{}, fmt.Errorf("decode %s: %w", r.ID, err)
		}
		return in.ReceivedAt, nil
	case schemas.TopicResolved:
		res, err := codec.DecodeResolved(r.Value)
		if err != nil || res.Input == nil {
			return time.Time{}, err
		}
		return res.Input.ReceivedAt, nil
	default:
		e, err := codec.DecodeEvent(r.Value)
		if err != nil {
			return time.Time{}, fmt.Errorf("decode %s: %w", r.ID, err)
		}
		return e.ReceivedAt, nil
	}
}

// kafkaOf is how to reach an instance's broker.
func (s devSettings) kafkaOf(running *hogstream.Running) (stream.Config, error) {
	if s.Embedded {
		return stream.Config{Brokers: running.Brokers}, nil
	}
	env, err := hogstream.ConfigFromEnv()
	if err != nil {
		return stream.Config{}, err
	}
	kafka := env.StreamConfig()
	if s.Prefix != "" {
		kafka.Prefix = s.Prefix
	}
	return kafka, nil
}
