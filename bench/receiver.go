package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// receiverSettings of the receiver part.
type receiverSettings struct {
	DelayMillis int `json:"delayMillis"`
	// Latencies makes it read when product events were accepted.
	Latencies bool `json:"latencies"`
}

// receiverReport is its answer to GET.
type receiverReport struct {
	Events int           `json:"events"` // product events
	P50    time.Duration `json:"p50"`
	P99    time.Duration `json:"p99"`
}

// webhookReceiver reads each request's body, waits, and answers 200. GET answers
// with a report; DELETE forgets what it is about.
type webhookReceiver struct {
	receiverSettings
	mu        sync.Mutex
	latencies []time.Duration
}

func (r *webhookReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case req.Method != http.MethodPost:
		r.report(w, req.Method == http.MethodDelete)
		return
	case r.Latencies:
		body, err := io.ReadAll(req.Body)
		if err == nil {
			r.note(body, time.Now())
		}
	default:
		_, _ = io.Copy(io.Discard, req.Body)
	}
	if r.DelayMillis > 0 {
		<-time.After(time.Duration(r.DelayMillis) * time.Millisecond)
	}
	w.WriteHeader(http.StatusOK)
}

// note takes the time since a product event was accepted.
func (r *webhookReceiver) note(body []byte, now time.Time) {
	const mark = `"receivedAt":"`
	at := bytes.LastIndex(body, []byte(mark)) // after the customer's properties
	if at < 0 {
		return
	}
	text, _, _ := bytes.Cut(body[at+len(mark):], []byte{'"'})
	accepted, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latencies = append(r.latencies, now.Sub(accepted))
}

func (r *webhookReceiver) report(w http.ResponseWriter, forget bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if forget {
		r.latencies = nil
	}
	sorted := slices.Sorted(slices.Values(r.latencies))
	// The reader is our own process; when it is gone, nobody misses the answer.
	_ = json.NewEncoder(w).Encode(receiverReport{Events: len(sorted), P50: quantile(sorted, 0.5), P99: quantile(sorted, 0.99)})
}

func receiverPart(args []string, stop <-chan struct{}, say func(string)) error {
	receiver := &webhookReceiver{}
	if err := decodeArgs(args, &receiver.receiverSettings); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start receiver: %w", err)
	}
	server := &http.Server{Handler: receiver, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	say(listener.Addr().String())
	<-stop
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err = server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
