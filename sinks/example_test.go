package sinks_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// chat posts a line of text for each record.
type chat struct{ url *url.URL }

func (c chat) Build(a *sinks.Attempt) (*transport.Request, error) {
	p := a.Payloads[0] // Records of the kind is 1
	body, err := json.Marshal(map[string]string{"text": p.Name() + " of " + p.Person.DistinctID()})
	return &transport.Request{URL: c.url, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}, err
}

func (c chat) Judge(_ *sinks.Attempt, ans *transport.Answer) (delivery.Verdict, string) {
	return sinks.JudgeStatus(ans.Status), ""
}

// A kind of destination of one's own, and a record delivered to it. Within Hogstream the
// kind is given to hogstream.WithSinks, and the lanes of the destination call Deliver.
func ExampleKind() {
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Printf("%s\n", body)
	}))
	defer receiver.Close()

	kind := sinks.Kind{Name: "chat", NeedsURL: true, Records: 1, Bytes: 64 << 10,
		Open: func(dest *storage.Destination, guard *transport.Guard) (sinks.Sink, error) {
			address, err := guard.CheckURL("url", dest.URL)
			return chat{address}, err
		}}
	deliverer, err := sinks.New(sinks.Config{OwnKinds: []sinks.Kind{kind}, AllowLoopback: true}, schemas.NewCodec(), nil, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer deliverer.Close()
	out := deliverer.Deliver(context.Background(), delivery.Delivery{
		Destination: &storage.Destination{ID: "d1", Name: "support", Kind: "chat", URL: receiver.URL, Revision: 1},
		Records:     []*stream.Record{sinktest.Record(sinktest.Event(), 7)}, Attempt: 1,
	})
	fmt.Println(out.Verdict, out.Status)
	// Output:
	// {"text":"order.completed of user-1"}
	// delivered 200
}
