package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/examples/shop"
	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/storage"
)

// journeyMoves is what became of a journey over the whole clickstream, up to the last click.
type journeyMoves struct {
	Journey   string           `json:"journey"`
	Triggers  int64            `json:"triggers"`
	Entered   int64            `json:"entered"`
	Skipped   map[string]int64 `json:"skipped"` // triggers, by reason
	Waiting   int64            `json:"waiting"`
	Exited    map[string]int64 `json:"exited"` // by reason
	Completed int64            `json:"completed"`
	Failed    int64            `json:"failed"`
	Mails     map[string]int   `json:"mails"` // that were asked for, by template
	Goal      *goalMoves       `json:"goal,omitempty"`
	Steps     []journeyCounter `json:"steps"`
	Twice     *sideBySide      `json:"sideBySide,omitempty"`
	Live      liveRuns         `json:"live"`

	version string
	graph   []machine.Node
	wrong   []string
}

// goalMoves is how many reached the goal, of those who went through the journey and of those
// who were held out.
type goalMoves struct {
	Treatment reached `json:"treatment"`
	Holdout   reached `json:"holdout"`
	// Lift is by how much the rate of the first is above that of the others, of that.
	Lift float64 `json:"lift"`
}

type reached struct {
	Of      int64   `json:"of"`
	Reached int64   `json:"reached"`
	Rate    float64 `json:"rate"`
}

// sideBySide is two runs of one contact that lived at the same time.
type sideBySide struct {
	UserID string   `json:"userId"`
	Runs   [2]story `json:"runs"`
}

// story is what happened in a run.
type story struct {
	Key   string      `json:"key"`
	Lines []storyLine `json:"lines"`
	last  machine.Change
}

type storyLine struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// followJourneys is what became of each journey, in the order of the set.
func followJourneys(r *rehearsal, events []shop.Event) []journeyMoves {
	changes, standing := map[string][]machine.Change{}, map[string]map[string]int64{}
	stories := map[string]map[string][]story{}
	for contact, state := range r.journeys.States() {
		for _, c := range state.Changes() {
			changes[c.Journey] = append(changes[c.Journey], c)
		}
		r.countStanding(standing, state.Runs())
		tellStories(stories, r.users[contact], state.Changes())
	}
	out := make([]journeyMoves, len(r.set.Journeys))
	for i := range r.set.Journeys {
		j := &r.set.Journeys[i]
		m := countRuns(j, changes[j.ID])
		m.graph = r.programs.Program(j.ID, m.version).Nodes()
		m.Triggers = triggersOf(&j.Journey.Journey, events, r.moved)
		m.Mails = r.mailsOf(j.ID)
		m.check(standing[j.ID])
		if len(j.Key) > 0 {
			m.showTwo(stories[j.ID], &j.Journey.Journey)
		}
		out[i] = m
	}
	return out
}

// countStanding counts the runs that stand at each step, by journey.
func (r *rehearsal) countStanding(standing map[string]map[string]int64, runs []machine.RunInfo) {
	for _, run := range runs {
		if run.Failed {
			continue
		}
		if standing[run.Journey] == nil {
			standing[run.Journey] = map[string]int64{}
		}
		standing[run.Journey][r.programs.Program(run.Journey, run.Version).Nodes()[run.Node].ID]++
	}
}

// countRuns sums what happened to the runs of a journey.
func countRuns(j *definition.JourneyInUse, changes []machine.Change) journeyMoves {
	m := journeyMoves{Journey: j.ID, Skipped: map[string]int64{}, Exited: map[string]int64{}, version: j.Identity()}
	converted := map[string]int64{} // by arm
	for _, c := range journeys.Counts(changes) {
		if c.Step != "" {
			m.Steps = append(m.Steps, journeyCounter{c.Version, c.Step, c.What, c.Detail, c.Arm, c.N})
			continue
		}
		switch c.What {
		case storage.RunStarted:
			m.Entered += c.N
		case storage.RunSkipped:
			m.Skipped[c.Detail] += c.N
		case storage.RunExited:
			m.Exited[c.Detail] += c.N
		case storage.RunCompleted:
			m.Completed += c.N
		case storage.RunFailed:
			m.Failed += c.N
		case storage.RunConverted:
			converted[c.Arm] += c.N
		}
	}
	if j.Holdout > 0 {
		m.Goal = compareArms(reached{Of: m.Entered, Reached: converted[machine.ArmTreatment]}, reached{Of: m.Skipped[machine.SkipHoldout], Reached: converted[machine.ArmHoldout]})
	}
	return m
}

// compareArms compares how many reached the goal of each arm.
func compareArms(treatment, holdout reached) *goalMoves {
	rate := func(r *reached) {
		if r.Of > 0 {
			r.Rate = float64(r.Reached) / float64(r.Of)
		}
	}
	rate(&treatment)
	rate(&holdout)
	g := &goalMoves{Treatment: treatment, Holdout: holdout}
	if holdout.Rate > 0 {
		g.Lift = treatment.Rate/holdout.Rate - 1
	}
	return g
}

// triggersOf counts the records that may begin a journey.
func triggersOf(j *machine.Journey, events []shop.Event, moved []transition) int64 {
	n := int64(0)
	for _, t := range j.Trigger.Records {
		for i := range events {
			if events[i].Name == t.Event {
				n++
			}
		}
		for _, m := range moved {
			if "bucket."+m.what+":"+m.bucket == t.Event {
				n++
			}
		}
	}
	return n
}

// mailsOf counts the mails that a journey asked for.
func (r *rehearsal) mailsOf(journey string) map[string]int {
	out := map[string]int{}
	for _, m := range r.mails {
		if *m.JourneyID == journey {
			out[m.Template]++
		}
	}
	return out
}

// check sums those who wait, and notes which sums do not hold: each trigger enters or is
// skipped; whoever came to a step has gone on, exited, failed or stands there, as the states
// have it; and so with all who entered.
func (j *journeyMoves) check(standing map[string]int64) {
	must := func(what string, got, want int64) {
		if got != want {
			j.wrong = append(j.wrong, fmt.Sprintf("journey %s: %s: %d, not %d", j.Journey, what, got, want))
		}
	}
	for _, s := range stepsOf(j.Steps, j.version, j.graph) {
		must("those who came to step "+s.step, s.came, s.on+standing[s.step]+s.exited+s.failed)
	}
	j.Waiting = sum(standing)
	must("those who entered", j.Entered, j.Waiting+j.Completed+sum(j.Exited)+j.Failed)
	must("triggers", j.Triggers, j.Entered+sum(j.Skipped))
}

func sum(counts map[string]int64) int64 {
	n := int64(0)
	for _, c := range counts {
		n += c
	}
	return n
}

// tellStories adds the runs of a contact to those of each journey, by user id.
func tellStories(stories map[string]map[string][]story, userID string, changes []machine.Change) {
	at := map[string]int{} // of each run, among those of journey and user
	for _, c := range changes {
		if c.Run == "" {
			continue
		}
		if stories[c.Journey] == nil {
			stories[c.Journey] = map[string][]story{}
		}
		of := stories[c.Journey][userID]
		i, known := at[c.Run]
		if !known {
			i = len(of)
			at[c.Run], of = i, append(of, story{Key: c.Key})
		}
		of[i].Lines, of[i].last = append(of[i].Lines, storyLine{c.At, happened(&c)}), c
		stories[c.Journey][userID] = of
	}
}

// happened is a change in words.
func happened(c *machine.Change) string {
	switch c.Kind {
	case machine.Stepped, machine.Converted:
		return c.Step + ": " + c.Outcome
	case machine.Exited:
		return c.Kind + ": " + c.Reason
	}
	return c.Kind
}

// showTwo picks the first two runs of one contact of which the second began while the first
// lived, and of which a record with the key of one ended that one alone: the other completed.
func (j *journeyMoves) showTwo(stories map[string][]story, of *machine.Journey) {
	ended := func(s *story) bool {
		return s.last.Kind == machine.Exited && slices.ContainsFunc(of.ExitOn, func(e machine.Exit) bool { return e.Reason == s.last.Reason })
	}
	for user, runs := range stories {
		for i := range runs[:len(runs)-1] {
			a, b := runs[i], runs[i+1]
			both := b.began().Before(a.last.At) && (ended(&a) && b.last.Kind == machine.Completed || a.last.Kind == machine.Completed && ended(&b))
			if both && (j.Twice == nil || a.began().Before(j.Twice.Runs[0].began())) {
				j.Twice = &sideBySide{user, [2]story{a, b}}
			}
		}
	}
	if j.Twice == nil {
		j.wrong = append(j.wrong, "journey "+j.Journey+": no contact had two runs side by side")
	}
}

// began is when a run did.
func (s *story) began() time.Time { return s.Lines[0].At }

// take takes in what became of journeys.
func (s *demoSummary) take(moves []journeyMoves) {
	s.Journeys = moves
	for i := range moves {
		s.Wrong = append(s.Wrong, moves[i].wrong...)
	}
}

func printJourneyMoves(w io.Writer, moves []journeyMoves) {
	for i := range moves {
		j := &moves[i]
		fmt.Fprintf(w, "\njourney %s, by the time of the clicks\n\n", j.Journey)
		j.printSums(w)
		fmt.Fprintln(w)
		printSteps(w, j.Steps, j.version, j.graph)
		if j.Twice != nil {
			j.Twice.print(w)
		}
	}
}

func (j *journeyMoves) printSums(w io.Writer) {
	rows := [][]string{{"triggers", fmt.Sprint(j.Triggers)}, {"entered", fmt.Sprint(j.Entered)}}
	rows = append(rows, byReason("skipped", j.Skipped)...)
	rows = append(rows, []string{"waiting", fmt.Sprint(j.Waiting)})
	rows = append(rows, byReason("exited", j.Exited)...)
	rows = append(rows, []string{"completed", fmt.Sprint(j.Completed)}, []string{"failed", fmt.Sprint(j.Failed)})
	rows = append(rows, byReason("mails", j.Mails)...)
	if g := j.Goal; g != nil {
		rows = append(rows, []string{"conversions", g.Treatment.String()}, []string{"  held out", g.Holdout.String()},
			[]string{"lift", fmt.Sprintf("%+.1f%%, by chance: these visitors got no mail", 100*g.Lift)})
	}
	live := fmt.Sprintf("%d started; event to journey.started p50 %s, p99 %s", j.Live.Started, j.Live.P50, j.Live.P99)
	table(w, []string{"figure", "value"}, append(rows, []string{"live", live}))
}

// byReason are rows of counts.
func byReason[N int | int64](what string, counts map[string]N) [][]string {
	rows := make([][]string, 0, len(counts))
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		rows = append(rows, []string{what + ": " + reason, fmt.Sprint(counts[reason])})
	}
	return rows
}

func (r reached) String() string {
	return fmt.Sprintf("%d of %d (%.1f%%)", r.Reached, r.Of, 100*r.Rate)
}

// print prints two runs in columns, by time.
func (s *sideBySide) print(w io.Writer) {
	type cell struct {
		storyLine
		column int
	}
	var cells []cell
	for i := range s.Runs {
		for _, l := range s.Runs[i].Lines {
			cells = append(cells, cell{l, i})
		}
	}
	slices.SortStableFunc(cells, func(a, b cell) int { return a.At.Compare(b.At) })
	rows := make([][]string, len(cells))
	for i, c := range cells {
		rows[i] = []string{c.At.Format(time.DateTime), "", ""}
		rows[i][1+c.column] = c.What
	}
	fmt.Fprintf(w, "\ntwo runs of visitor %s\n\n", s.UserID)
	table(w, []string{"time", "visit " + s.Runs[0].Key, "visit " + s.Runs[1].Key}, rows)
}
