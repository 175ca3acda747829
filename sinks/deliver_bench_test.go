package sinks

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/signing"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// BenchmarkDeliver delivers one fact after the other over each of several
// connections, to a receiver that allocates nothing and answers at once.
func BenchmarkDeliver(b *testing.B) {
	d := newDeliverer(b, Config{AllowLoopback: true, Timeout: time.Hour})
	dest := &storage.Destination{ID: "d1", Name: "bench", Kind: "webhook", URL: leanReceiver(b), Secret: signing.NewSecret(), Revision: 1}
	records := make([]*stream.Record, (memoSets*memoWays)+1) // none is remembered
	for i := range records {
		records[i] = sinktest.Record(sinktest.Fact(schemas.FactContactUpdated), int64(i))
	}
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute) // as the lanes' contexts: used again
		defer cancel()
		for i := 0; pb.Next(); i++ {
			r := records[i%len(records)]
			out := d.Deliver(ctx, delivery.Delivery{Destination: dest, Records: []*stream.Record{r}, Attempt: 1})
			if out.Verdict != delivery.Delivered {
				b.Fatal(out.Err)
			}
		}
	})
}

func leanReceiver(b *testing.B) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answerAll(conn)
		}
	}()
	return "http://" + l.Addr().String()
}

// answerAll takes each body that ends an object for the end of a request.
func answerAll(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 8<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(buf[:n], []byte("}}")) {
			continue
		}
		if _, err := conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")); err != nil {
			return
		}
	}
}

// BenchmarkBuild is what an attempt costs before anything is sent.
func BenchmarkBuild(b *testing.B) {
	d := newDeliverer(b, Config{AllowLoopback: true})
	dest := &storage.Destination{ID: "d1", Name: "bench", Kind: "webhook", URL: "http://127.0.0.1/", Secret: signing.NewSecret(), Revision: 1}
	e := sinktest.Event()
	e.Properties = `{"page":"` + strings.Repeat("x", 900) + `"}`
	rec := sinktest.Record(e, 1)
	b.ReportAllocs()
	for b.Loop() {
		p, err := d.Payload(rec)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := d.open(dest).sink.Build(&Attempt{Now: time.Now(), Payloads: []*Payload{p}}); err != nil {
			b.Fatal(err)
		}
	}
}
