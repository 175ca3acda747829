package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/cmd/hogstream/eventfile"
	"github.com/hogstream/hogstream/examples/shop"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
)

// What the clickstream must come to.
const (
	shopEvents   = 32283
	shopContacts = 3751
)

type demoCmd struct {
	hogstream.Config `embed:""`
	Rate             float64 `help:"Events a second, at most; 0 for as fast as it goes." default:"4000"`
	Keep             bool    `help:"Keep the data directory."`
}

// demoSummary is what came of the demo.
type demoSummary struct {
	EventsIn        int64          `json:"eventsIn"`
	Rejected        int64          `json:"rejected"`
	ContactsCreated int            `json:"contactsCreated"`
	Facts           map[string]int `json:"facts"`
	Deliveries      int            `json:"deliveries"`
	Duplicates      int            `json:"duplicates"`
	OrderViolations int            `json:"orderViolations"`
	BadSignatures   int            `json:"badSignatures"`
	EventsPerSecond float64        `json:"eventsPerSecond"`
	P50             time.Duration  `json:"p50"`
	P95             time.Duration  `json:"p95"`
	P99             time.Duration  `json:"p99"`
	Buckets         []bucketMoves  `json:"buckets"`
	Journeys        []journeyMoves `json:"journeys"`
	// Wrong lists the figures that do not hold.
	Wrong []string `json:"wrong,omitempty"`
}

// Run streams the shop's clickstream through an instance of its own and fails
// when a figure that must hold does not.
func (c *demoCmd) Run(ctx context.Context, out *output) error {
	dir, err := os.MkdirTemp("", "hogstream-demo-")
	if err != nil {
		return err
	}
	// As root, Postgres runs as another user, who must reach its directory.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	cfg := c.Config
	cfg.DataDir = dir
	cfg.HTTP.Addr = "127.0.0.1:0"
	cfg.HTTP.RateLimit = 0
	cfg.Log.Level = "warn"
	cfg.Definitions.Dir = filepath.Join(dir, defaultDefinitions)
	if _, err := writeDefinitions(cfg.Definitions.Dir); err != nil {
		return err
	}
	if !c.Keep {
		defer os.RemoveAll(dir)
	}
	receiver, err := sinktest.New(sinktest.Options{Sequence: clickSequence, Keep: 2 * shopEvents})
	if err != nil {
		return err
	}
	url, err := receiver.Start("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer receiver.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var sent importSummary
	var took time.Duration
	ready := make(chan *hogstream.Running, 1)
	ended := make(chan error, 1)
	go func() { ended <- hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) { ready <- r }) }()
	events, err := shop.Events()
	if err != nil {
		return err
	}
	rehearsed, err := rehearseShop(events)
	if err != nil {
		return err
	}
	moves, went := countMoves(rehearsed.set, rehearsed.moved), followJourneys(rehearsed, events)
	select {
	case running := <-ready:
		sent, took, err = c.stream(ctx, running, lastIsNow(events, time.Now()), receiver, url, out)
		if err == nil {
			err = addLive(ctx, cfg, running, moves, went)
		}
	case err := <-ended:
		return err
	}
	// What would arrive twice, or too late, arrives until everything has stopped.
	stop()
	if err := errors.Join(err, <-ended); err != nil {
		return err
	}
	summary := summarize(sent, receiver, took, buyersOf(events), moves)
	summary.take(went)
	if err := out.value(summary, summary.print); err != nil {
		return err
	}
	if len(summary.Wrong) > 0 {
		return fmt.Errorf("the demo does not hold: %v", summary.Wrong)
	}
	return nil
}

// stream sends the clickstream and waits until the receiver has everything.
func (c *demoCmd) stream(ctx context.Context, running *hogstream.Running, events []shop.Event, receiver *sinktest.Receiver, url string, out *output) (sent importSummary, took time.Duration, err error) {
	api, err := apiFlags{URL: running.URL, Key: running.APIKey}.client()
	if err != nil {
		return sent, 0, err
	}
	var dest destination
	body := map[string]any{"url": url, "name": "demo", "eventTypes": []string{"contact.*", "bucket.*", schemas.TypeEventTracked}}
	if err := api.call(ctx, "POST", "/v1/admin/webhooks", nil, body, &dest); err != nil {
		return sent, 0, fmt.Errorf("create the destination: %w", err)
	}
	if err := receiver.SetSecrets(dest.Secret); err != nil {
		return sent, 0, err
	}
	start := time.Now()
	bar := newProgress(int64(len(events)), "delivered", false, out.JSON)
	s := sender{api: api, connections: 4, batch: 200, limit: limiter(c.Rate, 200)}
	type sending struct {
		sum importSummary
		err error
	}
	done := make(chan sending, 1)
	waiting, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	go func() {
		sum, err := s.send(ctx, clicks(events))
		if err != nil {
			giveUp(fmt.Errorf("send: %w", err))
		}
		done <- sending{sum, err}
	}()
	buyers := buyersOf(events)
	err = receiver.Wait(waiting, func(st sinktest.Stats) bool {
		_ = bar.Set(min(st.ByType[schemas.TypeEventTracked], len(events)))
		return st.ByType[schemas.TypeEventTracked] >= len(events) &&
			st.ByType[schemas.FactContactCreated] >= shopContacts && st.ByType[schemas.FactContactUpdated] >= buyers
	})
	took = time.Since(start)
	_ = bar.Finish()
	if err != nil {
		return sent, took, fmt.Errorf("wait for deliveries: %w", context.Cause(waiting))
	}
	end := <-done
	return end.sum, took, end.err
}

// clicks gives the events as the API takes them. Property n counts the events
// of all visitors, so that the receiver can tell the order; $session_id counts the
// visits of each; whoever pays becomes a customer.
func clicks(events []shop.Event) source {
	i, visits := 0, visitsOf(events)
	return func() (eventfile.Event, error) {
		if i == len(events) {
			return eventfile.Event{}, io.EOF
		}
		e := events[i]
		i++
		body := eventBody{
			Name: e.Name, UserID: e.UserID, Timestamp: e.Time.Format("2006-01-02T15:04:05.999999Z"),
			EventProperties: map[string]json.RawMessage{"n": json.RawMessage(strconv.Itoa(i)), visitProperty: json.RawMessage(strconv.Itoa(visits[i-1]))},
		}
		if e.Name == "payment_done" {
			body.ContactProperties = map[string]json.RawMessage{"customer": json.RawMessage("true")}
		}
		raw, err := json.Marshal(body)
		return eventfile.Event{Number: i, Line: i, JSON: raw, Subject: e.UserID}, err
	}
}

// buyersOf counts the visitors whose contact changes by paying. Whoever pays in
// the very first event is created as a customer and changes no more.
func buyersOf(events []shop.Event) int {
	seen, buyers := map[string]bool{}, map[string]bool{}
	for _, e := range events {
		if _, decided := buyers[e.UserID]; e.Name == "payment_done" && !decided {
			buyers[e.UserID] = seen[e.UserID]
		}
		seen[e.UserID] = true
	}
	maps.DeleteFunc(buyers, func(_ string, changed bool) bool { return !changed })
	return len(buyers)
}

func clickSequence(m *sinktest.Message) (key string, seq int64, ok bool) {
	if m.Type != schemas.TypeEventTracked {
		return "", 0, false
	}
	var data struct {
		Properties struct {
			N int64 `json:"n"`
		} `json:"properties"`
	}
	if json.Unmarshal(m.Data, &data) != nil {
		return "", 0, false
	}
	return m.ContactID, data.Properties.N, true
}

func summarize(sum importSummary, receiver *sinktest.Receiver, took time.Duration, buyers int, moves []bucketMoves) demoSummary {
	st := receiver.Stats()
	p := percentiles(receiver.Latencies(), 0.50, 0.95, 0.99)
	s := demoSummary{
		EventsIn: sum.Accepted, Rejected: sum.Rejected, ContactsCreated: st.ByType[schemas.FactContactCreated],
		Facts: st.ByType, Deliveries: st.Taken, Duplicates: st.Duplicates, OrderViolations: st.OrderViolations,
		BadSignatures: st.BadSignatures, EventsPerSecond: float64(sum.Accepted) / took.Seconds(),
		P50: p[0], P95: p[1], P99: p[2], Buckets: moves,
	}
	must := func(name string, got, want int64) {
		if got != want {
			s.Wrong = append(s.Wrong, fmt.Sprintf("%s is %d, not %d", name, got, want))
		}
	}
	must("events in", s.EventsIn, shopEvents)
	must("contacts created", int64(s.ContactsCreated), shopContacts)
	must(schemas.TypeEventTracked, int64(s.Facts[schemas.TypeEventTracked]), shopEvents)
	must(schemas.FactContactUpdated, int64(s.Facts[schemas.FactContactUpdated]), int64(buyers))
	transitions := 0
	for _, b := range moves {
		transitions += b.Live.Entered + b.Live.Left
		// What only happens cannot end by time: it is the same live as in the rehearsal.
		if b.Bucket == "buyers" {
			must("members of buyers", int64(b.Live.Members), int64(b.Members))
		}
	}
	must("deliveries", int64(s.Deliveries), int64(shopEvents+shopContacts+buyers+transitions))
	must("duplicates", int64(s.Duplicates), 0)
	must("order violations", int64(s.OrderViolations), 0)
	must("bad signatures", int64(s.BadSignatures), 0)
	return s
}

func (s demoSummary) print(w io.Writer) {
	rows := [][]string{
		{"events in", fmt.Sprint(s.EventsIn)},
		{"contacts created", fmt.Sprint(s.ContactsCreated)},
	}
	for _, typ := range slices.Sorted(maps.Keys(s.Facts)) {
		rows = append(rows, []string{"  " + typ, fmt.Sprint(s.Facts[typ])})
	}
	rows = append(rows, [][]string{
		{"deliveries", fmt.Sprint(s.Deliveries)},
		{"duplicates", fmt.Sprint(s.Duplicates)},
		{"order violations", fmt.Sprint(s.OrderViolations)},
		{"bad signatures", fmt.Sprint(s.BadSignatures)},
		{"events/s", fmt.Sprintf("%.0f", s.EventsPerSecond)},
		{"accept to delivered p50", s.P50.String()},
		{"accept to delivered p95", s.P95.String()},
		{"accept to delivered p99", s.P99.String()},
	}...)
	table(w, []string{"figure", "value"}, rows)
	fmt.Fprintln(w)
	printMoves(w, s.Buckets)
	printJourneyMoves(w, s.Journeys)
}
