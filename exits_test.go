package hogstream_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
)

// told is what the sender of an event is answered.
type told struct {
	Stored, Pending bool
	ContactID       string
	Exits           []struct {
		JourneyID, StateID string
		Exited             bool
	}
}

// exitsOf are the runs of an answer, a word each, by the cart that they are about.
func (e *erasing) exitsOf(a told) string {
	e.t.Helper()
	var words []string
	for _, exit := range a.Exits {
		var cart string
		require.NoError(e.t, e.db.QueryRow(e.t.Context(), `SELECT key FROM journey_runs WHERE run_id = $1::text::uuid`, exit.StateID).Scan(&cart))
		require.Equal(e.t, "cart", exit.JourneyID)
		words = append(words, strings.Trim(cart, `"`)+map[bool]string{true: " exited", false: " stays"}[exit.Exited])
	}
	return strings.Join(words, ", ")
}

// A sender who waits is told which runs his event ended and which it did not; the repetition
// says the same. Who does not wait is told of none. While processor journeys does nothing
// the event is accepted in time all the same, and what it did is told to who asks again.
func TestASenderWhoWaitsIsToldWhichRunsItsEventEnded(t *testing.T) {
	cfg := devConfig(t)
	cfg.HTTP.AnswerTimeout = 10 * time.Second
	cfg.Definitions.Dir = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(cfg.Definitions.Dir, "journeys"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Definitions.Dir, "journeys", "cart.yaml"), []byte(`
id: cart
name: Cart
enabled: true
trigger: {event: cart.added}
key: cartId
exitOn: [{event: order.paid, where: {cartId: {run: key}}}]
steps: [{wait: 30d}]
`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Definitions.Dir, "journeys", "free.yaml"), []byte(
		`{id: free, name: Free, enabled: true, trigger: {event: cart.added}, steps: [{wait: 30d}]}`), 0o600))
	inDev(t, cfg, func(r *hogstream.Running) {
		e := within(t, r)
		e.eventually(func() bool { return e.rows(`processor_progress WHERE processor = 'journeys'`) > 0 }, func() string { return "processor journeys has begun" })
		send := func(name, cart, key string) (a told) {
			t.Helper()
			if key != "" {
				key = `,"idempotencyKey":"` + key + `"`
			}
			require.NoError(t, json.Unmarshal(e.send("POST", "/v1/events", `{"name":"`+name+`","userId":"u1","eventProperties":{"cartId":"`+cart+`"}`+key+`}`), &a))
			return a
		}
		for _, cart := range []string{"a", "b", "c"} {
			require.Len(t, send("cart.added", cart, "add "+cart).Exits, len(e.ids(`SELECT key FROM journey_runs WHERE journey_id = 'cart'`))-1, "the runs before it, and not its own")
		}
		first := send("order.paid", "b", "pay b")
		require.True(t, first.Stored)
		require.Equal(t, "a stays, b exited, c stays", e.exitsOf(first))
		again := send("order.paid", "b", "pay b")
		require.False(t, again.Stored)
		require.Equal(t, first.Exits, again.Exits)
		require.Equal(t, "a stays, c stays", e.exitsOf(send("looked", "b", "look")))
		require.Empty(t, send("order.paid", "c", "").Exits)
		e.eventually(func() bool { return e.rows(`journey_runs WHERE status = 'exited'`) == 2 }, func() string { return "it ended the run of c" })

		e.whileJourneysStandStill(func() {
			late := send("order.paid", "a", "pay a")
			require.True(t, late.Stored)
			require.True(t, late.Pending)
			require.NotEmpty(t, late.ContactID)
			require.Empty(t, late.Exits)
		})
		require.Equal(t, "a exited", e.exitsOf(send("order.paid", "a", "pay a")))

		e.send("DELETE", "/v1/contacts", `{"userId":"u1"}`)
		e.eventually(func() bool { return e.rows(`answers WHERE answer ->> 'exits' IS NOT NULL`) == 0 }, func() string { return fmt.Sprint(e.ids(`SELECT answer::text FROM answers`)) })
	})
}

// whileJourneysStandStill has processor journeys wait for a lock of Postgres meanwhile.
func (e *erasing) whileJourneysStandStill(f func()) {
	e.t.Helper()
	tx, err := e.db.Begin(e.t.Context())
	require.NoError(e.t, err)
	defer func() { require.NoError(e.t, tx.Rollback(e.t.Context())) }()
	_, err = tx.Exec(e.t.Context(), `SELECT FROM processor_progress WHERE processor = 'journeys' FOR UPDATE`)
	require.NoError(e.t, err)
	f()
}
