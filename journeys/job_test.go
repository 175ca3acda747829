package journeys_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schedule"
	"github.com/hogstream/hogstream/schemas"
)

// task is the job in hand of the contact's last job.
func (s *stage) task() (*journeys.Task, journeys.JobRef) {
	s.t.Helper()
	job := s.jobs[len(s.jobs)-1]
	before := bytesOf(s.t, &s.s)
	task, err := s.m.Program(job.Journey, job.Version).Task(&s.s, job.JobRef)
	require.NoError(s.t, err)
	require.Equal(s.t, before, bytesOf(s.t, &s.s))
	return task, job.JobRef
}

// works does the last job as a worker does, and tells the machine; time stands still.
func (s *stage) works() (attempts int) {
	s.t.Helper()
	task, ref := s.task()
	for {
		attempts++
		result, err := task.Attempt(s.t.(*testing.T).Context(), attempts)
		if err != nil {
			if _, again := task.Again(attempts, err); again {
				continue
			}
		}
		s.done(ref, result, err)
		return attempts
	}
}

func (s *stage) done(ref journeys.JobRef, result string, failure error) {
	s.t.Helper()
	c := journeys.Command{What: journeys.CommandDone, Run: ref.Run, Epoch: ref.Epoch, Result: result, Contact: s.contact}
	if failure != nil {
		c.Error = failure.Error()
	}
	s.command(c)
}

type charge struct {
	ID    string
	Cents int
}

// What a function returned is what Do returns whenever the code is run again, and the
// function is not called for it; each attempt at a step has the same key, other steps another.
func TestAFunctionIsDoneOnceForItsResult(t *testing.T) {
	var keys []string
	s := codeStage(t, coded("1", func(r *journeys.Run) error {
		c, err := journeys.Do(r, "charge", journeys.Job{Input: r.Trigger}, func(_ context.Context, a journeys.Attempt) (charge, error) {
			if keys = append(keys, a.Key); a.Number < 3 {
				return charge{}, errors.New("try again")
			}
			return charge{"c" + r.Trigger, 500}, nil
		})
		if err != nil {
			return err
		}
		r.Wait("a day", schedule.Until{After: day})
		id, err := journeys.Do(r, "tell", journeys.Job{}, func(_ context.Context, a journeys.Attempt) (string, error) {
			keys = append(keys, a.Key)
			return c.ID, nil
		})
		if err != nil {
			return err
		}
		r.Set("told", map[string]any{"told": id})
		return nil
	}))
	s.event("start", `{"n":1}`)
	run := s.s.Runs()[0]
	require.Equal(t, []journeys.JobBegun{{JobRef: journeys.JobRef{Run: run.ID, Epoch: 1}, Journey: "j", Version: "1", Step: "charge"}}, s.jobs)
	require.True(t, run.Waiting)
	require.True(t, s.due.IsZero(), "nothing is due: the worker says when")
	s.pass(30 * day)
	require.Equal(t, 3, s.works())
	require.Equal(t, []journeys.JobRef{{Run: run.ID, Epoch: 1}}, s.over)
	s.pass(day)
	require.Equal(t, 1, s.works())
	s.tells("started", "step charge done", "step a day next", "step tell done", "step told next", "completed")
	require.Equal(t, run.ID+"/charge", keys[0])
	require.Equal(t, []string{keys[0], keys[0], keys[0], run.ID + "/tell"}, keys)
	require.JSONEq(t, `{"told":"c{\"n\":1}"}`, *sent[*schemas.Input](s)[0].ContactProperties)
}

// What comes late, twice, or of a run that has ended is stale.
func TestAResultThatNobodyWaitsForIsStale(t *testing.T) {
	j := coded("1", func(r *journeys.Run) error {
		if _, err := journeys.Do(r, "ask", journeys.Job{}, func(context.Context, journeys.Attempt) (int, error) { return 1, nil }); err != nil {
			return err
		}
		_, err := journeys.Do(r, "ask again", journeys.Job{}, func(context.Context, journeys.Attempt) (int, error) { return 2, nil })
		return err
	})
	j.ExitOn = []journeys.Exit{{Match: journeys.Match{Event: "gone"}}}
	s := codeStage(t, j)
	s.event("start", `{}`)
	first := s.jobs[0].JobRef
	s.works()
	s.done(first, "1", nil)
	s.tells("started", "step ask done")
	require.Len(t, s.jobs, 2)
	s.event("gone", `{}`)
	second := s.jobs[1].JobRef
	require.Equal(t, []journeys.JobRef{first, first, second}, s.over, "what is over is removed, also when it is told again")
	s.done(second, "2", nil)
	s.tells("started", "step ask done", "exited ask again gone")
	_, err := s.m.Program("j", "1").Task(&s.s, second)
	require.ErrorIs(t, err, journeys.ErrNoTask)

	// It is told to the contact that the run's was merged into, which has not heard of that yet.
	before := len(s.over)
	s.command(journeys.Command{What: journeys.CommandDone, Run: second.Run, Epoch: 2, Contact: "0192f000-0000-7000-8000-0000000000ff"})
	require.Len(t, s.over, before)
}

// A run goes with its contact, and its job is told to the survivor.
func TestAJobGoesOnWithTheContactThatTheRunWasMergedInto(t *testing.T) {
	s := codeStage(t, coded("1", func(r *journeys.Run) error {
		_, err := journeys.Do(r, "ask", journeys.Job{}, func(context.Context, journeys.Attempt) (int, error) { return 1, nil })
		return err
	}))
	loser := s.another()
	loser.event("start", `{}`)
	s.merge(loser)
	s.jobs = loser.jobs
	s.works()
	s.tells("step ask done", "completed")
}

// When no attempt is left the run fails at the step, and tried again the step begins anew,
// with the key that it had.
func TestAFunctionThatFailsFailsItsStep(t *testing.T) {
	broken, keys := true, map[string]int{}
	s := codeStage(t, coded("1", func(r *journeys.Run) error {
		_, err := journeys.Do(r, "ask", journeys.Job{Attempts: 2}, func(_ context.Context, a journeys.Attempt) (int, error) {
			if keys[a.Key]++; broken {
				panic("at the disco")
			}
			return 1, nil
		})
		return err
	}))
	s.event("start", `{}`)
	require.Equal(t, 2, s.works())
	s.tells("started", "failed ask step ask: the function panics: at the disco")
	run := s.s.Runs()[0]
	require.True(t, run.Failed)
	broken, s.effects = false, nil
	s.command(journeys.Command{What: journeys.CommandRetry, Run: run.ID})
	require.Equal(t, int64(2), s.jobs[1].Epoch)
	require.Equal(t, 1, s.works())
	s.tells("step ask retried", "step ask done", "completed")
	require.Equal(t, map[string]int{run.ID + "/ask": 3}, keys)
}

// With DoContinue, and of a step that somebody has skipped, the code is told.
func TestCodeGoesOnWithoutAResult(t *testing.T) {
	var came error
	s := codeStage(t, coded("1", func(r *journeys.Run) error {
		_, came = journeys.Do(r, "ask", journeys.Job{Failed: journeys.DoContinue}, func(context.Context, journeys.Attempt) (int, error) {
			return 0, journeys.Permanent(errors.New("no such card"))
		})
		r.Email("sorry", journeys.Email{Template: "sorry"})
		return nil
	}))
	s.event("start", `{}`)
	require.Equal(t, 1, s.works(), "trying again would come to the same")
	require.EqualError(t, came, "no such card")
	s.tells("started", "step ask failed", "step sorry next", "completed")
	s.effects = nil
	s.event("start", `{}`)
	s.command(journeys.Command{What: journeys.CommandSkip, Run: s.s.Runs()[0].ID})
	require.ErrorIs(t, came, journeys.ErrSkipped)
	s.tells("started", "step ask skipped", "step sorry next", "completed")
	require.Len(t, s.over, 2)
}

// Another input, and another type of the result, are other code.
func TestAFunctionIsComparedByItsInputAndItsResult(t *testing.T) {
	does := func(input any, text bool) journeys.Journey {
		return coded("1", func(r *journeys.Run) error {
			var err error
			if text {
				_, err = journeys.Do(r, "ask", journeys.Job{Input: input}, func(context.Context, journeys.Attempt) (string, error) { return "a", nil })
			} else {
				_, err = journeys.Do(r, "ask", journeys.Job{Input: input}, func(context.Context, journeys.Attempt) (int, error) { return 7, nil })
			}
			r.Wait("a day", schedule.Until{After: day})
			return err
		})
	}
	s := codeStage(t, does(1, false))
	s.event("start", `{}`)
	s.code(does(2, false))
	_, err := s.m.Program("j", "1").Task(&s.s, s.jobs[0].JobRef)
	require.EqualError(t, err, `the code is not as it was: the run is at do "ask" 1, and the code asks for do "ask" 2`)
	s.done(s.jobs[0].JobRef, "7", nil)
	s.tells("started", `failed ask the code is not as it was: the run is at do "ask" 1, and the code asks for do "ask" 2`)
	require.NotEmpty(t, s.over)

	s = codeStage(t, does(1, false))
	s.event("start", `{}`)
	s.works()
	s.code(does(1, true))
	s.pass(2 * day)
	require.Contains(t, s.story(), `failed a day the code is not as it was: step "ask" came to 7, and the code reads a string`)
}

// What a function must not do, and what no job may be, is said.
func TestWhatIsWrongWithAFunctionIsSaid(t *testing.T) {
	for want, does := range map[string]func(r *journeys.Run) (string, error){
		"the function asks for a step: steps stand beside it": func(r *journeys.Run) (string, error) {
			r.Email("hello", journeys.Email{Template: "hello"})
			return "", nil
		},
		"the result is 20 KiB long: return at most 16 KiB": func(*journeys.Run) (string, error) { return strings.Repeat("x", 20<<10), nil },
	} {
		s := codeStage(t, coded("1", func(r *journeys.Run) error {
			_, err := journeys.Do(r, "ask", journeys.Job{}, func(context.Context, journeys.Attempt) (string, error) { return does(r) })
			return err
		}))
		s.event("start", `{}`)
		require.Equal(t, 1, s.works())
		require.Contains(t, s.story(), "failed ask step ask: "+want)
	}
	for want, job := range map[string]journeys.Job{
		"do.timeout: is 2h0m0s: write up to 1h0m0s":          {Timeout: 2 * time.Hour},
		"do.backoff: is -1s":                                 {Backoff: -time.Second},
		"do.attempts: are 101: write up to 100":              {Attempts: 101},
		`do.failed: "again" is not known`:                    {Failed: "again"},
		"the Input of a job is no JSON: json: unsupported t": {Input: func() {}},
	} {
		s := codeStage(t, coded("1", func(r *journeys.Run) error {
			_, err := journeys.Do(r, "ask", job, func(context.Context, journeys.Attempt) (int, error) { return 0, nil })
			return err
		}))
		s.event("start", `{}`)
		require.Contains(t, s.story(), want)
		require.Empty(t, s.jobs)
	}
}

// The pause is doubled, an hour at most, and an attempt whose process died is one.
func TestPausesOfAJobAreDoubled(t *testing.T) {
	s := codeStage(t, coded("1", func(r *journeys.Run) error {
		_, err := journeys.Do(r, "ask", journeys.Job{Attempts: 30, Backoff: 10 * time.Second, Timeout: time.Minute}, func(context.Context, journeys.Attempt) (int, error) { return 0, nil })
		return err
	}))
	s.event("start", `{}`)
	task, _ := s.task()
	require.Equal(t, time.Minute, task.Timeout())
	fault := errors.New("no")
	for number, want := range map[int]time.Duration{1: 10 * time.Second, 2: 20 * time.Second, 9: 2560 * time.Second, 10: time.Hour, 29: time.Hour} {
		pause, again := task.Again(number, fault)
		require.True(t, again)
		require.Equal(t, want, pause, number)
	}
	for _, number := range []int{30, 31, 500} {
		_, again := task.Again(number, fault)
		require.False(t, again)
	}
}
