package sinktest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// A Vendor stands for the API of PostHog, Segment or Slack, written from what the
// vendors publish: limits, authentication, the shape of requests. What they would
// refuse, or drop without a word, is refused here with 400 and counted as a
// problem. It is safe for concurrent use.
type Vendor struct {
	// Poison makes it refuse a whole request that holds an item with this id
	// (uuid or messageId), "" for none.
	Poison string
	// Says, of NewPosthogV1, is what it answers for an event, by its uuid: ok, warning,
	// drop or retry; before is how often it was sent before; nil for ok.
	Says func(uuid string, before int) string

	says  map[string]int // how often each was asked for
	check func(*http.Request, []byte) (items []Item, status int, problem string)

	mu         sync.Mutex
	items      []Item
	links      []Item
	requests   int
	compressed int
	problems   []string
}

// Item is one event or message that a vendor took.
type Item struct {
	ID     string
	Name   string // of the event; the text for Slack
	Person string // the user id, or the anonymous one
	// User and Anonymous are both ids, of Segment.
	User, Anonymous string
	Fields          map[string]any
	Context         map[string]any // of Segment
	// Link says that it does nothing but tie another name to the person.
	Link bool
}

// NewPosthog stands for PostHog's /batch/ with one project.
func NewPosthog(apiKey string) *Vendor {
	return &Vendor{check: func(r *http.Request, body []byte) ([]Item, int, string) { return checkPosthog(apiKey, r, body) }}
}

// NewPosthogV1 stands for PostHog's newer protocol, which answers for each event.
func NewPosthogV1(apiKey string) *Vendor {
	return &Vendor{says: map[string]int{}, check: func(r *http.Request, body []byte) ([]Item, int, string) {
		for _, name := range []string{"PostHog-Sdk-Info", "PostHog-Attempt", "PostHog-Request-Id", "PostHog-Request-Timestamp"} {
			if r.Header.Get(name) == "" {
				return nil, http.StatusBadRequest, "header " + name
			}
		}
		if r.URL.Path != "/i/v1/analytics/events" {
			return nil, http.StatusNotFound, "path " + r.URL.Path
		}
		if r.Header.Get("Authorization") != "Bearer "+apiKey {
			return nil, http.StatusUnauthorized, "key"
		}
		return posthogEvents(body)
	}}
}

// NewSegment stands for Segment's /v1/batch with one source.
func NewSegment(writeKey string) *Vendor {
	return &Vendor{check: func(r *http.Request, body []byte) ([]Item, int, string) { return checkSegment(writeKey, r, body) }}
}

// NewSlack stands for an incoming webhook at path.
func NewSlack(path string) *Vendor {
	return &Vendor{check: func(r *http.Request, body []byte) ([]Item, int, string) { return checkSlack(path, r, body) }}
}

// ServeHTTP implements [http.Handler].
func (v *Vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 20<<20))
	if err != nil {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	compressed := r.Header.Get("Content-Encoding") == "gzip"
	if compressed {
		if body, err = gunzip(body); err != nil {
			http.Error(w, "not gzip", http.StatusBadRequest)
			return
		}
	}
	items, status, problem := v.check(r, body)
	if problem == "" {
		for _, item := range items {
			if v.Poison != "" && item.ID == v.Poison {
				status, problem = http.StatusBadRequest, "poison"
			}
		}
	}
	v.mu.Lock()
	v.requests++
	if compressed {
		v.compressed++
	}
	if problem != "" && problem != "poison" {
		v.problems = append(v.problems, problem)
	}
	var answers map[string]map[string]string
	if problem == "" {
		items, answers = v.settle(items)
		for _, item := range items {
			if item.Link {
				v.links = append(v.links, item)
			} else {
				v.items = append(v.items, item)
			}
		}
	}
	v.mu.Unlock()
	if problem != "" {
		http.Error(w, problem, status)
		return
	}
	if answers != nil {
		_ = json.NewEncoder(w).Encode(map[string]any{"results": answers})
		return
	}
	_, _ = io.WriteString(w, "ok")
}

// settle divides events into those that are taken and the answers for each. The
// mutex is held.
func (v *Vendor) settle(items []Item) (taken []Item, answers map[string]map[string]string) {
	if v.says == nil {
		return items, nil
	}
	answers = map[string]map[string]string{}
	for _, item := range items {
		said := "ok"
		if v.Says != nil {
			said = v.Says(item.ID, v.says[item.ID])
		}
		v.says[item.ID]++
		answers[item.ID] = map[string]string{"result": said, "details": "because"}
		if said == "ok" || said == "warning" {
			taken = append(taken, item)
		}
	}
	return taken, answers
}

// Items are what was taken, in order, without what ties names.
func (v *Vendor) Items() []Item {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]Item(nil), v.items...)
}

// Links are what was taken that ties names, in order.
func (v *Vendor) Links() []Item {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]Item(nil), v.links...)
}

// Problems are what the vendor would not have taken.
func (v *Vendor) Problems() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]string(nil), v.problems...)
}

// Requests counts the requests.
func (v *Vendor) Requests() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.requests
}

// Compressed counts the requests whose body was compressed.
func (v *Vendor) Compressed() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.compressed
}

func gunzip(body []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, 20<<20))
}

func checkPosthog(apiKey string, r *http.Request, body []byte) ([]Item, int, string) {
	var req struct {
		APIKey string `json:"api_key"`
	}
	switch err := json.Unmarshal(body, &req); {
	case r.Method != http.MethodPost || strings.TrimRight(r.URL.Path, "/") != "/batch":
		return nil, http.StatusNotFound, "path " + r.URL.Path
	case err != nil:
		return nil, http.StatusBadRequest, err.Error()
	case req.APIKey != apiKey:
		return nil, http.StatusUnauthorized, "api_key is not valid"
	}
	return posthogEvents(body)
}

// posthogEvents are the events of a request of either protocol.
func posthogEvents(body []byte) ([]Item, int, string) {
	var req struct {
		Batch  []map[string]any `json:"batch"`
		SentAt *string          `json:"sent_at"`
	}
	switch err := json.Unmarshal(body, &req); {
	case err != nil:
		return nil, http.StatusBadRequest, err.Error()
	case len(req.Batch) == 0:
		return nil, http.StatusBadRequest, "empty batch"
	case req.SentAt != nil:
		return nil, http.StatusBadRequest, "sent_at would shift the timestamps"
	}
	var items []Item
	for i, e := range req.Batch {
		item := Item{ID: text(e["uuid"]), Name: text(e["event"]), Person: text(e["distinct_id"])}
		item.Fields, _ = e["properties"].(map[string]any)
		item.Link = item.Name == "$identify" || item.Name == "$create_alias" || item.Name == "$merge_dangerously"
		_, badID := uuid.Parse(item.ID)
		_, badTime := time.Parse(time.RFC3339Nano, text(e["timestamp"]))
		switch {
		case badID != nil:
			return nil, http.StatusBadRequest, fmt.Sprintf("batch[%d]: uuid %q", i, item.ID)
		case badTime != nil:
			return nil, http.StatusBadRequest, fmt.Sprintf("batch[%d]: timestamp", i)
		case item.Name == "" || utf8.RuneCountInString(item.Name) > 200:
			return nil, http.StatusBadRequest, fmt.Sprintf("batch[%d]: event", i)
		case item.Person == "" || utf8.RuneCountInString(item.Person) > 200 || item.Person == "null" || item.Person == "anonymous":
			return nil, http.StatusBadRequest, fmt.Sprintf("batch[%d]: distinct_id %q", i, item.Person)
		case item.Fields == nil:
			return nil, http.StatusBadRequest, fmt.Sprintf("batch[%d]: properties", i)
		}
		items = append(items, item)
	}
	return items, 0, ""
}

func checkSegment(writeKey string, r *http.Request, body []byte) ([]Item, int, string) {
	var req struct {
		Batch []json.RawMessage `json:"batch"`
	}
	key, password, _ := r.BasicAuth()
	switch err := json.Unmarshal(body, &req); {
	case r.Method != http.MethodPost || r.URL.Path != "/v1/batch":
		return nil, http.StatusNotFound, "path " + r.URL.Path
	case key != writeKey || password != "":
		return nil, http.StatusUnauthorized, "write key"
	case r.Header.Get("Content-Type") != "application/json":
		return nil, http.StatusBadRequest, "Content-Type"
	case err != nil:
		return nil, http.StatusBadRequest, err.Error()
	case len(body) > 500<<10 || len(req.Batch) > 2500:
		return nil, http.StatusBadRequest, "batch is too large"
	}
	var items []Item
	for i, raw := range req.Batch {
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil || len(raw) > 32<<10 {
			return nil, http.StatusBadRequest, fmt.Sprintf("batch[%d]: too large or no object", i)
		}
		item := Item{ID: text(m["messageId"]), Person: text(m["userId"]), User: text(m["userId"]), Anonymous: text(m["anonymousId"])}
		item.Context, _ = m["context"].(map[string]any)
		if item.Person == "" {
			item.Person = text(m["anonymousId"])
		}
		switch text(m["type"]) {
		case "track":
			item.Name = text(m["event"])
			item.Fields, _ = m["properties"].(map[string]any)
		case "identify":
			item.Name = "identify"
			if item.Fields, _ = m["traits"].(map[string]any); item.Fields == nil {
				item.Link, item.Fields = true, map[string]any{"anonymousId": text(m["anonymousId"])}
			}
		case "alias":
			item.Name, item.Link, item.Fields = "alias", true, map[string]any{"previousId": text(m["previousId"])}
		}
		_, badTime := time.Parse(time.RFC3339Nano, text(m["timestamp"]))
		if item.ID == "" || len(item.ID) > 100 || item.Name == "" || item.Person == "" || item.Fields == nil || badTime != nil {
			return nil, http.StatusBadRequest, fmt.Sprintf("batch[%d]: type, event, messageId, userId or timestamp: %s", i, raw)
		}
		items = append(items, item)
	}
	return items, 0, ""
}

func checkSlack(path string, r *http.Request, body []byte) ([]Item, int, string) {
	var m struct {
		Text   string           `json:"text"`
		Blocks []map[string]any `json:"blocks"`
	}
	switch err := json.Unmarshal(body, &m); {
	case r.URL.Path != path:
		return nil, http.StatusNotFound, "no_service"
	case err != nil:
		return nil, http.StatusBadRequest, "invalid_payload"
	case m.Text == "":
		return nil, http.StatusBadRequest, "no_text"
	case len(m.Blocks) > 50:
		return nil, http.StatusBadRequest, "invalid_blocks: more than 50"
	}
	for _, b := range m.Blocks {
		t, _ := b["text"].(map[string]any)
		if n := utf8.RuneCountInString(text(t["text"])); b["type"] == "section" && (n == 0 || n > 3000) {
			return nil, http.StatusBadRequest, fmt.Sprintf("invalid_blocks: a section of %d characters", n)
		}
	}
	return []Item{{Name: m.Text}}, 0, ""
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
