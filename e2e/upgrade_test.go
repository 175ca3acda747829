package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
)

// former is the last release of each format before the present one, by the highest format
// of processor contacts: a commit of this repository. A change of format adds a line.
var former = map[int32]string{
	1: "0449a40fe1012d079e97be212e6e4c4de474fd1b",
}

// Two instances under load are replaced by the next release one after the other; one goes
// back while the other release still runs beside it; and once more when both had been of
// the new one. Some stop in good order, some are killed.
func TestFaultAnUpgradeInstanceByInstanceAndBackLosesAndRepeatsNothing(t *testing.T) {
	notShort(t)
	newest := formatOfContacts(t)
	for format, commit := range former {
		t.Run(fmt.Sprintf("from format %d", format), func(t *testing.T) {
			old := formerBinary(t, commit)
			eachLongSeed(t, 1, func(t *testing.T, rng *rand.Rand) { upgradeAndBack(t, rng, old, format, newest) })
		})
	}
}

func upgradeAndBack(t *testing.T, rng *rand.Rand, old string, format, newest int32) {
	w := newWorld(t, emptyDatabase(), shortLease(), shortSession())
	u := &upgrade{world: w, rng: rng, book: newBook(), old: old}
	u.run(old, nil, "migrate")
	u.a, u.b = u.prepare("a"), u.prepare("b")
	u.begin(u.a, old)
	u.begin(u.b, old)
	u.addReceiver()
	w.waitMembers(2)

	stop := u.keepSending()
	u.some()
	u.run("", nil, "migrate") // under the processes of before
	u.some()

	u.replace(u.a, "")
	u.some()
	require.Equal(t, []int32{format}, w.formats(), "as long as b is of the release before")
	u.replace(u.a, old)
	u.some()
	require.Equal(t, []int32{format}, w.formats())

	u.replace(u.a, "")
	u.replace(u.b, "")
	u.some()
	w.waitFormat(newest)
	u.some()

	// Too late for a way back: it leaves alone what is not its own, and says so.
	u.replace(u.b, old)
	u.waitLeftAlone(u.b, newest)
	u.some()
	require.Equal(t, []int32{newest}, w.formats())
	u.replace(u.b, "")
	u.some()

	loads, events := stop()
	stats := w.waitDelivered(2 * events)
	w.verify(loads...)
	u.book.requireBounded(t, stats)
	w.requireDenseNumbers()
	u.a.stop()
	u.b.stop()
}

// formatOfContacts is the highest format of processor contacts.
func formatOfContacts(t *testing.T) int32 {
	t.Helper()
	line, err := processors.Find(contacts.Name)
	require.NoError(t, err)
	return line.Format
}

// upgrade is a deployment in which processes of two releases run.
type upgrade struct {
	*world
	rng    *rand.Rand
	book   *book
	old    string // the binary of before; that of now is ""
	client *client
	a, b   *process
}

// prepare makes a process whose release is chosen when it starts.
func (u *upgrade) prepare(name string) *process {
	return u.newProcess(name, []string{"serve"})
}

// begin starts a process of a release and waits until it takes events.
func (u *upgrade) begin(p *process, binary string) {
	u.t.Helper()
	p.binary = binary
	p.start()
	p.waitReady()
}

// replace stops or kills a process and starts one of a release in its place. One that
// leaves partitions alone is not ready, so nothing is waited for.
func (u *upgrade) replace(p *process, binary string) {
	u.t.Helper()
	if u.rng.IntN(3) > 0 {
		p.stop()
	} else {
		u.waitPhase(u.rng)
		p.kill()
		u.book.killed(u.world, p)
	}
	p.binary = binary
	p.start()
	u.waitServing(p)
}

// waitServing waits until a process answers at all.
func (u *upgrade) waitServing(p *process) {
	u.t.Helper()
	done := p.ended()
	u.eventually(p.name+" to serve", func(ctx context.Context) error {
		select {
		case <-done:
			u.t.Fatalf("%s ended by itself:\n%s", p.name, p.tail(40))
		default:
		}
		return get(ctx, p.url+"/v1/health/live")
	})
}

// keepSending sends loads until the test says stop, which returns what was sent.
func (u *upgrade) keepSending() (stop func() (loads []load, events int)) {
	u.client = u.world.client()
	loads := make([]load, 6)
	ctx, cancel := context.WithCancel(u.t.Context())
	group := errgroup.Group{}
	for i := range loads {
		l := &loads[i]
		*l = load{name: fmt.Sprint("upgrade-", i), subjects: 4, senders: 1}
		group.Go(func() error { return l.keepRunning(ctx, u.t.Context(), u.client, sendEvery) })
	}
	return func() ([]load, int) {
		u.t.Helper()
		cancel()
		require.NoError(u.t, group.Wait(), "the load")
		events := 0
		for _, l := range loads {
			events += l.events()
		}
		return loads, events
	}
}

// sendEvery is how long a sender of keepSending waits after a round.
const sendEvery = 50 * time.Millisecond

// keepRunning sends number after number of each subject until told, and then knows how
// many there were.
func (l *load) keepRunning(until, ctx context.Context, c *client, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for until.Err() == nil {
		next := *l
		next.each++
		if err := next.sendFrom(ctx, c, 0, next.each); err != nil {
			return err
		}
		*l = next
		select {
		case <-tick.C:
		case <-until.Done():
		}
	}
	return nil
}

// some waits until a while of the load was accepted from now on.
func (u *upgrade) some() {
	u.t.Helper()
	u.waitAccepted(u.client, int(u.client.accepted.Load())+300)
}

// run runs a command of a release.
func (u *upgrade) run(binary string, into any, args ...string) {
	u.t.Helper()
	if binary == "" {
		binary = hogstreamBinary(u.t)
	}
	cmd := exec.CommandContext(u.ctx(), binary, append([]string{"--json"}, args...)...)
	cmd.Env = append(append(os.Environ(), u.env...), "HOGSTREAM_DATA_DIR="+u.dir)
	if len(u.serving) > 0 {
		cmd.Env = append(cmd.Env, "HOGSTREAM_URL="+u.serving[0].url)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(u.t, cmd.Run(), "hogstream %v: %s", args, &errs)
	if into != nil {
		require.NoError(u.t, json.Unmarshal(out.Bytes(), into), "hogstream %v printed %s", args, &out)
	}
}

// addReceiver has the release of before make the destination.
func (u *upgrade) addReceiver() {
	u.t.Helper()
	r, err := sinktest.New(sinktest.Options{Sequence: bySeq, Script: u.book.script})
	require.NoError(u.t, err)
	url, err := r.Start("127.0.0.1:0")
	require.NoError(u.t, err)
	u.t.Cleanup(r.Close)
	var made struct{ Secret string }
	u.run(u.old, &made, "destinations", "add", url, "--name", "oracle", "--event", "*,event.tracked")
	require.NoError(u.t, r.SetSecrets(made.Secret))
	u.receiver = r
}

// waitLeftAlone waits until a process of before says why it does not go on.
func (u *upgrade) waitLeftAlone(p *process, format int32) {
	u.t.Helper()
	// Refused by the database, or already by itself, where outputs of the newer format wait to
	// be published.
	said := []string{fmt.Sprintf("its state is in format %d", format), fmt.Sprintf("pending outputs are malformed: version %d", format)}
	u.eventually(p.name+" to leave partitions alone", func(ctx context.Context) error {
		text, err := os.ReadFile(p.log)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(string(text), s) }) {
			return fmt.Errorf("its log says none of %q", said)
		}
		if err := get(ctx, p.url+"/v1/health"); err == nil || !strings.Contains(err.Error(), `"processor contacts":{"status":"down"`) {
			return fmt.Errorf("its health does not say so: %w", err)
		}
		return nil
	})
}

// formats are those in which the state of contacts is written.
func (w *world) formats() []int32 {
	w.t.Helper()
	rows, err := storagetest.SQL(w.db).Query(w.ctx(), `SELECT DISTINCT format FROM processor_progress WHERE processor = 'contacts' ORDER BY 1`)
	require.NoError(w.t, err)
	defer rows.Close()
	var all []int32
	for rows.Next() {
		var format int32
		require.NoError(w.t, rows.Scan(&format))
		all = append(all, format)
	}
	require.NoError(w.t, rows.Err())
	return all
}

func (w *world) waitFormat(format int32) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("contacts to be in format %d", format), func(context.Context) error {
		if all := w.formats(); !slices.Equal(all, []int32{format}) {
			return fmt.Errorf("it is in %v", all)
		}
		return nil
	})
}

// requireDenseNumbers says that the records of each contact that have a number have the
// numbers 1, 2, 3… once each, over both topics, and that on each topic they rise and
// follow those that have none.
func (w *world) requireDenseNumbers() {
	t := w.t
	t.Helper()
	numbers := map[string][]int64{}
	for _, topic := range []schemas.Topic{schemas.TopicEvents, schemas.TopicLifecycle} {
		last := map[string]*stream.Record{}
		for _, r := range w.read(topic) {
			contact := string(r.Key)
			if before := last[contact]; before != nil && before.Seq > 0 {
				require.Greater(t, r.Seq, before.Seq, "%s of %s at %d", r.Type, contact, r.Offset)
			}
			last[contact] = r
			if r.Seq > 0 {
				numbers[contact] = append(numbers[contact], r.Seq)
			}
		}
	}
	require.NotEmpty(t, numbers)
	for _, contact := range slices.Sorted(maps.Keys(numbers)) {
		all := numbers[contact]
		slices.Sort(all)
		for i, n := range all {
			require.EqualValues(t, i+1, n, "%s has %v", contact, all)
		}
	}
}

// emptyDatabase leaves the migrations to the test.
func emptyDatabase() worldOption { return func(s *worldSettings) { s.emptyDatabase = true } }

// formerBinary returns the binary of the release of a commit. It is built from the history
// of the repository, once: it stays in bin/.
func formerBinary(t *testing.T, commit string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../bin/former", commit))
	require.NoError(t, err)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if out, err := exec.CommandContext(t.Context(), "git", "cat-file", "-e", commit+"^{commit}").CombinedOutput(); err != nil {
		why := fmt.Sprintf("the history here has no commit %s, the release before (a shallow clone? `git fetch --unshallow` gets all): %v %s", commit, err, out)
		require.False(t, realKafka(), why)
		t.Skip("SKIPPED: " + why)
	}
	source := t.TempDir()
	for _, command := range []string{
		"mkdir -p bin/former && git archive " + commit + " | tar -x -C " + source,
		"cd " + source + " && go build -pgo=off -o " + path + ".new ./cmd/hogstream",
		"mv " + path + ".new " + path, // whole or not at all
	} {
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", command)
		cmd.Dir = ".."
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", command, out)
	}
	return path
}
