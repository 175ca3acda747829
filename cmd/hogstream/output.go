package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
)

// output prints a command's result: one JSON document (or one a line for
// streams) with --json, else text for people.
type output struct {
	JSON bool
	W    io.Writer
}

// value prints v as JSON, or calls human.
func (o *output) value(v any, human func(w io.Writer)) error {
	if !o.JSON {
		human(o.W)
		return nil
	}
	enc := json.NewEncoder(o.W)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// next says what a person may want to do then: a command of this program.
func next(w io.Writer, what, command string) {
	fmt.Fprintf(w, "\nNext, %s:\n\n  %s %s\n", what, programName(), command)
}

// showJSON prints an answer as it is: what has many fields is read best so.
func showJSON(ctx context.Context, out *output, api *client, path string, query url.Values) error {
	var answer json.RawMessage
	if err := api.call(ctx, "GET", path, query, nil, &answer); err != nil {
		return err
	}
	return (&output{JSON: true, W: out.W}).value(answer, nil)
}

// line prints v as one line of JSON, or the text.
func (o *output) line(v any, text string) error {
	if !o.JSON {
		_, err := fmt.Fprintln(o.W, text)
		return err
	}
	enc := json.NewEncoder(o.W)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints rows under a header, aligned, each text on one line and not wider than a
// column may be; --json has them whole.
func table(w io.Writer, header []string, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ToUpper(strings.Join(header, "\t")))
	for _, r := range rows {
		cells := make([]string, len(r))
		for i, text := range r {
			cells[i] = cell(text)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	_ = tw.Flush()
}

// onTerminal says whether a person looks at stderr.
func onTerminal() bool {
	info, err := os.Stderr.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
