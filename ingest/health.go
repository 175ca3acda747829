package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/web"
)

// Probe asks a part whether it works.
type Probe struct {
	Name string // e.g. "kafka", "registry"
	// Needed says that no event can be taken, no work be done without it: readiness
	// asks it.
	Needed bool
	// Check returns when ctx ends, at the latest. Its error is shown to nobody,
	// unless it is a NoticeError.
	Check func(context.Context) error
}

// NoticeError is an error of a probe that may be shown to whoever asks for health.
type NoticeError string

func (n NoticeError) Error() string { return string(n) }

const (
	probeTimeout = 2 * time.Second
	// healthFor is how long a finding is given out again: probes come from many
	// sides and must not become load.
	healthFor = time.Second
)

// health answers the three questions of probes:
//
//	/v1/health/live   does the process answer?                        200
//	/v1/health/ready  can it take events, or do its work?             200, else 503
//	/v1/health        does everything work, in detail?                200, else 503
//
// Without Postgres events are taken from keys that were seen lately, so the
// process stays ready while /v1/health says degraded. One that takes no events
// (Config.HealthOnly) can do nothing without it.
type health struct {
	api     *API
	started time.Time

	mu    sync.Mutex // held while probing, so that one probes for all who ask
	last  *healthReport
	until time.Time
}

func newHealth(a *API) *health { return &health{api: a, started: a.now()} }

func (h *health) routes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/health", Open: true, Tag: "Health", Summary: "Health in detail",
			Text:    "200 when everything works, 503 when something does not.",
			Answers: map[int]any{200: healthReport{}, 503: healthReport{}}, Example: "/v1/health", Serve: h.api.open(h.full),
		},
		// Not limited by address: all probes of a balancer come from a few, and its
		// finding is given out again for a second.
		{
			Method: http.MethodGet, Path: "/v1/health/ready", Open: true, Tag: "Health", Summary: "Whether the process can do its work",
			Text:    "503 when no events can be taken.",
			Answers: map[int]any{200: statusResponse{}, 503: notReady{}}, Example: "/v1/health/ready", Serve: h.ready,
		},
		{
			Method: http.MethodGet, Path: "/v1/health/live", Open: true, Tag: "Health", Summary: "Whether the process answers",
			Answers: map[int]any{200: statusResponse{}}, Example: "/v1/health/live", Serve: h.live,
		},
	}
}

type statusResponse struct {
	Status string `json:"status"`
}

// notReady says why.
type notReady struct {
	Components map[string]*componentStatus `json:"components"`
	Schema     map[string]schemaTrack      `json:"schema"`
	Status     string                      `json:"status"`
}

type healthReport struct {
	Status     string                      `json:"status"` // healthy | degraded | migration_pending
	Ready      bool                        `json:"ready"`
	Schema     map[string]schemaTrack      `json:"schema"`
	Uptime     float64                     `json:"uptime"` // seconds
	Timestamp  string                      `json:"timestamp"`
	Version    string                      `json:"version"`
	Components map[string]*componentStatus `json:"components"`
	Lag        map[string]groupLag         `json:"lag,omitempty"` // of the processors, by name
}

type schemaTrack struct {
	Applied  *string  `json:"applied"`
	Required *string  `json:"required"`
	InSync   bool     `json:"inSync"`
	Pending  []string `json:"pending"`
}

type componentStatus struct {
	Status     string `json:"status"` // up | down
	LatencyMs  *int64 `json:"latencyMs,omitempty"`
	LastSeenAt string `json:"lastSeenAt,omitempty"`
	Detail     string `json:"detail,omitempty"` // why it is down, where everybody may know
}

type groupLag struct {
	Lag   int64  `json:"lag"` // records
	State string `json:"state"`
}

func (h *health) live(x *web.Exchange, _ *http.Request) {
	x.JSON(http.StatusOK, []byte(`{"status":"live"}`))
}

func (h *health) ready(x *web.Exchange, r *http.Request) {
	report := h.report(r.Context())
	if report.Ready {
		x.JSON(http.StatusOK, []byte(`{"status":"ready"}`))
		return
	}
	x.Encode(http.StatusServiceUnavailable, notReady{Status: "not ready", Schema: report.Schema, Components: report.Components})
}

func (h *health) full(x *web.Exchange, r *http.Request) {
	report := *h.report(r.Context())
	now := h.api.now()
	report.Uptime = now.Sub(h.started).Seconds()
	report.Timestamp = isoTime(now)
	status := http.StatusOK
	if report.Status != "healthy" {
		status = http.StatusServiceUnavailable
	}
	x.Encode(status, report)
}

// isoTime is a time as the API writes it: UTC with milliseconds.
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// report returns a finding that is at most healthFor old. Nobody changes it.
func (h *health) report(ctx context.Context) *healthReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.api.now(); h.last == nil || now.After(h.until) {
		// Who asked first may go away; others wait for the finding too.
		h.last = h.probe(context.WithoutCancel(ctx))
		h.until = h.api.now().Add(healthFor)
	}
	return h.last
}

// probe asks all parts at once, each with a deadline.
func (h *health) probe(ctx context.Context) *healthReport {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	report := &healthReport{Version: h.api.cfg.Version, Components: map[string]*componentStatus{}, Ready: true, Status: "healthy"}
	probes := append([]Probe{{Name: "database", Needed: h.api.cfg.HealthOnly, Check: h.api.deps.DB.Ping}}, h.api.deps.Probes...)
	errs := make([]error, len(probes))
	var wait sync.WaitGroup
	for i, p := range probes {
		c := &componentStatus{Status: "up"}
		report.Components[p.Name] = c
		wait.Go(func() {
			start := time.Now()
			errs[i] = p.Check(ctx)
			ms := time.Since(start).Milliseconds()
			c.LatencyMs = &ms
		})
	}
	var schemaErr, lagErr error
	var lag []stream.GroupLag
	wait.Go(func() { schemaErr = h.schema(ctx, report) })
	if h.api.deps.Lag != nil {
		wait.Go(func() { lag, lagErr = h.api.deps.Lag(ctx) })
	}
	wait.Wait()
	for i, p := range probes {
		if errs[i] == nil {
			continue
		}
		report.Components[p.Name].Status, report.Status = "down", "degraded"
		report.Ready = report.Ready && !p.Needed
		var notice NoticeError
		if errors.As(errs[i], &notice) {
			report.Components[p.Name].Detail = string(notice)
		}
	}
	if h.api.deps.Lag != nil {
		h.addLag(report, lag, lagErr)
	}
	// An unknown state is not a state that is behind.
	if track := report.Schema["engine"]; schemaErr == nil && !track.InSync {
		report.Status, report.Ready = "migration_pending", false
	}
	if report.Schema == nil {
		report.Schema = map[string]schemaTrack{"engine": {Pending: []string{}}, "client": emptyTrack}
	}
	return report
}

var emptyTrack = schemaTrack{InSync: true, Pending: []string{}}

func (h *health) schema(ctx context.Context, report *healthReport) error {
	status, err := h.api.deps.DB.SchemaStatus(ctx)
	if err != nil {
		return fmt.Errorf("probe schema: %w", err)
	}
	track := schemaTrack{InSync: len(status.Pending) == 0, Pending: []string{}, Required: number(status.Required)}
	if status.Applied > 0 {
		track.Applied = number(status.Applied)
	}
	for _, m := range status.Pending {
		track.Pending = append(track.Pending, strconv.FormatInt(m.Version, 10)) // names are not for the public
	}
	report.Schema = map[string]schemaTrack{"engine": track, "client": emptyTrack}
	return nil
}

func number(n int64) *string {
	s := strconv.FormatInt(n, 10)
	return &s
}

// addLag tells the lag of each group, and whether somebody works: worker is up
// while every group of Deps.Workers has members. Without members, a group that is
// behind, or that never was there, degrades the whole; so does a lag that cannot
// be known, for then nobody knows who works.
func (h *health) addLag(report *healthReport, lag []stream.GroupLag, err error) {
	worker := &componentStatus{Status: "down"}
	report.Components["worker"] = worker
	if err != nil {
		h.api.log.Warn("health.lag_unknown", zap.Error(err))
		worker.Detail, report.Status = "the lag of the consumer groups cannot be looked up", "degraded"
		return
	}
	report.Lag = map[string]groupLag{}
	var workers []string
	if h.api.deps.Workers != nil {
		workers = h.api.deps.Workers()
	}
	for _, g := range lag {
		if slices.Contains(workers, g.Group) { // other groups have the names of destinations, also of deleted ones
			report.Lag[g.Group] = groupLag{Lag: g.Lag, State: g.State}
		}
	}
	for _, name := range workers {
		g, known := report.Lag[name]
		if known && hasMembers(g.State) {
			continue
		}
		worker.Detail = "no process runs processor " + name
		if !known || g.Lag > 0 {
			report.Status = "degraded"
		}
	}
	if worker.Detail == "" {
		worker.Status, worker.LastSeenAt = "up", isoTime(h.api.now())
	}
}

// hasMembers tells a group that somebody belongs to, be it in a rebalance, from
// one that all have left.
func hasMembers(state string) bool { return state != "" && state != "Empty" && state != "Dead" }
