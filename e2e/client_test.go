package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// event is an event as a client sends it.
type event struct {
	Name              string         `json:"name"`
	UserID            string         `json:"userId,omitempty"`
	Email             string         `json:"email,omitempty"`
	AnonymousID       string         `json:"anonymousId,omitempty"`
	EventProperties   map[string]any `json:"eventProperties,omitempty"`
	ContactProperties map[string]any `json:"contactProperties,omitempty"`
	IdempotencyKey    string         `json:"idempotencyKey,omitempty"`
}

// client is a sender that loses nothing: what got no answer, or a 503, it sends
// again under the same idempotency key, to any of the processes.
type client struct {
	to   []*process
	http *http.Client
	turn atomic.Int64
	away atomic.Pointer[process] // is not called

	accepted atomic.Int64 // events that were answered with 2xx
	retries  atomic.Int64 // requests that were sent again
}

// client of all processes that serve.
func (w *world) client() *client {
	c := &client{to: w.serving, http: &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxConnsPerHost: 64},
	}}
	w.t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// sendBatch returns when every event was accepted, or with an error when one is
// refused or ctx ends. A subject stands in it once at most, for what is not
// accepted is sent again after the rest.
func (c *client) sendBatch(ctx context.Context, events []event) error {
	for len(events) > 0 {
		var answer struct {
			Accepted int `json:"accepted"`
			Rejected []struct {
				Index   int    `json:"index"`
				Code    string `json:"code"`
				Message string `json:"message"`
			} `json:"rejected"`
		}
		if _, err := c.insist(ctx, http.MethodPost, "/v1/events/batch", map[string]any{"events": events}, &answer); err != nil {
			return err
		}
		c.accepted.Add(int64(answer.Accepted))
		var again []event
		for _, r := range answer.Rejected {
			if r.Code != "unavailable" {
				return fmt.Errorf("event %d was refused: %s %s", r.Index, r.Code, r.Message)
			}
			again = append(again, events[r.Index])
		}
		if len(again) > 0 {
			c.retries.Add(1)
		}
		events = again
	}
	return nil
}

// sendOne is sendBatch for one event, on the route that waits for the answer.
func (c *client) sendOne(ctx context.Context, e event) error {
	_, err := c.insist(ctx, http.MethodPost, "/v1/events", e, nil)
	if err == nil {
		c.accepted.Add(1)
	}
	return err
}

// insist calls until there is an answer that is not "try again". Any 2xx is
// success; a 4xx is an error.
func (c *client) insist(ctx context.Context, method, path string, body, into any) (status int, err error) {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		status, text, err := c.call(ctx, method, path, body)
		switch {
		case err == nil && status/100 == 2:
			if into != nil {
				if err := json.Unmarshal(text, into); err != nil {
					return status, fmt.Errorf("answer of %s %s: %w: %s", method, path, err, text)
				}
			}
			return status, nil
		case err == nil && status/100 == 4:
			return status, fmt.Errorf("%s %s: %d: %s", method, path, status, text)
		}
		c.retries.Add(1)
		select {
		case <-ctx.Done():
			return status, fmt.Errorf("%s %s was not answered (last: %d %w %s): %w", method, path, status, err, text, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// call sends one request to the process whose turn it is.
func (c *client) call(ctx context.Context, method, path string, body any) (status int, text []byte, err error) {
	var payload []byte
	switch b := body.(type) {
	case nil:
	case []byte:
		payload = b
	default:
		if payload, err = json.Marshal(b); err != nil {
			return 0, nil, err
		}
	}
	p := c.to[int(c.turn.Add(1))%len(c.to)]
	if p == c.away.Load() {
		p = c.to[int(c.turn.Add(1))%len(c.to)]
	}
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(payload))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	text, err = io.ReadAll(res.Body)
	return res.StatusCode, text, err
}
