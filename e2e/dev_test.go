package e2e_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// newDevWorld is `hogstream dev`, started on a directory of its own, and how a
// test looks into it.
func newDevWorld(t *testing.T) (*world, *process) {
	t.Helper()
	cfg, err := hogstream.ConfigFromEnv()
	require.NoError(t, err)
	cfg.Kafka.TLS, cfg.Kafka.TLSCA, cfg.Kafka.SASLMechanism = false, "", "" // its own broker has none
	w := &world{t: t, dir: t.TempDir(), cfg: cfg, mayRepeat: true}
	for _, name := range []string{
		"KAFKA_BROKERS", "KAFKA_PREFIX", "KAFKA_TLS", "KAFKA_TLS_CA", "KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD",
		"SCHEMA_REGISTRY_URL", "DATABASE_URL", "HOGSTREAM_INSTANCE",
	} {
		w.env = append(w.env, name+"=") // an empty variable is as one that is not set
	}
	w.env = append(w.env, "HOGSTREAM_ENCRYPTION_KEY="+base64.StdEncoding.EncodeToString(encryptionKey), "ADMIN_API_KEY="+adminKey,
		"RATE_LIMIT=0", "PUBLIC_RATE_LIMIT=0", "LOG_LEVEL=warn", "LOG_FORMAT=console")
	dir, err := os.MkdirTemp("", "hogstream-dev-") // Postgres runs as another user, who must get in
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() {
		killPostgres(dir)
		os.RemoveAll(dir)
	})
	w.dataDir = dir
	p := w.newProcess("dev", []string{"dev"}, "HOGSTREAM_INSTANCE=", "HOGSTREAM_DATA_DIR="+dir, "DEFINITIONS_DIR="+filepath.Join(dir, "definitions"))
	p.start()
	p.waitReady()
	w.lookInto(p)
	return w, p
}

// lookInto finds where the parts of the developer's instance are now.
func (w *world) lookInto(p *process) {
	w.t.Helper()
	var running *hogstream.Running
	w.eventually("it to say where it is", func(context.Context) (err error) {
		if running, err = hogstream.ReadRunning(w.dataDir); err != nil {
			return err
		}
		if running.PID != p.pid() {
			return fmt.Errorf("running.json is of process %d, before %d", running.PID, p.pid())
		}
		return nil
	})
	w.cfg.Kafka.Brokers, w.cfg.Registry.URL, w.cfg.Database.URL = nil, "", ""
	running.FillIn(&w.cfg)
	w.cfg.Instance = "test"
	w.look()
}

// killPostgres ends a server that a killed process left behind.
func killPostgres(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "postgres", "*", "postmaster.pid"))
	more, _ := filepath.Glob(filepath.Join(dir, "postgres", "postmaster.pid"))
	for _, f := range append(files, more...) {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if pid, err := strconv.Atoi(strings.TrimSpace(first)); err == nil && pid > 1 {
			syscall.Kill(pid, syscall.SIGQUIT) //nolint:errcheck // it may be gone
		}
	}
}

func TestFaultDevKilledAsAWholeLosesNothingAndStartsAgain(t *testing.T) {
	notShort(t)
	eachSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		w, p := newDevWorld(t)
		book := newBook()
		w.addReceiver(sinktest.Options{Sequence: bySeq, Script: book.script})
		l := load{name: "dev", subjects: 18, each: 18, senders: 6}
		c := w.client()
		wait := l.start(w, c)
		const kills = 2
		lastTransactions := 0
		for k := range kills {
			w.waitAccepted(c, l.events()*(k+1)/(kills+1))
			w.waitPhase(rng)
			p.kill()
			lastTransactions += w.lastOutputs()
			book.killed(w, p)
			p.start() // finds the Postgres that was left behind
			p.waitReady()
			w.lookInto(p)
		}
		wait()
		stats := w.waitDelivered(2 * l.events())
		w.verify(l)
		repeated, delivered := w.repeated()
		t.Logf("%d kills: %d records repeated, %d were outputs of a last transaction; %d webhooks repeated, of %d records repeated and %d in flight or not flushed",
			kills, repeated, lastTransactions, stats.Duplicates, delivered, book.allowed)
		require.LessOrEqual(t, repeated, lastTransactions, "records repeated: at most the outputs of one transaction a processor and kill")
		require.LessOrEqual(t, stats.Duplicates, book.allowed+delivered, "webhooks repeated")
		p.stop()
		requireStopped(t, w.dataDir)
	})
}

// lastOutputs counts the outputs of each processor's last transaction: those of the
// rows that its last apply wrote, unless they are known to be published.
func (w *world) lastOutputs() (n int) {
	w.t.Helper()
	rows, err := storagetest.SQL(w.db).Query(w.ctx(), `
		SELECT pending FROM processor_progress AS p
		WHERE pending IS NOT NULL AND updated_at = (SELECT max(updated_at) FROM processor_progress AS o WHERE o.processor = p.processor)`)
	require.NoError(w.t, err)
	defer rows.Close()
	for rows.Next() {
		var pending []byte
		require.NoError(w.t, rows.Scan(&pending))
		block, err := s2.Decode(nil, pending[1:]) // after the version
		require.NoError(w.t, err)
		count, _ := binary.Uvarint(block)
		n += int(count)
	}
	require.NoError(w.t, rows.Err())
	return n
}

// repeated counts the records that stand on the topics of outputs more than once,
// and those of them that are delivered.
func (w *world) repeated() (all, delivered int) {
	w.t.Helper()
	for _, s := range schemas.Topics() {
		if s.Topic == schemas.TopicIngest {
			continue // a sender's own retries
		}
		records := w.read(s.Topic)
		seen := map[string]bool{}
		for _, r := range records {
			seen[string(r.Value)] = true
		}
		n := len(records) - len(seen)
		all += n
		if s.Topic == schemas.TopicEvents || s.Topic == schemas.TopicLifecycle {
			delivered += n
		}
	}
	return all, delivered
}

// requireStopped says that a stop in good order left no Postgres behind.
func requireStopped(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "postgres", "*", "postmaster.pid"))
	require.NoError(t, err)
	require.Empty(t, files, "Postgres still runs")
}

func TestTheSecondDevOnADirectorySaysWhoHoldsIt(t *testing.T) {
	notShort(t)
	beside(t)
	w, p := newDevWorld(t)
	second := w.newProcess("second", []string{"dev"}, "HOGSTREAM_INSTANCE=", "HOGSTREAM_DATA_DIR="+w.dataDir, "DEFINITIONS_DIR="+filepath.Join(w.dataDir, "definitions"))
	second.start()
	<-second.ended()
	require.Contains(t, second.tail(5), fmt.Sprint("is held by process ", p.pid()))
	p.stop()
}
