package main

import (
	"context"
	"fmt"
	"io"

	"github.com/hogstream/hogstream/stream"
)

// oneDestination names a destination.
type oneDestination struct {
	apiFlags
	ID string `arg:"" name:"destination" help:"Id or name of the destination."`
}

// post sends a change of the destination's state.
func (c *oneDestination) post(ctx context.Context, what string, body, result any) error {
	api, path, err := c.destination(ctx, c.ID)
	if err != nil {
		return err
	}
	return api.call(ctx, "POST", path+"/"+what, nil, body, result)
}

type destinationsPauseCmd struct {
	oneDestination
	Reason string `help:"Why; shown with the destination."`
}

// Run pauses a destination.
func (c *destinationsPauseCmd) Run(ctx context.Context, out *output) error {
	var d destination
	if err := c.post(ctx, "pause", map[string]any{"reason": c.Reason}, &d); err != nil {
		return err
	}
	return out.value(d, func(w io.Writer) {
		fmt.Fprintln(w, "paused at its place; nothing is lost before its topics' retention")
	})
}

type destinationsResumeCmd struct {
	oneDestination
	SkipToNow bool `help:"Do not send what was appended meanwhile."`
}

// Run resumes a destination.
func (c *destinationsResumeCmd) Run(ctx context.Context, out *output) error {
	var d destination
	if err := c.post(ctx, "resume", map[string]any{"skipToNow": c.SkipToNow}, &d); err != nil {
		return err
	}
	return out.value(d, func(w io.Writer) { fmt.Fprintln(w, "active") })
}

type destinationsSkipCmd struct {
	oneDestination
	Yes bool `help:"Do not ask." short:"y"`
}

// Run has a destination go on from now.
func (c *destinationsSkipCmd) Run(ctx context.Context, out *output) error {
	if !c.Yes {
		if err := confirm(ctx, fmt.Sprintf("Leave out what %s has not been sent yet?", c.ID)); err != nil {
			return err
		}
	}
	var r stream.Rewound
	if err := c.post(ctx, "skip", nil, &r); err != nil {
		return err
	}
	return out.value(r, func(w io.Writer) {
		var n int64
		for _, m := range r.Positions {
			n += m.To - m.From
		}
		fmt.Fprintf(w, "skipped %d offsets\n", n)
	})
}
