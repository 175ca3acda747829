package bench

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
)

// plain is what one writes in an afternoon: a consumer, goroutines that own the
// keys of one hash each, and net/http.
func (l *lanesRun) plain(ctx context.Context) (run, error) {
	lanes := make([]chan *kgo.Record, l.inFlight)
	for i := range lanes {
		lanes[i] = make(chan *kgo.Record, 64)
	}
	return l.loop(ctx, lanes)
}

// unordered is the same without order: whoever is free takes the next record.
func (l *lanesRun) unordered(ctx context.Context) (run, error) {
	lanes, one := make([]chan *kgo.Record, l.inFlight), make(chan *kgo.Record, 64*l.inFlight)
	for i := range lanes {
		lanes[i] = one
	}
	return l.loop(ctx, lanes)
}

// loop polls and has a goroutine a lane send what is in it.
func (l *lanesRun) loop(ctx context.Context, lanes []chan *kgo.Record) (run, error) {
	partitions := make(map[int32]kgo.Offset)
	for _, s := range l.starts {
		partitions[s.Partition] = kgo.NewOffset().At(s.Offset)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(l.env.kafka.Brokers...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.env.kafka.Topic(schemas.TopicLifecycle): partitions}),
	)
	if err != nil {
		return run{}, fmt.Errorf("plain consumer: %w", err)
	}
	defer client.Close()
	sender, err := l.newPlainSender()
	if err != nil {
		return run{}, err
	}
	defer sender.client.CloseIdleConnections()

	work, stop := context.WithCancel(ctx)
	m, failed := l.newMeter(l.n), make(chan error, len(lanes))
	var wg sync.WaitGroup
	for i := range lanes {
		wg.Go(func() {
			for {
				select {
				case r := <-lanes[i]:
					if err := sender.send(work, r); err != nil {
						failed <- err
						return
					}
					m.delivered(1)
				case <-work.Done():
					return
				}
			}
		})
	}
	wg.Go(func() { deal(work, client, lanes) })
	r, err := m.wait(ctx, failed)
	stop()
	wg.Wait()
	return r, err
}

// deal gives each record to the lane of its key.
func deal(ctx context.Context, client *kgo.Client, lanes []chan *kgo.Record) {
	for ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			h := fnv.New32a()
			_, _ = h.Write(r.Key)
			select {
			case lanes[h.Sum32()%uint32(len(lanes))] <- r:
			case <-ctx.Done():
			}
		})
	}
}

type plainSender struct {
	client *http.Client
	codec  *schemas.Codec
	url    string
	key    []byte
}

func (l *lanesRun) newPlainSender() (*plainSender, error) {
	target, err := url.Parse(l.url)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(l.secret, "whsec_"))
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return &plainSender{
		codec: l.env.codec, url: target.String(), key: key,
		client: &http.Client{
			Timeout: 15 * time.Second,
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
				DisableCompression:  true,
				MaxIdleConnsPerHost: 512,
				IdleConnTimeout:     90 * time.Second,
				WriteBufferSize:     8 << 10,
			},
		},
	}, nil
}

// plainBody is the same body as ours, written as cheaply.
func plainBody(id string, f *schemas.Fact) []byte {
	b := make([]byte, 0, 768+len(f.Contact.Properties))
	text := func(name, value string) {
		b = append(append(append(b, '"'), name...), `":`...)
		b = append(strconv.AppendQuote(b, value), ',')
	}
	at := func(name string, t time.Time) {
		b = append(append(append(b, '"'), name...), `":"`...)
		b = append(t.AppendFormat(b, "2006-01-02T15:04:05.000Z"), `",`...)
	}
	b = append(b, '{')
	text("id", id)
	text("type", f.Type)
	at("timestamp", f.OccurredAt)
	b = append(b, `"data":{`...)
	text("id", f.ContactID)
	text("externalId", *f.UserID)
	text("email", *f.Email)
	b = append(append(append(b, `"properties":`...), f.Contact.Properties...), ',')
	at("firstSeenAt", f.Contact.FirstSeenAt)
	at("lastSeenAt", f.Contact.LastSeenAt)
	at("createdAt", f.Contact.CreatedAt)
	at("updatedAt", f.Contact.UpdatedAt)
	text("contactId", f.ContactID)
	b = append(b, `"changed":["`...)
	return append(append(b, strings.Join(f.Contact.Changed, `","`)...), `"]}}`...)
}

func (s *plainSender) send(ctx context.Context, r *kgo.Record) error {
	f, err := s.codec.DecodeFact(r.Value)
	if err != nil {
		return err
	}
	id := "msg_" + f.ID
	body := plainBody(id, f)
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, s.key)
	_, _ = io.WriteString(mac, id+"."+timestamp+".")
	_, _ = mac.Write(body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("request for %s: %w", f.ID, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", timestamp)
	req.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("send %s: %w", f.ID, err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return fmt.Errorf("send %s: %w", f.ID, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("send %s: HTTP %d", f.ID, resp.StatusCode)
	}
	return nil
}
