package sinks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// TestBodiesOfBatchesAreUsedAgainWithoutMixingThem: many large batches at once, of
// which some are refused before they are read; each that arrives is what was sent.
func TestBodiesOfBatchesAreUsedAgainWithoutMixingThem(t *testing.T) {
	var mu sync.Mutex
	arrived := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		refuse := len(arrived)%7 == 3
		arrived[fmt.Sprint("request ", len(arrived))] = 1
		mu.Unlock()
		if refuse {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, err := io.ReadAll(r.Body)
		var got struct {
			Batch []struct {
				ID string `json:"distinct_id"`
			} `json:"batch"`
		}
		if err != nil || json.Unmarshal(body, &got) != nil || bytes.Count(body, []byte(got.Batch[0].ID)) < len(got.Batch) {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	defer server.Close()
	d := newDeliverer(t, Config{AllowLoopback: true, AllowHTTP: true})
	dest := &storage.Destination{ID: "d1", Name: "test", Kind: "posthog", Revision: 1, Config: []byte(`{"host":"` + server.URL + `","apiKey":"k"}`)}
	var wg sync.WaitGroup
	for i := range 8 {
		fact := sampleFact(schemas.FactContactUpdated)
		fact.UserID = ptr(fmt.Sprintf("user-%08d", i))
		var records []*stream.Record
		for j := range 200 {
			records = append(records, recordOf(t, fact, int64(j)))
		}
		wg.Go(func() {
			for range 20 {
				out := d.Deliver(t.Context(), stream.Delivery{Destination: dest, Records: records, Attempt: 1})
				if out.Verdict != stream.Delivered && out.Status != http.StatusServiceUnavailable {
					t.Errorf("%+v", out)
				}
			}
		})
	}
	wg.Wait()
}
