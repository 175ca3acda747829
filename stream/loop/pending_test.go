package loop_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// What is published from a progress row is what would have been published at once.
func TestPendingOutputsComeBackAsTheyWere(t *testing.T) {
	cfg := stream.Config{}
	rapid.Check(t, func(rt *rapid.T) {
		numbered := rapid.Bool().Draw(rt, "numbered")
		outputs := make([]loop.Output, rapid.IntRange(1, 5).Draw(rt, "outputs"))
		for i := range outputs {
			o := &outputs[i]
			o.Topic, o.Key = schemas.TopicEvents, rapid.String().Draw(rt, "key")
			if rapid.Bool().Draw(rt, "value") {
				o.Value = rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(rt, "bytes")
			}
			o.Meta = schemas.Meta{ID: rapid.String().Draw(rt, "id"), Type: rapid.String().Draw(rt, "type")}
			if rapid.Bool().Draw(rt, "time") {
				o.Meta.OccurredAt = time.Unix(rapid.Int64Range(0, 1<<32).Draw(rt, "second"), 7000).UTC()
			}
			if numbered {
				o.Meta.Seq, o.Meta.Era = rapid.Int64Range(0, 1<<62).Draw(rt, "seq"), rapid.Int64Range(0, 1<<40).Draw(rt, "era")
			}
			o.Trace = stream.Trace{Parent: rapid.String().Draw(rt, "parent"), State: rapid.String().Draw(rt, "state")}
		}
		pending := loop.EncodePending(outputs)
		records, err := loop.DecodePending(cfg, pending)
		require.NoError(rt, err)
		require.Len(rt, records, len(outputs))
		for i, o := range outputs {
			want := stream.NewKafkaRecord(cfg.Topic(o.Topic), o.Key, o.Value, o.Meta, o.Trace)
			require.Equal(rt, want, records[i])
		}
		if !numbered {
			require.EqualValues(rt, 1, pending[0], "without numbers a binary before numbering reads it")
		}
		cut := rapid.IntRange(0, len(pending)-1).Draw(rt, "cut")
		_, _ = loop.DecodePending(cfg, pending[:cut]) // does not panic
	})
}
