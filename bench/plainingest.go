package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
)

// plainHandler parses, encodes and produces, and nothing else: no key, no
// validation, no limits, no metrics, no request id.
type plainHandler struct {
	client *kgo.Client
	codec  *schemas.Codec
	topic  string
}

type plainEvent struct {
	Name              string          `json:"name"`
	UserID            string          `json:"userId"`
	Email             string          `json:"email"`
	Timestamp         time.Time       `json:"timestamp"`
	EventProperties   json.RawMessage `json:"eventProperties"`
	ContactProperties json.RawMessage `json:"contactProperties"`
}

// ServeHTTP takes both routes.
func (h *plainHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	events, err := parse(r.URL.Path, text)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	now := time.Now()
	records := make([]*kgo.Record, len(events))
	for i := range events {
		in := events[i].input(now)
		value, err := h.codec.Encode(in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		records[i] = &kgo.Record{Topic: h.topic, Key: []byte(in.Key()), Value: value}
	}
	if err := h.client.ProduceSync(r.Context(), records...).FirstErr(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = fmt.Fprintf(w, `{"accepted":%d}`, len(records)) //nolint:gosec // a number
}

func parse(path string, text []byte) ([]plainEvent, error) {
	if strings.HasSuffix(path, "/batch") {
		var body struct {
			Events []plainEvent `json:"events"`
		}
		err := json.Unmarshal(text, &body)
		return body.Events, err
	}
	events := make([]plainEvent, 1)
	return events, json.Unmarshal(text, &events[0])
}

func (e *plainEvent) input(now time.Time) *schemas.Input {
	properties, patch := string(e.EventProperties), string(e.ContactProperties)
	return &schemas.Input{
		ID: uuid.Must(uuid.NewV7()).String(), Type: schemas.InputEvent, ReceivedAt: now, OccurredAt: e.Timestamp, Source: "api",
		UserID: &e.UserID, Email: &e.Email, Event: &e.Name, EventProperties: &properties, ContactProperties: &patch,
	}
}
