package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"
)

type destinationsRotateCmd struct {
	oneDestination
	keyFlags
	Overlap *time.Duration `help:"How long the old secret signs beside the new one; a day when not given, 0s ends it at once."`
	Force   bool           `help:"Rotate although the secret before the present one still signs; it ends at once."`
}

// Run gives it a new secret and prints it, the only time it is shown.
func (c *destinationsRotateCmd) Run(ctx context.Context, out *output) error {
	if err := onceStdin(c.SecretFile, c.SigningKeyFile); err != nil {
		return err
	}
	body := map[string]any{}
	if err := c.add(body); err != nil {
		return err
	}
	if c.Force {
		body["force"] = true
	}
	if c.Overlap != nil {
		body["overlapSeconds"] = int64(c.Overlap.Seconds())
	}
	var r struct {
		ID            string  `json:"id"`
		Secret        string  `json:"secret"`
		SecretPrefix  string  `json:"secretPrefix"`
		PreviousUntil *string `json:"previousSecretUntil"`
	}
	err := c.post(ctx, "rotate-secret", body, &r)
	var refused *apiError
	if errors.As(err, &refused) && refused.Status == http.StatusConflict && !c.Force {
		return fmt.Errorf("%w; --force rotates all the same, and that secret ends at once", err)
	}
	if err != nil {
		return err
	}
	return out.value(r, func(w io.Writer) {
		fmt.Fprintf(w, "secret %s\nKeep it now: it is not shown again.\n", r.Secret)
		if r.PreviousUntil != nil {
			fmt.Fprintf(w, "The old one signs beside it until %s.\n", *r.PreviousUntil)
		} else {
			fmt.Fprintln(w, "The old one no longer signs.")
		}
	})
}

type destinationsTestCmd struct {
	oneDestination
	Record string `arg:"" optional:"" help:"A record of the log: its place as lifecycle-3-1042, or its id. A webhook.test when not given."`
	File   string `help:"A file with a record instead, as a webhook gets it or as \"topics tail --json\" shows it; - for standard input." short:"f" placeholder:"FILE"`
	Send   bool   `help:"Send it, marked by the header Hogstream-Test and under an id of its own."`
}

type sampleRequest struct {
	Result     string            `json:"result"`
	Error      string            `json:"error,omitempty"`
	Method     string            `json:"method,omitempty"`
	URL        string            `json:"url,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Body       string            `json:"body,omitempty"`
	Compressed bool              `json:"compressed,omitempty"`
	Subscribed bool              `json:"subscribed"`
}

type sampleSent struct {
	DeliveryID string        `json:"deliveryId"`
	EventType  string        `json:"eventType"`
	Delivered  bool          `json:"delivered"`
	Verdict    string        `json:"verdict"`
	Status     int           `json:"status"`
	LatencyMS  int64         `json:"latencyMs"`
	Error      string        `json:"error,omitempty"`
	Response   string        `json:"response,omitempty"`
	Request    sampleRequest `json:"request"`
}

// Run shows what a record would be sent as, after filter and transform, or sends it.
func (c *destinationsTestCmd) Run(ctx context.Context, out *output) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	if !c.Send {
		var r sampleRequest
		if err := c.post(ctx, "preview", body, &r); err != nil {
			return err
		}
		return out.value(r, r.print)
	}
	var t sampleSent
	if err := c.post(ctx, "test", body, &t); err != nil {
		return err
	}
	err = out.value(t, func(w io.Writer) {
		t.Request.print(w)
		if t.Request.Result == "sent" {
			fmt.Fprintf(w, "\n%s: %s\n%s\n", t.DeliveryID, outcomeText(t.Verdict, t.Status, t.LatencyMS, t.Error), t.Response)
		}
	})
	if err == nil && !t.Delivered {
		err = fmt.Errorf("not delivered: %s", t.Verdict)
	}
	return err
}

func (c *destinationsTestCmd) body() (map[string]any, error) {
	switch {
	case c.Record != "" && c.File != "":
		return nil, errors.New("give either a record of the log or --file")
	case c.Record != "":
		return map[string]any{"record": c.Record}, nil
	case c.File == "":
		return map[string]any{}, nil
	}
	message, err := readFile(c.File)
	if err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	if !json.Valid(message) {
		return nil, fmt.Errorf("%s: is not one JSON document", c.File)
	}
	return map[string]any{"message": json.RawMessage(message)}, nil
}

// readFile reads a file, or standard input for -.
func readFile(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(path)
}

// print shows a request as it goes over the wire.
func (r *sampleRequest) print(w io.Writer) {
	if !r.Subscribed {
		fmt.Fprintln(w, "(the destination does not subscribe to this type)")
	}
	if r.Result != "sent" {
		fmt.Fprintf(w, "not sent: %s: %s\n", r.Result, r.Error)
		return
	}
	fmt.Fprintf(w, "%s %s\n", r.Method, r.URL)
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		fmt.Fprintf(w, "%s: %s\n", name, r.Headers[name])
	}
	if r.Compressed {
		fmt.Fprint(w, "\n(the body is sent compressed; this is what it holds)")
	}
	fmt.Fprintf(w, "\n%s\n", r.Body)
}
