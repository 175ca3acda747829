package hogstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// envChild makes the test binary an instance that dies within a function of a journey; it
// is the data directory. With envBeside it runs beside the instance on that data directory,
// and is one whose functions stand still.
const (
	envChild  = "HOGSTREAM_TEST_CHILD"
	envBeside = "HOGSTREAM_TEST_BESIDE"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envChild); dir != "" {
		var err error
		if beside := os.Getenv(envBeside); beside != "" {
			err = standsStill(dir, beside)
		} else {
			err = dies(dir)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// within is a test that looks at a developer's instance.
func within(t *testing.T, r *hogstream.Running) *erasing {
	t.Helper()
	db, err := pgx.Connect(t.Context(), r.Database)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) })
	return &erasing{t: t, run: r, db: db}
}

// tells waits until each run of a journey, by its key, has this story.
func (e *erasing) tells(want map[string]string) {
	e.t.Helper()
	onTopic(e.t, e.run, schemas.TopicLifecycle, schemas.NewCodec().DecodeFact, func(facts []*schemas.Fact) bool {
		have := stories(facts)
		for key, story := range want {
			if have[key] != story {
				return false
			}
		}
		return true
	})
}

// Functions return, fail, panic, do not return, and run while somebody ends their run or
// has the contact erased: each run has the story that follows, and no other is touched.
func TestFunctionsOfJourneysAreDoneWhateverBecomesOfThem(t *testing.T) {
	began, ended, forever := make(chan string, 10), make(chan error, 10), make(chan struct{})
	defer close(forever)
	code := journeys.Define("work", "1", func(r *journeys.Run) error {
		job := journeys.Job{Attempts: 2, Backoff: time.Millisecond, Timeout: time.Minute}
		if r.Key == "hangs" {
			job = journeys.Job{Attempts: 1, Timeout: 100 * time.Millisecond}
		}
		said, err := journeys.Do(r, "work", job, func(ctx context.Context, a journeys.Attempt) (string, error) {
			switch r.Key {
			case "fails":
				return "", fmt.Errorf("attempt %d failed", a.Number)
			case "panics":
				panic("at the disco")
			case "hangs":
				<-forever
			case "cancelled", "erased":
				began <- r.ID
				<-ctx.Done()
				ended <- context.Cause(ctx)
			}
			return "said " + r.Key, nil
		})
		if err != nil {
			return err
		}
		r.Send("tell", journeys.Event{Name: "worked", Properties: new(journeys.Literal(map[string]any{"said": said}))})
		return nil
	})
	code.Trigger.Records, code.Key, code.EntryLimit = []journeys.Match{{Event: "go"}}, []string{"does"}, journeys.EntryUnlimited
	inDev(t, devConfig(t), func(r *hogstream.Running) {
		e := within(t, r)
		trigger := func(user, does string) {
			e.send("POST", "/v1/events", `{"name":"go","userId":"`+user+`","eventProperties":{"does":"`+does+`"}}`)
		}
		for _, does := range []string{"fails", "panics", "hangs", "returns", "cancelled"} {
			trigger("u1", does)
		}
		e.send("DELETE", "/v1/admin/journeys/work/states/"+<-began, "")
		require.ErrorContains(t, <-ended, "the run does not wait for it any more")
		trigger("u2", "erased")
		<-began
		e.send("DELETE", "/v1/contacts", `{"userId":"u2"}`)
		require.ErrorContains(t, <-ended, "the run does not wait for it any more")
		e.tells(map[string]string{
			"work returns":   "started, step work done, step tell next, completed",
			"work fails":     "started, failed work step work: attempt 2 failed",
			"work panics":    "started, failed work step work: the function panics: at the disco",
			"work hangs":     "started, failed work step work: there was no result within 100ms",
			"work cancelled": "started, exited work cancelled",
		})
		events := onTopic(t, r, schemas.TopicEvents, schemas.NewCodec().DecodeEvent, func(all []*schemas.Event) bool {
			return slices.ContainsFunc(all, func(e *schemas.Event) bool { return e.Name == "worked" })
		})
		for _, event := range events {
			if event.Name == "worked" {
				require.JSONEq(t, `{"said":"said returns"}`, event.Properties)
			}
		}
		e.eventually(func() bool { return e.rows("journey_jobs") == 0 }, func() string { return fmt.Sprint(e.ids(`SELECT row_to_json(j)::text FROM journey_jobs AS j`)) })
	}, hogstream.WithJourneys(code))
}

// A function that does not return holds up all others when no more may run at once. The
// figures that alerts are on say both, though no job is taken meanwhile.
func TestFiguresOfJobsSayThatNoneIsTaken(t *testing.T) {
	began, goOn := make(chan struct{}, 2), make(chan struct{})
	code := journeys.Define("work", "1", func(r *journeys.Run) error {
		_, err := journeys.Do(r, "work", journeys.Job{Attempts: 1, Timeout: 100 * time.Millisecond}, func(context.Context, journeys.Attempt) (int, error) {
			began <- struct{}{}
			<-goOn
			return 1, nil
		})
		return err
	})
	code.Trigger.Records = []journeys.Match{{Event: "go"}}
	cfg := devConfig(t)
	cfg.Data.JourneyJobs = 1
	inDev(t, cfg, func(r *hogstream.Running) {
		e := within(t, r)
		figures := func() string { return string(e.send("GET", "/metrics", "")) }
		e.send("POST", "/v1/events", `{"name":"go","userId":"u1"}`)
		<-began
		require.Contains(t, string(e.send("GET", "/v1/admin/journeys/work/why/u1", "")), `"zone":"UTC"`)
		e.eventually(func() bool { return strings.Contains(figures(), "hogstream_journeys_jobs_stuck 1\n") }, figures)
		e.eventually(func() bool { return strings.Contains(figures(), "hogstream_journeys_jobs_overdue_seconds 0\n") }, figures)
		e.send("POST", "/v1/events", `{"name":"go","userId":"u2"}`)
		e.eventually(func() bool {
			return regexp.MustCompile(`hogstream_journeys_jobs_overdue_seconds [1-9][0-9]*(\.[0-9]+)?\n`).MatchString(figures())
		}, figures)
		require.Empty(t, began)
		close(goOn)
		<-began
		e.eventually(func() bool {
			now := figures()
			return strings.Contains(now, "hogstream_journeys_jobs_overdue_seconds 0\n") && strings.Contains(now, "hogstream_journeys_jobs_stuck 0\n") &&
				strings.Contains(now, `hogstream_journeys_job_attempts_total{journey="work",outcome="done"} 1`)
		}, figures)
	}, hogstream.WithJourneys(code))
}

// charging is a journey whose function writes its key into a file of the data directory, as
// if it charged somebody, and then does what after says.
func charging(dir string, after func(a journeys.Attempt)) journeys.Journey {
	code := journeys.Define("charge", "1", func(r *journeys.Run) error {
		n, err := journeys.Do(r, "charge", journeys.Job{Attempts: 1, Timeout: time.Minute}, func(_ context.Context, a journeys.Attempt) (int, error) {
			f, err := os.OpenFile(filepath.Join(dir, "charges"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				return 0, err
			}
			_, err = fmt.Fprintln(f, a.Key, a.Number)
			if err := errors.Join(err, f.Close()); err != nil {
				return 0, err
			}
			after(a)
			return a.Number, nil
		})
		if err != nil {
			return err
		}
		r.Set("charged", map[string]int{"charged": n})
		return nil
	})
	code.Trigger.Records = []journeys.Match{{Event: "go"}}
	return code
}

// dies runs an instance that kills itself between what a function does and its result.
func dies(dir string) error {
	cfg, err := hogstream.ConfigFromEnv()
	if err != nil {
		return err
	}
	cfg.DataDir, cfg.HTTP.Addr, cfg.HTTP.Port, cfg.Log.Level, cfg.Delivery.Lease = dir, "", 0, "error", 12*time.Second
	return hogstream.RunDev(context.Background(), cfg, func(*hogstream.Running) { fmt.Println("ready") },
		hogstream.WithJourneys(charging(dir, func(journeys.Attempt) { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })))
}

// The process is killed when somebody was charged and before that was kept: after the lease
// the function is called again, with the key that it had, and its result counts once.
func TestAFunctionWhoseProcessDiesIsDoneAgainWithTheSameKey(t *testing.T) {
	cfg := devConfig(t)
	cfg.Delivery.Lease = 12 * time.Second
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env, child.Stderr = append(os.Environ(), envChild+"="+cfg.DataDir), os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	_, err = fmt.Fscanln(out, new(string))
	require.NoError(t, err, "it is ready")
	r, err := hogstream.ReadRunning(cfg.DataDir)
	require.NoError(t, err)
	(&erasing{t: t, run: r}).send("POST", "/v1/events", `{"name":"go","userId":"u1"}`)
	var killed *exec.ExitError
	require.ErrorAs(t, child.Wait(), &killed)
	require.Equal(t, syscall.SIGKILL, killed.Sys().(syscall.WaitStatus).Signal())
	inDev(t, cfg, func(r *hogstream.Running) {
		e := within(t, r)
		e.tells(map[string]string{"charge": "started, step charge done, step charged next, completed"})
		text, err := os.ReadFile(filepath.Join(cfg.DataDir, "charges"))
		require.NoError(t, err)
		run := e.ids(`SELECT run_id::text FROM journey_runs`)[0]
		require.Equal(t, run+"/charge 1\n"+run+"/charge 2\n", string(text))
		e.eventually(func() bool {
			return slices.Equal(e.ids(`SELECT coalesce(properties ->> 'charged', '') FROM contacts`), []string{"2"})
		}, func() string { return strings.Join(e.ids(`SELECT properties::text FROM contacts`), " ") })
		require.Zero(t, e.rows("journey_jobs"))
	}, hogstream.WithJourneys(charging(cfg.DataDir, func(journeys.Attempt) {})))
}

// A process that stops in order waits for a function that runs, and its result is kept.
func TestAStopWaitsForAFunctionThatRuns(t *testing.T) {
	cfg, began, goOn := devConfig(t), make(chan struct{}), make(chan struct{})
	stopped := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	code := charging(cfg.DataDir, func(journeys.Attempt) {
		close(began)
		<-goOn
	})
	go func() {
		stopped <- hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
			(&erasing{t: t, run: r}).send("POST", "/v1/events", `{"name":"go","userId":"u1"}`)
		}, hogstream.WithJourneys(code))
	}()
	<-began
	stop()
	close(goOn)
	require.NoError(t, <-stopped)
	inDev(t, cfg, func(r *hogstream.Running) {
		e := within(t, r)
		e.tells(map[string]string{"charge": "started, step charge done, step charged next, completed"})
		text, err := os.ReadFile(filepath.Join(cfg.DataDir, "charges"))
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(text), "\n"), "it was called once")
	}, hogstream.WithJourneys(charging(cfg.DataDir, func(journeys.Attempt) { panic("nobody is charged twice") })))
}

// standsStill runs an instance beside another. Each attempt at its functions says so, and
// goes on when it is told.
func standsStill(dir, beside string) error {
	r, err := hogstream.ReadRunning(beside)
	if err != nil {
		return err
	}
	cfg, err := hogstream.ConfigFromEnv()
	if err != nil {
		return err
	}
	r.FillIn(&cfg)
	cfg.DataDir, cfg.HTTP.Addr, cfg.HTTP.Port, cfg.Log.Level, cfg.Delivery.Lease = dir, "", 0, "error", 12*time.Second
	cfg.Roles = []hogstream.Role{hogstream.RoleIngest, hogstream.RoleProcessors}
	told := bufio.NewScanner(os.Stdin)
	code := charging(beside, func(a journeys.Attempt) {
		fmt.Println("attempt", a.Number)
		told.Scan()
	})
	code.Key, code.EntryLimit = []string{"n"}, journeys.EntryUnlimited
	return hogstream.RunDev(context.Background(), cfg, func(*hogstream.Running) { fmt.Println("ready") }, hogstream.WithJourneys(code))
}

// besides is an instance beside another.
type besides struct {
	*erasing
	child *exec.Cmd
	tell  io.Writer
}

// startBeside starts an instance beside the one on a data directory. said gets its lines.
func startBeside(t *testing.T, beside string, said func(line string)) *besides {
	dir := reachableDir(t)
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env, child.Stderr = append(os.Environ(), envChild+"="+dir, envBeside+"="+beside), os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	tell, err := child.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "it is ready")
	go func() {
		for lines.Scan() {
			said(lines.Text())
		}
	}()
	r, err := hogstream.ReadRunning(dir)
	require.NoError(t, err)
	return &besides{&erasing{t: t, run: r}, child, tell}
}

// freeze stops the process, and returns when none of its threads runs any more.
func (b *besides) freeze() {
	b.t.Helper()
	require.NoError(b.t, b.child.Process.Signal(syscall.SIGSTOP))
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(b.child.Process.Pid, &status, syscall.WUNTRACED, nil)
		if !errors.Is(err, syscall.EINTR) {
			require.NoError(b.t, err)
			require.True(b.t, status.Stopped())
			return
		}
	}
}

// goOn has the function that stands still return.
func (b *besides) goOn() {
	b.t.Helper()
	_, err := fmt.Fprintln(b.tell, "go on")
	require.NoError(b.t, err)
}

// settled waits until the groups of processors have so many members, and none joins: the
// embedded broker keeps a member for good whose connection ends while it does.
func (e *erasing) settled(members int, processors ...string) {
	e.t.Helper()
	cfg := hogstream.Config{}
	e.run.FillIn(&cfg)
	client, err := kgo.NewClient(kgo.SeedBrokers(cfg.Kafka.Brokers...))
	require.NoError(e.t, err)
	defer client.Close()
	for _, processor := range processors {
		var found kadm.DescribedGroup
		e.eventually(func() bool {
			group := stream.Config{}.Group(processor)
			all, err := kadm.NewClient(client).DescribeGroups(e.t.Context(), group)
			require.NoError(e.t, err)
			found = all[group]
			return found.State == "Stable" && len(found.Members) == members
		}, func() string { return fmt.Sprintf("group of %s: %s of %d", processor, found.State, len(found.Members)) })
	}
}

// Of two processes that have the code, one has a function in hand, and stands still for longer
// than its lease, or is killed: the other one takes the function over. What the first says of
// it when it runs again, while the other is at it, is too late, and nothing comes of it.
func TestAFunctionIsTakenOverByAnotherProcess(t *testing.T) {
	cfg := devConfig(t)
	cfg.Roles = []hogstream.Role{hogstream.RoleIngest}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	require.NoError(t, hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop()
		e := within(t, r)
		type turn struct{ who, attempt int }
		turns := make(chan turn, 10)
		var all [2]*besides
		for who := range all {
			all[who] = startBeside(t, cfg.DataDir, func(line string) {
				var attempt int
				_, _ = fmt.Sscanf(line, "attempt %d", &attempt)
				turns <- turn{who, attempt}
			})
		}
		takenOver := func(n int, fails, again func(first *besides)) {
			e.send("POST", "/v1/events", fmt.Sprintf(`{"name":"go","userId":"u1","eventProperties":{"n":%d}}`, n))
			first := <-turns
			require.Equal(t, 1, first.attempt)
			fails(all[first.who])
			second := <-turns
			require.Equal(t, turn{1 - first.who, 2}, second)
			again(all[first.who])
			all[second.who].goOn()
			e.tells(map[string]string{fmt.Sprintf("charge %d", n): "started, step charge done, step charged next, completed"})
		}
		takenOver(1, (*besides).freeze, func(first *besides) {
			first.goOn()
			require.NoError(t, first.child.Process.Signal(syscall.SIGCONT))
			figures := func() string { return string(first.send("GET", "/metrics", "")) }
			e.eventually(func() bool {
				return strings.Contains(figures(), `hogstream_journeys_job_attempts_total{journey="charge",outcome="lost"} 1`)
			}, figures)
		})
		e.settled(2, "identity", "contacts", "journeys")
		takenOver(2, func(first *besides) { require.NoError(t, first.child.Process.Kill()) }, func(*besides) {})
		e.tells(map[string]string{"charge 1": "started, step charge done, step charged next, completed"})
		text, err := os.ReadFile(filepath.Join(cfg.DataDir, "charges"))
		require.NoError(t, err)
		var want string
		for _, run := range e.ids(`SELECT run_id::text FROM journey_runs ORDER BY entered_at`) {
			want += run + "/charge 1\n" + run + "/charge 2\n"
		}
		require.Equal(t, want, string(text))
		e.eventually(func() bool { return e.rows("journey_jobs") == 0 }, func() string { return fmt.Sprint(e.ids(`SELECT row_to_json(j)::text FROM journey_jobs AS j`)) })
		e.eventually(func() bool {
			return slices.Equal(e.ids(`SELECT coalesce(properties ->> 'charged', '') FROM contacts`), []string{"2"})
		}, func() string { return strings.Join(e.ids(`SELECT properties::text FROM contacts`), " ") })
	}))
}
