package hogstream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
)

// Hogstream within a program: all parts in one process, broker and Postgres included.
// On servers, New and Run take the place of RunDev. examples/embed adds a kind of
// destination, too.
func ExampleRunDev() {
	dir, err := os.MkdirTemp("", "hogstream-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	cfg, err := hogstream.ConfigFromEnv()
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg.DataDir, cfg.HTTP.Addr, cfg.Log.Level = dir, "127.0.0.1:0", "error"

	servedBy := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Served-By", "Acme")
			next.ServeHTTP(w, r)
		})
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	err = hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop() // ends RunDev
		resp, err := http.Get(r.URL + "/v1/health/live")
		if err != nil {
			fmt.Println(err)
			return
		}
		defer resp.Body.Close()
		fmt.Println(resp.StatusCode, resp.Header.Get("X-Served-By"))
	}, hogstream.WithMiddleware(servedBy))
	if err != nil {
		fmt.Println(err)
	}
	// Output: 200 Acme
}

// exampleConfig are settings for an instance in a directory that is thrown away.
func exampleConfig() (cfg hogstream.Config, remove func()) {
	dir, err := os.MkdirTemp("", "hogstream-example-")
	if err != nil {
		panic(err)
	}
	cfg, err = hogstream.ConfigFromEnv()
	if err != nil {
		panic(err)
	}
	cfg.DataDir, cfg.HTTP.Addr, cfg.Log.Level = dir, "127.0.0.1:0", "error"
	return cfg, func() { _ = os.RemoveAll(dir) }
}

// send makes a request to an instance, and returns the status of the answer.
func send(r *hogstream.Running, method, path, body string) int {
	req, err := http.NewRequest(method, r.URL+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.APIKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// A bucket is defined in Go, and somebody joins it with his second order. Whoever is in it
// is told of on topic lifecycle, here to a webhook, and by the API.
func ExampleWithBuckets() {
	cfg, remove := exampleConfig()
	defer remove()
	loyal := definition.Bucket{
		ID: "loyal", Name: "Loyal customers", Enabled: true,
		Criteria: predicate.Event("order.completed").Within(predicate.Days(30)).AtLeast(2),
	}
	told := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			Type string
			Data struct{ BucketID, UserID string }
		}
		if json.NewDecoder(r.Body).Decode(&body) == nil {
			told <- fmt.Sprint(body.Type, " ", body.Data.BucketID, " ", body.Data.UserID)
		}
	}))
	defer receiver.Close()

	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	err := hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop() // ends RunDev
		send(r, http.MethodPost, "/v1/admin/webhooks", `{"url":"`+receiver.URL+`","eventTypes":["bucket.entered"]}`)
		for range 2 {
			send(r, http.MethodPost, "/v1/events", `{"name":"order.completed","userId":"ada"}`)
		}
		select {
		case text := <-told:
			fmt.Println(text)
		case <-ctx.Done():
		}
	}, hogstream.WithBuckets(loyal))
	if err != nil {
		fmt.Println(err)
	}
	// Output: bucket.entered loyal ada
}

// A journey may be Go code: it waits for weeks in a function call, and goes on in another
// process.
func ExampleWithJourneys() {
	cfg, remove := exampleConfig()
	defer remove()
	welcome := journeys.Define("welcome", "1", func(r *journeys.Run) error {
		r.Email("hello", journeys.Email{Template: "hello"})
		came, _ := r.WaitFor("first order", journeys.WaitFor{
			Any:     []journeys.Alternative{{Match: journeys.Match{Event: "order.completed"}}},
			Timeout: 14 * 24 * time.Hour,
		})
		if came == journeys.OutcomeTimeout {
			r.Email("reminder", journeys.Email{Template: "reminder"})
			return nil
		}
		return r.Exit("has ordered")
	})
	welcome.Trigger.Records = []journeys.Match{{Event: "signed.up"}}
	told := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			Type string
			Data struct{ JourneyID, Reason string }
		}
		if json.NewDecoder(r.Body).Decode(&body) == nil {
			told <- fmt.Sprint(body.Type, " ", body.Data.JourneyID, ": ", body.Data.Reason)
		}
	}))
	defer receiver.Close()

	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	err := hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop() // ends RunDev
		send(r, http.MethodPost, "/v1/admin/webhooks", `{"url":"`+receiver.URL+`","eventTypes":["journey.exited"]}`)
		send(r, http.MethodPost, "/v1/events", `{"name":"signed.up","userId":"ada"}`)
		send(r, http.MethodPost, "/v1/events", `{"name":"order.completed","userId":"ada"}`)
		select {
		case text := <-told:
			fmt.Println(text)
		case <-ctx.Done():
		}
	}, hogstream.WithJourneys(welcome))
	if err != nil {
		fmt.Println(err)
	}
	// Output: journey.exited welcome: has ordered
}

// Who is in a bucket is asked of the database, by any program that may reach it.
func ExampleOpenMembers() {
	cfg, remove := exampleConfig()
	defer remove()
	beta := definition.Bucket{ID: "beta", Name: "Testers", Enabled: true, Kind: definition.KindManual}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	err := hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop() // ends RunDev
		var own hogstream.Config
		r.FillIn(&own) // elsewhere the URL of the database is all that is needed
		members, err := hogstream.OpenMembers(ctx, own)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer members.Close()

		send(r, http.MethodPut, "/v1/contacts", `{"userId":"ada","email":"ada@example.com"}`)
		for send(r, http.MethodPost, "/v1/admin/buckets/beta/members", `{"userId":"ada"}`) != http.StatusAccepted {
			<-time.After(50 * time.Millisecond) // an instance that has only just started says 503
		}
		for ctx.Err() == nil {
			if has, err := members.Has(ctx, "beta", "ada"); err != nil || has {
				break
			}
			<-time.After(20 * time.Millisecond) // processor buckets puts her there
		}
		n, err := members.Count(ctx, "beta")
		fmt.Println(n, err)
		for m, err := range members.All(ctx, "beta") {
			fmt.Println(m.UserID, m.Email, m.EntryCount, err)
		}
	}, hogstream.WithBuckets(beta))
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1 <nil>
	// ada ada@example.com 1 <nil>
}
