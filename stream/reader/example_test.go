package reader_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/localbroker"
	"github.com/hogstream/hogstream/stream/reader"
)

// Records are appended with a stream.Log and read with Tail.
func ExampleTail() {
	if err := appendAndTail(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// offset 0, key u:ada, event
	// offset 1, key u:ada, event
}

func appendAndTail(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "hogstream-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	broker, err := localbroker.Start(localbroker.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer broker.Stop() //nolint:errcheck // the example is over

	cfg := stream.Config{Brokers: []string{broker.Addr()}, Partitions: 1}
	if err := stream.EnsureTopics(ctx, cfg, nil); err != nil {
		return err
	}
	log, err := stream.OpenLog(ctx, cfg, schemas.NewCodec(), nil, nil)
	if err != nil {
		return err
	}
	defer log.Close(ctx)
	for _, name := range []string{"cart.filled", "order.completed"} {
		now := time.Now()
		err := log.Append(ctx, &schemas.Input{
			ID: uuid.Must(uuid.NewV7()).String(), Type: schemas.InputEvent, Source: "example", ReceivedAt: now, OccurredAt: now,
			UserID: new("ada"), Event: &name,
		})
		if err != nil { // stream.ErrBusy: nobody knows whether it was appended
			return err
		}
	}
	return reader.Tail(ctx, cfg, reader.TailOptions{Topics: []schemas.Topic{schemas.TopicIngest}}, nil, func(r *stream.Record) error {
		fmt.Printf("offset %d, key %s, %s\n", r.Offset, r.Key, r.Type)
		return nil
	})
}
