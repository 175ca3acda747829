package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/stream/reader"
	"github.com/hogstream/hogstream/stream/replay"
)

type replayCmd struct {
	Run    replayRunCmd    `cmd:"" default:"withargs" help:"Rewind a destination, or backfill it beside its live deliveries; previewed first."`
	Ls     replayLsCmd     `cmd:"" help:"List the backfills of a destination."`
	Watch  replayWatchCmd  `cmd:"" help:"Watch a backfill until it ends."`
	Pause  replayPauseCmd  `cmd:"" help:"Pause a backfill."`
	Resume replayResumeCmd `cmd:"" help:"Resume a backfill."`
	Cancel replayCancelCmd `cmd:"" help:"Cancel a backfill."`
}

type replayRunCmd struct {
	apiFlags
	Destination string   `arg:"" help:"Id or name of the destination."`
	Rewind      bool     `xor:"what" required:"" help:"Have live deliveries go on from --to."`
	Backfill    bool     `xor:"what" required:"" help:"Send the part of the log between --from and --to, beside live deliveries."`
	From        string   `help:"Backfill: where to begin: as --to, which says how places are written." default:"start"`
	To          string   `help:"Rewind: start or earliest, latest, end or now, a time (2026-01-31T12:00:00Z, 2026-01-31, or 36h and 7d ago), or an offset (-10: ten before the end). Backfill: where to end, by default where live stands now."`
	Topic       string   `help:"Rewind: only this topic (lifecycle or events)."`
	Partition   *int32   `help:"Rewind: only this partition."`
	Type        []string `help:"Backfill: only these types. Repeatable."`
	ByKey       []string `name:"contact" help:"Backfill: only these contact ids. Repeatable."`
	Rate        float64  `help:"Backfill: records a second; 0 for no limit of its own."`
	DryRun      bool     `help:"Only preview."`

	SkipUndelivered bool `help:"Rewind: leave out what was not delivered yet and lies before --to; it becomes dead letters."`
	Yes             bool `help:"Do not ask." short:"y"`
	Detach          bool `help:"Backfill: do not wait for its end." short:"d"`
}

// Run previews, asks and acts.
func (c *replayRunCmd) Run(ctx context.Context, out *output) error {
	api, path, err := c.destination(ctx, c.Destination)
	if err != nil {
		return err
	}
	now := time.Now()
	if err := errors.Join(pin("--from", &c.From, now), pin("--to", &c.To, now)); err != nil {
		return err
	}
	if c.Rewind {
		return c.rewind(ctx, out, api, path)
	}
	return c.backfill(ctx, out, api, path)
}

// pin makes of a place one that means the same when it was previewed and asked for; live
// is where a backfill ends.
func pin(flag string, text *string, now time.Time) error {
	if *text == "" || *text == "live" {
		return nil
	}
	at, err := reader.ParsePosition(*text, now)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	*text = at.String()
	return nil
}

func (c *replayRunCmd) rewind(ctx context.Context, out *output, api *client, path string) error {
	if c.To == "" {
		return errors.New("--rewind needs --to: start, latest, a time, how long ago (7d), or an offset")
	}
	if len(c.Type)+len(c.ByKey) > 0 || c.Rate > 0 {
		return errors.New("--type, --contact and --rate are for --backfill: a rewind sends all that the destination subscribes to")
	}
	path += "/rewind"
	body := map[string]any{"to": c.To, "dryRun": true, "skipUndelivered": c.SkipUndelivered}
	if c.Topic != "" {
		body["topic"] = c.Topic
	}
	if c.Partition != nil {
		body["partition"] = *c.Partition
	}
	var r replay.Rewound
	if err := api.call(ctx, "POST", path, nil, body, &r); err != nil {
		return err
	}
	if c.DryRun {
		return out.value(r, func(w io.Writer) { printRewind(w, &r) })
	}
	if !c.Yes {
		printRewind(stderr, &r)
		if err := confirm(ctx, fmt.Sprintf("Rewind %s to %s?", c.Destination, c.To)); err != nil {
			return err
		}
	}
	delete(body, "dryRun")
	if err := api.call(ctx, "POST", path, nil, body, &r); err != nil {
		return err
	}
	return out.value(r, func(w io.Writer) {
		fmt.Fprintf(w, "rewound; %s records are on their way\n", about(r.Records, r.Exact))
		printUndelivered(w, &r, "become")
		next(w, "what it is sent", "destinations deliveries "+c.Destination)
	})
}

func (c *replayRunCmd) backfill(ctx context.Context, out *output, api *client, path string) error {
	if c.SkipUndelivered {
		return errors.New("--skip-undelivered is for --rewind: a backfill leaves nothing out")
	}
	if c.Topic != "" || c.Partition != nil {
		return errors.New("--topic and --partition are for --rewind: narrow a backfill with --type and --contact")
	}
	replays := path + "/replays"
	body := map[string]any{"from": c.From, "rate": c.Rate, "dryRun": true}
	if c.To != "" {
		body["to"] = c.To
	}
	if len(c.Type) > 0 {
		body["types"] = c.Type
	}
	if len(c.ByKey) > 0 {
		body["keys"] = c.ByKey
	}
	var b replay.Backfilled
	if err := api.call(ctx, "POST", replays, nil, body, &b); err != nil {
		return err
	}
	if c.DryRun {
		return out.value(b, func(w io.Writer) { printPreview(w, &b.Preview) })
	}
	if !c.Yes {
		printPreview(stderr, &b.Preview)
		if err := confirm(ctx, fmt.Sprintf("Backfill %s?", c.Destination)); err != nil {
			return err
		}
	}
	delete(body, "dryRun")
	if err := api.call(ctx, "POST", replays, nil, body, &b); err != nil {
		return err
	}
	if c.Detach {
		return out.value(b, func(w io.Writer) { fmt.Fprintf(w, "backfill %s has begun\n", b.Replay.ID) })
	}
	return watch(ctx, out, api, path, c.Destination, b.Replay.ID)
}

// watch draws the progress of a backfill until it ends. Interrupting it leaves the
// backfill as it is.
func watch(ctx context.Context, out *output, api *client, path, destination, id string) error {
	path += "/replays/" + url.PathEscape(id)
	var b replay.Backfill
	if err := api.call(ctx, "GET", path, nil, nil, &b); err != nil {
		return err
	}
	bar := newProgress(max(b.OffsetsTotal, 1), "backfill", false, out.JSON)
	for b.EndedAt == nil {
		_ = bar.Set64(b.OffsetsDone)
		bar.Describe(b.Status + eta(&b) + waiting(&b))
		select {
		case <-ctx.Done():
			fmt.Fprintf(stderr, "\nthe backfill goes on; watch it again with: hogstream replay watch %s %s\n", destination, id)
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		if err := api.call(ctx, "GET", path, nil, nil, &b); err != nil {
			return err
		}
	}
	_ = bar.Set64(b.OffsetsDone)
	_ = bar.Finish()
	return out.value(b, func(w io.Writer) {
		fmt.Fprintf(w, "backfill %s %s: %d of %d offsets in %s\n", b.ID, b.Status, b.OffsetsDone, b.OffsetsTotal, seconds(b.ActiveSeconds))
	})
}

func eta(b *replay.Backfill) string {
	if b.EtaSeconds == nil {
		return ""
	}
	return ", " + seconds(*b.EtaSeconds) + " left"
}

// waiting says what is parked: the backfill ends when it is delivered or given up.
func waiting(b *replay.Backfill) string {
	if b.Parked == 0 {
		return ""
	}
	return fmt.Sprintf(", %d parked", b.Parked)
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}

func about(records int64, exact bool) string {
	if exact {
		return fmt.Sprint(records)
	}
	return fmt.Sprintf("about %d", records)
}

// printRewind says what a rewind would send, and what it would leave out.
func printRewind(w io.Writer, r *replay.Rewound) {
	printPreview(w, &r.Preview)
	printUndelivered(w, r, "would become")
}

func printUndelivered(w io.Writer, r *replay.Rewound, become string) {
	if r.Undelivered > 0 || !r.UndeliveredExact {
		fmt.Fprintf(w, "%s records that are not delivered yet %s dead letters \"skipped\"\n", about(r.Undelivered, r.UndeliveredExact), become)
	}
}

func printPreview(w io.Writer, p *replay.Preview) {
	fmt.Fprintf(w, "%s records, %.1f MiB\n", about(p.Records, p.Exact), float64(p.Bytes)/(1<<20))
	if p.First != nil {
		fmt.Fprintf(w, "appended from %s to %s\n", p.First.Format(time.RFC3339), p.Last.Format(time.RFC3339))
	}
	if p.Rate > 0 {
		fmt.Fprintf(w, "%s at %g records a second\n", seconds(p.Seconds), p.Rate)
	}
	types := slices.SortedFunc(maps.Keys(p.ByType), func(a, b string) int { return int(p.ByType[b] - p.ByType[a]) })
	var rows [][]string
	for _, t := range types {
		rows = append(rows, []string{t, fmt.Sprint(p.ByType[t])})
	}
	if len(rows) > 0 {
		table(w, []string{"type", "records"}, rows)
	}
}

var errNobodyToAsk = errors.New("nobody to ask: add --yes to go on")

// confirm asks the person at the terminal, who may also end ctx with Ctrl-C. Without
// one, --yes is needed.
func confirm(ctx context.Context, question string) error {
	if !somebodyToAsk() {
		return errNobodyToAsk
	}
	fmt.Fprintf(stderr, "%s [y/N] ", question)
	return confirmed(ctx, os.Stdin)
}

// somebodyToAsk says whether a terminal is what is read from.
func somebodyToAsk() bool {
	info, err := os.Stdin.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// confirmed reads the answer. A read cannot be interrupted, so it is left behind when
// ctx ends.
func confirmed(ctx context.Context, from io.Reader) error {
	type said struct {
		text string
		err  error
	}
	answer := make(chan said, 1)
	go func() {
		text, err := bufio.NewReader(from).ReadString('\n')
		answer <- said{strings.ToLower(strings.TrimSpace(text)), err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr)
		return ctx.Err()
	case a := <-answer:
		switch {
		case a.text == "y" || a.text == "yes":
			return nil
		case a.text == "" && a.err != nil:
			return errNobodyToAsk // /dev/null looks like a terminal
		}
		return errors.New("nothing was done")
	}
}

type replayLsCmd struct {
	apiFlags
	Destination string `arg:"" help:"Id or name of the destination."`
}

// Run lists backfills.
func (c *replayLsCmd) Run(ctx context.Context, out *output) error {
	api, path, err := c.destination(ctx, c.Destination)
	if err != nil {
		return err
	}
	var page struct {
		Replays []replay.Backfill `json:"replays"`
	}
	if err := api.call(ctx, "GET", path+"/replays", nil, nil, &page); err != nil {
		return err
	}
	return out.value(page.Replays, func(w io.Writer) {
		var rows [][]string
		for _, b := range page.Replays {
			rows = append(rows, []string{b.ID, b.Status + eta(&b) + waiting(&b), fmt.Sprintf("%.1f%%", 100*b.Progress), b.From, b.To, strings.Join(b.Types, ","), b.CreatedAt.Format(time.RFC3339)})
		}
		table(w, []string{"id", "status", "done", "from", "to", "types", "created"}, rows)
	})
}

// oneReplay names a backfill.
type oneReplay struct {
	apiFlags
	Destination string `arg:"" help:"Id or name of the destination."`
	Replay      string `arg:"" help:"Id of the backfill."`
}

func (c *oneReplay) open(ctx context.Context) (*client, string, error) {
	return c.destination(ctx, c.Destination)
}

func (c *oneReplay) set(ctx context.Context, out *output, verb string) error {
	api, path, err := c.open(ctx)
	if err != nil {
		return err
	}
	var b replay.Backfill
	if err := api.call(ctx, "POST", path+"/replays/"+url.PathEscape(c.Replay)+"/"+verb, nil, nil, &b); err != nil {
		return err
	}
	return out.value(b, func(w io.Writer) { fmt.Fprintf(w, "%s at %.1f%%\n", b.Status, 100*b.Progress) })
}

type replayWatchCmd struct{ oneReplay }

// Run watches a backfill.
func (c *replayWatchCmd) Run(ctx context.Context, out *output) error {
	api, path, err := c.open(ctx)
	if err != nil {
		return err
	}
	return watch(ctx, out, api, path, c.Destination, c.Replay)
}

type replayPauseCmd struct{ oneReplay }

// Run pauses a backfill.
func (c *replayPauseCmd) Run(ctx context.Context, out *output) error { return c.set(ctx, out, "pause") }

type replayResumeCmd struct{ oneReplay }

// Run resumes a backfill.
func (c *replayResumeCmd) Run(ctx context.Context, out *output) error {
	return c.set(ctx, out, "resume")
}

type replayCancelCmd struct{ oneReplay }

// Run cancels a backfill.
func (c *replayCancelCmd) Run(ctx context.Context, out *output) error {
	return c.set(ctx, out, "cancel")
}
