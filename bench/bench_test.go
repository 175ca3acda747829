package bench

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas/document"
)

// TestMain makes the test binary a part when it is called as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[2] == PartFlag {
		if err := RunPart(os.Args[3], os.Args[4:], os.Stdin, os.Stdout); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func TestEveryBenchRunsAndReportsItsFigures(t *testing.T) {
	for _, name := range Names() {
		if slices.Contains([]string{"latency", "joins", "timers", "filling", "steps", "waits"}, name) {
			continue // starts a whole instance, which package hogstream tests
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			report := filepath.Join(t.TempDir(), "docs", "BENCHMARKS.md")
			require.NoError(t, Run(t.Context(), Config{Names: []string{name}, Rounds: 1, Scale: 0.02, Out: report, Command: "test"}))
			text, err := os.ReadFile(report)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(text), "<!-- bench: "+name+" -->"), "%s", text)
		})
	}
}

func TestASectionMeasuredAgainReplacesItselfAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "BENCHMARKS.md")
	write := func(name, title string) {
		s := &section{name: name, title: title, about: "x", figures: []figure{rateFigure("r", []float64{1, 3, 2}, 2)}, begun: time.Now()}
		require.NoError(t, s.writeTo(path))
	}
	write("lanes", "Lanes, first")
	write("ingest", "Ingest")
	write("lanes", "Lanes, second")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(text), "Lanes, first")
	require.Less(t, strings.Index(string(text), "## Ingest"), strings.Index(string(text), "## Lanes, second"))
	require.Contains(t, string(text), "| r | 2/s | ≥ 2/s | met | 1, 3, 2 |")
}

func TestTheLoadsEventsAreOfAKibibyteAndValid(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		event := string(appendEvent(nil, rng))
		require.InDelta(t, 1024, len(event), 100)
		end, err := document.ScanValue(event, 0, document.MaxDepth)
		require.NoError(t, err)
		require.Equal(t, len(event), end)
	}
}

func TestThePlainBodyIsAsLongAsOurs(t *testing.T) {
	f := factAbout(7, "6ba7b812-9dad-11d1-80b4-00c04fd430c8")
	body := string(plainBody("msg_"+f.ID, f))
	end, err := document.ScanValue(body, 0, document.MaxDepth)
	require.NoError(t, err)
	require.Equal(t, len(body), end)
}

func TestAnUnknownBenchIsNamedWithThoseThereAre(t *testing.T) {
	require.ErrorContains(t, Run(t.Context(), Config{Names: []string{"nonsense"}}), "there are [ingest processors buckets crowd plan evaluation lanes outbox order unordered batches")
}
