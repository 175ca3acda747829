package stream_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

func TestThePlaceInTheOrderOfAContactStandsInHeaders(t *testing.T) {
	read := func(kr *kgo.Record) (r stream.Record) {
		stream.FillRecord(&r, schemas.TopicEvents, kr, "")
		return r
	}
	kr := stream.NewKafkaRecord("t", "k", nil, schemas.Meta{ID: "id", Type: "x", Seq: 12, Era: 3}, stream.Trace{Parent: "p"})
	require.LessOrEqual(t, len(kr.Headers), stream.MaxHeaders)
	r := read(kr)
	require.Equal(t, []any{"id", "x", int64(12), int64(3), "p"}, []any{r.ID, r.Type, r.Seq, r.Era, r.TraceParent})

	kr = stream.NewKafkaRecord("t", "k", nil, schemas.Meta{ID: "id", Type: "x"}, stream.Trace{})
	require.Len(t, kr.Headers, 2, "without a number there is no header of it")
	for _, bad := range []string{"", "-1", "1.5", "x", "9223372036854775808", "99999999999999999999"} {
		kr.Headers = []kgo.RecordHeader{{Key: "seq", Value: []byte(bad)}, {Key: "era", Value: []byte(bad)}}
		r := read(kr)
		require.Zero(t, r.Seq+r.Era, bad)
	}
}

func TestADeadLetterKeepsThePlaceInTheOrder(t *testing.T) {
	letter := stream.NewDeadLetter(&stream.Record{Topic: schemas.TopicEvents, Seq: 12}, "processor:x", "failed", stream.ErrTwin, time.Unix(0, 0))
	require.Equal(t, "12", letter.RecordHeaders[stream.HeaderSeq])
	require.Equal(t, "0", letter.RecordHeaders[stream.HeaderEra])
}
