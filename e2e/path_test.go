package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
)

// cli runs a command against the world with --json and decodes what it prints.
func (w *world) cli(into any, args ...string) {
	w.t.Helper()
	out, err := w.tryCLI(args...)
	require.NoError(w.t, err)
	if into != nil {
		require.NoError(w.t, json.Unmarshal(out, into), "hogstream %v printed %s", args, out)
	}
}

func (w *world) tryCLI(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(w.ctx(), hogstreamBinary(w.t), append([]string{"--json"}, args...)...)
	cmd.Env = append(append(os.Environ(), w.env...), "HOGSTREAM_DATA_DIR="+w.dir)
	if len(w.serving) > 0 {
		cmd.Env = append(cmd.Env, "HOGSTREAM_URL="+w.serving[0].url)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("hogstream %v: %w: %s %s", args, err, out.Bytes(), errs.Bytes())
	}
	return out.Bytes(), nil
}

func TestAnEventGoesInByHTTPAndLeavesAsASignedWebhookByTheCommandLine(t *testing.T) {
	beside(t)
	w := newWorld(t)
	p := w.serve("one")

	receiver, err := sinktest.New(sinktest.Options{Keep: 100})
	require.NoError(t, err)
	url, err := receiver.Start("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(receiver.Close)
	var made struct{ ID, Name, Secret string }
	w.cli(&made, "destinations", "add", url, "--name", "oracle", "--event", "*,event.tracked:order.completed")
	require.NotEmpty(t, made.Secret)
	require.NoError(t, receiver.SetSecrets(made.Secret))

	var sent struct {
		ID     string
		Stored bool
	}
	w.cli(&sent, "events", "send", "order.completed", "--user-id", "ada", "--email", "Ada@Example.com",
		"--prop", "total=12.50", "--contact-prop", "plan=pro", "--idempotency-key", "order-1")
	require.True(t, sent.Stored)
	w.cli(&sent, "events", "send", "order.completed", "--user-id", "ada", "--idempotency-key", "order-1")
	require.False(t, sent.Stored, "the same key again stores nothing")
	w.cli(nil, "events", "send", "page.viewed", "--user-id", "ada", "--idempotency-key", "page-1")

	// The next event is delivered: created, then the one event asked for by name.
	require.NoError(t, receiver.Wait(w.ctx(), func(s sinktest.Stats) bool { return s.Unique >= 2 }))
	w.waitProcessed()
	stats := receiver.Stats()
	require.Equal(t, map[string]int{"contact.created": 1, "event.tracked": 1}, stats.ByType)
	require.Zero(t, stats.BadSignatures+stats.Malformed)
	for _, m := range receiver.Messages() {
		if m.Event != "" {
			require.Equal(t, "order.completed", m.Event)
			require.Contains(t, string(m.Data), `"total":12.50`, "properties keep their bytes")
		}
	}

	var contacts []struct {
		ID, ExternalID, Email string
		Properties            map[string]any
	}
	w.cli(&contacts, "contacts", "get", "ada@example.com")
	require.Len(t, contacts, 1)
	require.Equal(t, "ada", contacts[0].ExternalID)
	require.Equal(t, "pro", contacts[0].Properties["plan"])

	w.readsTopics(contacts[0].ID)
	w.looksAtItself()

	var keys struct{ ID, Key string }
	w.cli(&keys, "keys", "create", "a sender", "--scope", "ingest")
	require.NotEmpty(t, keys.Key)
	w.stopsWhenRevoked(keys.ID, keys.Key)
	w.cli(nil, "destinations", "rm", "oracle")
	p.stop()
}

// readsTopics tails topics as an operator does.
func (w *world) readsTopics(contactID string) {
	w.t.Helper()
	out, err := w.tryCLI("topics", "tail", "events", "--from", "start")
	require.NoError(w.t, err)
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	require.Len(w.t, lines, 2, "%s", out)
	require.Contains(w.t, string(lines[0]), contactID)
	out, err = w.tryCLI("topics", "tail", "lifecycle", "--from", "start", "--type", "contact.created")
	require.NoError(w.t, err)
	require.Len(w.t, bytes.Split(bytes.TrimSpace(out), []byte("\n")), 1)
	var topics []struct {
		Topic    string
		Problems []any
	}
	w.cli(&topics, "topics", "ls")
	require.Len(w.t, topics, len(schemas.Topics()))
	for _, t := range topics {
		require.Empty(w.t, t.Problems, "topic %s", t.Topic)
	}
}

// looksAtItself asks the processors and the doctor.
func (w *world) looksAtItself() {
	w.t.Helper()
	var processors []struct {
		Processor string
		Partition int32
		Topics    []struct{ Lag int64 }
	}
	w.cli(&processors, "processors", "ls")
	require.NotEmpty(w.t, processors)
	for _, p := range processors {
		for _, t := range p.Topics {
			require.Zero(w.t, t.Lag, "%s partition %d", p.Processor, p.Partition)
		}
	}
	var doctor struct {
		OK       bool
		Findings []struct {
			What, Note, Fix string
			OK              bool
		}
	}
	w.cli(&doctor, "doctor")
	require.True(w.t, doctor.OK, "%+v", doctor.Findings)
	require.GreaterOrEqual(w.t, len(doctor.Findings), 4)
}

// stopsWhenRevoked revokes a key that worked.
func (w *world) stopsWhenRevoked(id, key string) {
	w.t.Helper()
	send := func() error {
		_, err := w.tryCLI("events", "send", "keyed", "--user-id", "ada", "--key", key)
		return err
	}
	require.NoError(w.t, send())
	w.cli(nil, "keys", "revoke", id)
	w.eventually("the revoked key to stop", func(context.Context) error {
		if err := send(); err == nil {
			return fmt.Errorf("it still works")
		}
		return nil
	})
}
