package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/examples/shop"
	machine "github.com/hogstream/hogstream/journeys"
)

// TestEveryRunOfTheShopsJourneysIsThatOfAPlainLoopOverTheSameClicks compares the rehearsal,
// all its runs, skips, goals and mails with their times, with loops that share no code with
// it: over the clicks, and the transitions of buckets that SQL computes.
func TestEveryRunOfTheShopsJourneysIsThatOfAPlainLoopOverTheSameClicks(t *testing.T) {
	events, err := shop.Events()
	require.NoError(t, err)
	r, err := rehearseShop(events)
	require.NoError(t, err)
	got := rehearsedLines(r)
	slices.Sort(got)

	p := &plain{horizon: events[len(events)-1].Time, clicks: map[string][]shop.Event{}, entered: map[string][]time.Time{}}
	p.berlin, err = time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for _, e := range events {
		p.clicks[e.UserID] = append(p.clicks[e.UserID], e)
	}
	p.readTransitions(t, computeTransitions(t, events))
	for user := range p.clicks {
		p.abandonedCart(user)
		p.cartOfAVisit(user)
	}
	slices.Sort(p.lines)
	require.Equal(t, p.lines, got)

	moves := followJourneys(r, events)
	require.Len(t, moves, 2)
	for i := range moves {
		require.Empty(t, moves[i].wrong)
		require.Equal(t, p.sums(moves[i].Journey), sumsOf(&moves[i]))
	}
	cart, visits := moves[0], moves[1]
	require.Equal(t, []int64{2436, 2021, 58, 606, 1357}, []int64{cart.Triggers, cart.Entered, cart.Waiting, cart.Exited["paid"], cart.Completed})
	require.Equal(t, []string{"620 of 2021 (30.7%)", "73 of 255 (28.6%)"}, []string{cart.Goal.Treatment.String(), cart.Goal.Holdout.String()})
	require.InDelta(t, (620./2021-73./255)/(73./255), cart.Goal.Lift, 1e-9)
	require.Equal(t, []int64{2842, 2457, 21, 706, 885}, []int64{visits.Triggers, visits.Entered, visits.Waiting, visits.Exited["paid"], visits.Completed})
	two := visits.Twice.Runs
	require.True(t, two[0].began().Before(two[1].began()) && two[1].began().Before(two[0].last.At), "both live at once")
}

func TestTheDemoNamesTheSumsOfJourneysThatDoNotHold(t *testing.T) {
	events, err := shop.Events()
	require.NoError(t, err)
	events = events[:3000]
	r, err := rehearseShop(events)
	require.NoError(t, err)
	cart := followJourneys(r, events)[0]
	require.Empty(t, cart.wrong)
	standing := map[string]int64{}
	for _, s := range stepsOf(cart.Steps, cart.version, cart.graph) {
		standing[s.step] = s.standing
	}
	standing["days"]++
	cart.check(standing)
	require.Len(t, cart.wrong, 2)
	require.Contains(t, cart.wrong[0], "journey abandoned-cart: those who came to step days: ")
	require.Contains(t, cart.wrong[1], "journey abandoned-cart: those who entered: ")
	cart.wrong = nil
	standing["days"]--
	cart.Triggers++
	cart.check(standing)
	require.Len(t, cart.wrong, 1)
	require.Contains(t, cart.wrong[0], "journey abandoned-cart: triggers: ")
}

func TestVisitsAreHalfAnHourApart(t *testing.T) {
	at := time.Date(2020, 1, 1, 12, 0, 0, 0, time.UTC)
	click := func(user string, after time.Duration) shop.Event {
		return shop.Event{UserID: user, Time: at.Add(after)}
	}
	require.Equal(t, []int{1, 1, 1, 2, 2}, visitsOf([]shop.Event{
		click("a", 0), click("b", time.Minute), click("a", 30*time.Minute-1), click("a", time.Hour-1), click("b", time.Hour),
	}))
}

// rehearsedLines is what happened in the rehearsal, a line each.
func rehearsedLines(r *rehearsal) []string {
	var lines []string
	for contact, state := range r.journeys.States() {
		user := r.users[contact]
		for _, c := range state.Changes() {
			switch c.Kind {
			case machine.Stepped: // those that send are there as mails, the others by when those came
			case machine.Converted:
				lines = append(lines, runLine(c.Journey, user, c.Key, c.Kind, c.Arm, c.At))
			default:
				lines = append(lines, runLine(c.Journey, user, c.Key, c.Kind, c.Reason, c.At))
			}
		}
		for _, run := range state.Runs() {
			step := r.programs.Program(run.Journey, run.Version).Nodes()[run.Node].ID
			lines = append(lines, runLine(run.Journey, user, run.Key, "waiting", step, run.Due))
		}
	}
	for _, m := range r.mails {
		key := strings.TrimSuffix(strings.TrimPrefix(m.Props, `{"visit":`), "}")
		if m.Props == "{}" {
			key = ""
		}
		lines = append(lines, runLine(*m.JourneyID, r.users[m.ContactID], key, "mail", m.Template, m.OccurredAt))
	}
	return lines
}

func runLine(journey, user, key, what, detail string, at time.Time) string {
	return fmt.Sprintf("%s %s %q %s %q %s", journey, user, key, what, detail, at.UTC().Format("2006-01-02T15:04:05.000000"))
}

// plain does by hand what the definitions of the shop's journeys say.
type plain struct {
	horizon time.Time
	berlin  *time.Location
	clicks  map[string][]shop.Event // by visitor
	entered map[string][]time.Time  // into cart-abandoned, by visitor
	lines   []string
}

func (p *plain) readTransitions(t *testing.T, lines []string) {
	for _, l := range lines {
		words := strings.Fields(l)
		if words[0] == "cart-abandoned" && words[3] == "entered" {
			at, err := time.Parse("2006-01-02T15:04:05.000000", words[2])
			require.NoError(t, err)
			p.entered[words[1]] = append(p.entered[words[1]], at)
		}
	}
	for _, entered := range p.entered {
		slices.SortFunc(entered, time.Time.Compare)
	}
}

// tell notes what happens until the horizon, and says whether it does.
func (p *plain) tell(journey, user, key, what, detail string, at time.Time) bool {
	if at.After(p.horizon) {
		return false
	}
	p.lines = append(p.lines, runLine(journey, user, key, what, detail, at))
	return true
}

// wait tells that a run waits beyond the horizon.
func (p *plain) wait(journey, user, key, step string, due time.Time) {
	p.lines = append(p.lines, runLine(journey, user, key, "waiting", step, due))
}

// sendable is the first instant from t on at which a clock in Berlin shows from nine until
// before twenty.
func (p *plain) sendable(t time.Time) time.Time {
	for {
		if hour := t.In(p.berlin).Hour(); hour >= 9 && hour < 20 {
			return t
		}
		t = t.Truncate(time.Minute).Add(time.Minute)
	}
}

// payment is the first one after t.
func (p *plain) payment(user string, t time.Time) (time.Time, bool) {
	for _, c := range p.clicks[user] {
		if c.Name == "payment_done" && c.Time.After(t) {
			return c.Time, true
		}
	}
	return time.Time{}, false
}

// isHeldOut: the first 64 bits of a hash are a number, of which the lowest tenth is held out.
func isHeldOut(user string) bool {
	hash := sha256.Sum256([]byte(contactOf(user) + "\x00abandoned-cart\x00holdout"))
	return float64(binary.BigEndian.Uint64(hash[:8])) < 0.1*(1<<64)
}

func (p *plain) abandonedCart(user string) {
	const journey, week = "abandoned-cart", 7 * 24 * time.Hour
	var last time.Time
	for _, at := range p.entered[user] {
		if !last.IsZero() && at.Before(last.Add(week)) {
			p.tell(journey, user, "", "skipped", "period_not_elapsed", at)
			continue
		}
		last = at
		arm := "treatment"
		if isHeldOut(user) {
			arm = "holdout"
		}
		if paid, ever := p.payment(user, at); ever && !paid.After(at.Add(week)) {
			p.tell(journey, user, "", "converted", arm, paid)
		}
		if arm == "holdout" {
			p.tell(journey, user, "", "skipped", "holdout", at)
			continue
		}
		p.tell(journey, user, "", "started", "", at)
		p.remind(user, at)
	}
}

// remind is what a run of abandoned-cart does.
func (p *plain) remind(user string, began time.Time) {
	const journey = "abandoned-cart"
	paid, ever := p.payment(user, began)
	first := p.sendable(began.Add(4 * time.Hour))
	if ever && !paid.After(first) {
		p.tell(journey, user, "", "exited", "paid", paid)
		return
	}
	if !p.tell(journey, user, "", "mail", "cart-reminder", first) {
		p.wait(journey, user, "", "hours", first)
		return
	}
	second := p.sendable(first.Add(48 * time.Hour))
	if ever && !paid.After(second) {
		p.tell(journey, user, "", "exited", "paid", paid)
		return
	}
	if !p.tell(journey, user, "", "mail", "cart-last-call", second) {
		p.wait(journey, user, "", "days", second)
		return
	}
	p.tell(journey, user, "", "completed", "", second)
}

func (p *plain) cartOfAVisit(user string) {
	for i, visit := range p.visits(user) {
		began := slices.IndexFunc(visit, func(e shop.Event) bool { return e.Name == "cart" })
		if began < 0 {
			continue
		}
		key := fmt.Sprint(i + 1)
		p.tell("cart-of-a-visit", user, key, "started", "", visit[began].Time)
		for _, e := range visit[began+1:] {
			if e.Name == "cart" {
				p.tell("cart-of-a-visit", user, key, "skipped", "already_entered_once", e.Time)
			}
		}
		p.ask(user, key, visit[began].Time, visit[began+1:])
	}
}

// visits are the clicks of a visitor, cut where nothing happened for half an hour.
func (p *plain) visits(user string) [][]shop.Event {
	var out [][]shop.Event
	for i, e := range p.clicks[user] {
		if i == 0 || !e.Time.Before(p.clicks[user][i-1].Time.Add(30*time.Minute)) {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], e)
	}
	return out
}

// ask is what a run of cart-of-a-visit does.
func (p *plain) ask(user, key string, began time.Time, clicks []shop.Event) {
	const journey = "cart-of-a-visit"
	step, due := "delivery", began.Add(time.Hour)
	for _, e := range clicks {
		switch {
		case e.Time.After(due):
		case e.Name == "payment_done":
			p.tell(journey, user, key, "exited", "paid", e.Time)
			return
		case e.Name == "delivery_choice" && step == "delivery":
			step, due = "day", e.Time.Add(24*time.Hour)
		}
	}
	switch {
	case due.After(p.horizon):
		p.wait(journey, user, key, step, due)
	case step == "delivery":
		p.tell(journey, user, key, "exited", "no-delivery", due)
	default:
		p.tell(journey, user, key, "mail", "what-was-in-the-way", due)
		p.tell(journey, user, key, "completed", "", due)
	}
}

// sums counts the lines of a journey by what they say.
func (p *plain) sums(journey string) map[string]int64 {
	out := map[string]int64{}
	for _, l := range p.lines {
		words := strings.Fields(l)
		if words[0] == journey {
			detail := words[4]
			if words[3] == "waiting" {
				detail = `""`
			}
			out[words[3]+" "+strings.Trim(detail, `"`)]++
		}
	}
	return out
}

// sumsOf are the figures of the demo in the same words.
func sumsOf(j *journeyMoves) map[string]int64 {
	out := map[string]int64{"started ": j.Entered, "waiting ": j.Waiting, "completed ": j.Completed, "failed ": j.Failed}
	for reason, n := range j.Skipped {
		out["skipped "+reason] = n
	}
	for reason, n := range j.Exited {
		out["exited "+reason] = n
	}
	for template, n := range j.Mails {
		out["mail "+template] = int64(n)
	}
	if j.Goal != nil {
		out["converted treatment"], out["converted holdout"] = j.Goal.Treatment.Reached, j.Goal.Holdout.Reached
	}
	for what, n := range out {
		if n == 0 {
			delete(out, what)
		}
	}
	return out
}
