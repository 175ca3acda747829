package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

const (
	timedMail  = "timed"
	waitsApart = 30 * time.Second // from where runs begin to their time, and as long again for 100,000
	waitsAlone = time.Minute      // until those that end alone
	waitsBatch = 500
)

// waiting is a journey whose runs wait for the time that a property has.
const waiting = `
id: timed
trigger: {event: timed}
steps: [{waitUntil: {property: dueAt}}, {email: {template: ` + timedMail + `}}]
`

// waitsBench has the waits of many runs end within one second, beside live events, and then
// those of a few, one after the other.
func waitsBench(ctx context.Context, cfg Config) (*section, error) {
	m := &midnight{timers: cfg.scaled(midnightTimers), tells: [2]string{mailOf, timedMail}}
	if err := m.measureWaits(ctx, cfg); err != nil {
		return nil, err
	}
	count := thousands(float64(m.timers))
	return &section{
		title: "Waits of journeys",
		about: fmt.Sprintf("`hogstream dev` and the live events of section \"The first step of a journey\"; %s other contacts began a journey by an event, and wait for a time within the same second, "+
			"behind which stands a mail. Resumed: from the middle of that second until a reader of committed records has the last of the mails. Live latency is that to the first step's record, "+
			"by pieces of %g s before the runs began, and of the events accepted while waits ended; the medians of their p99 are compared. Alone: %d waits, one each %s, from the instant at which they are due, without other load.",
			count, joinsSeconds/2, aloneTimers, aloneApart),
		figures: slices.Concat([]figure{
			costFigure(count+" waits due in one second, all resumed", "s", []float64{m.handled.Seconds()}, 30*cfg.Scale),
		}, liveFigures(m.calm, m.busy), []figure{
			costFigure("alone, the mail after it is due, p99", "ms", []float64{millis(m.alone, 0.99)}, 1000),
			costFigure("alone, the mail after it is due, median", "ms", []float64{millis(m.alone, 0.5)}, 0),
		}),
	}, nil
}

func (m *midnight) measureWaits(ctx context.Context, cfg Config) (err error) {
	l, err := startJourneys(ctx, cfg, devSettings{Embedded: true}, benchContacts+m.timers+aloneTimers, waiting)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return err
	}
	if err := l.warm(ctx, 4); err != nil {
		return err
	}
	if err := m.calmly(ctx, l); err != nil {
		return err
	}
	due := time.Now().Add(waitsApart + time.Duration(m.timers)*waitsApart/midnightTimers).Truncate(time.Second)
	alone := due.Add(waitsAlone)
	if err := m.beginWaits(ctx, l, due, alone); err != nil {
		return err
	}
	if err := m.strike(ctx, l, due); err != nil {
		return err
	}
	return m.singly(ctx, l, alone)
}

// beginWaits has the contacts behind those of the live events begin to wait.
func (m *midnight) beginWaits(ctx context.Context, l *liveInstance, due, alone time.Time) error {
	begun := time.Now()
	before, err := l.liveRuns(ctx)
	if err != nil {
		return err
	}
	all := m.timers + aloneTimers
	for from := 0; from < all; from += waitsBatch {
		if err := l.post(ctx, "/v1/events/batch", m.beginnings(from, min(from+waitsBatch, all), due, alone)); err != nil {
			return err
		}
	}
	err = l.awaitRuns(ctx, before+all)
	l.cfg.say("  %d runs began in %s", all, time.Since(begun).Round(time.Millisecond))
	return err
}

// beginnings are the events of some contacts, evenly spread over the second at which they are
// due, or due one after the other.
func (m *midnight) beginnings(from, until int, due, alone time.Time) []byte {
	body := []byte(`{"events":[`)
	for i := from; i < until; i++ {
		at := due.Add(time.Duration(i*7919%m.timers) * time.Second / time.Duration(m.timers))
		if i >= m.timers {
			at = alone.Add(time.Duration(i-m.timers) * aloneApart)
		}
		if i > from {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"name":"timed","userId":%q,"contactProperties":{"dueAt":%q}}`, contactUser(benchContacts+i), at.UTC().Format(time.RFC3339Nano))
	}
	return append(body, `]}`...)
}

// post sends the instance a body of JSON.
func (l *liveInstance) post(ctx context.Context, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.running.URL+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("post to %s: %w", path, err)
	}
	req.Header.Set("Authorization", "Bearer "+l.running.APIKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("post to %s: %w", path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("HTTP %d: %.300s", resp.StatusCode, text)
	}
	if err != nil {
		return fmt.Errorf("post to %s: %w", path, err)
	}
	return nil
}
