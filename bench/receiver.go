package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// receiverSettings of the receiver part.
type receiverSettings struct {
	DelayMillis int `json:"delayMillis"`
}

// receiverPart reads each request's body, waits, and answers 200. GET answers
// with how many requests were answered.
func receiverPart(args []string, stop <-chan struct{}, say func(string)) error {
	var settings receiverSettings
	if err := decodeArgs(args, &settings); err != nil {
		return err
	}
	var answered atomic.Int64
	delay := time.Duration(settings.DelayMillis) * time.Millisecond
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = fmt.Fprint(w, answered.Load())
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if delay > 0 {
			<-time.After(delay)
		}
		answered.Add(1)
		w.WriteHeader(http.StatusOK)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start receiver: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	say(listener.Addr().String())
	<-stop
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err = server.Shutdown(ctx)
	<-served
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	return err
}
