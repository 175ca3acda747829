package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// plainBackfillSettings of the part that sends a log again as one would without
// Hogstream: a consumer from the start and a few goroutines that post batches. It
// has a process of its own, so whatever it does to live deliveries it does to them
// through what they share: the cores, the broker and the receiver.
type plainBackfillSettings struct {
	Broker   string `json:"broker"`
	Prefix   string `json:"prefix"`
	Registry string `json:"registry"`
	URL      string `json:"url"`
	Rate     int    `json:"rate"`     // records a second
	InFlight int    `json:"inFlight"` // requests
}

// plainBatch is how many records it sends in a request: as many as ours.
const plainBatch = 500

// plainBackfill starts one, which sends until it is closed or the log ends.
func (r *rig) plainBackfill(ctx context.Context, receiver *part) (*part, error) {
	text, err := json.Marshal(plainBackfillSettings{
		Broker: r.env.kafka.Brokers[0], Prefix: r.env.kafka.Prefix, Registry: r.env.registryURL,
		URL: "http://" + receiver.addr + "/batch/", Rate: backfillRate, InFlight: backfillInFlight * 3 / 4,
	})
	if err != nil {
		return nil, fmt.Errorf("start a plain backfill: %w", err)
	}
	return startPart(ctx, "plain-backfill", string(text))
}

func plainBackfillPart(args []string, stop <-chan struct{}, say func(string)) error {
	var settings plainBackfillSettings
	if err := decodeArgs(args, &settings); err != nil {
		return err
	}
	kafka := stream.Config{Brokers: []string{settings.Broker}, Prefix: settings.Prefix}
	registry, err := schemas.NewRegistry(schemas.RegistryConfig{URLs: []string{settings.Registry}, Prefix: settings.Prefix})
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(settings.Broker), kgo.ConsumeTopics(kafka.Topic(schemas.TopicLifecycle)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return fmt.Errorf("plain consumer: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	batches, failed := make(chan []*kgo.Record), make(chan error, settings.InFlight)
	sender := &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: settings.InFlight}}
	var wg sync.WaitGroup
	for range settings.InFlight {
		wg.Go(func() {
			for batch := range batches {
				if err := postBatch(ctx, sender, registry.Codec(), settings.URL, batch); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Go(func() { dealBatches(ctx, client, settings.Rate, batches) })
	say(settings.URL)
	select {
	case <-stop:
	case err = <-failed:
	}
	cancel()
	wg.Wait()
	return err
}

// dealBatches hands out what it reads, evenly at the rate.
func dealBatches(ctx context.Context, client *kgo.Client, rate int, batches chan<- []*kgo.Record) {
	defer close(batches)
	due := time.Now()
	for ctx.Err() == nil {
		records := client.PollRecords(ctx, plainBatch).Records()
		due = due.Add(time.Duration(len(records)) * time.Second / time.Duration(rate))
		if wait := time.Until(due); wait > 0 {
			<-time.After(wait)
		}
		select {
		case batches <- records:
		case <-ctx.Done():
		}
	}
}

// postBatch sends the bodies of records as a JSON array.
func postBatch(ctx context.Context, sender *http.Client, codec *schemas.Codec, url string, records []*kgo.Record) error {
	body := make([]byte, 0, 1024*len(records))
	for i, r := range records {
		f, err := codec.DecodeFact(r.Value)
		if err != nil {
			return err
		}
		body = append(body, "[,"[min(i, 1)])
		body = append(body, plainBody("msg_"+f.ID, f)...)
	}
	body = append(body, ']')
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	resp, err := sender.Do(req)
	if err != nil {
		return fmt.Errorf("post a batch: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("post a batch: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("post a batch: HTTP %d", resp.StatusCode)
	}
	return nil
}
