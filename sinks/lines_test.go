package sinks

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

func TestWhichAttemptsAreLogLinesIsASetting(t *testing.T) {
	for lines, want := range map[string][]zapcore.Level{
		"":         {zap.DebugLevel, zap.InfoLevel},
		"failures": {zap.DebugLevel, zap.InfoLevel},
		"all":      {zap.InfoLevel, zap.InfoLevel},
		"off":      nil,
	} {
		core, seen := observer.New(zap.DebugLevel)
		d := &Deliverer{cfg: Config{Lines: lines}, log: zap.New(core)}
		del := &delivery.Delivery{Destination: &storage.Destination{Name: "crm"}, Records: []*stream.Record{{}}}
		d.logOutcome(del, &delivery.Outcome{Verdict: delivery.Delivered})
		d.logOutcome(del, &delivery.Outcome{Verdict: delivery.Retry, Status: 503})
		var got []zapcore.Level
		for _, line := range seen.All() {
			require.Equal(t, "delivery.attempted", line.Message)
			got = append(got, line.Level)
		}
		require.Equal(t, want, got, lines)
	}
}
