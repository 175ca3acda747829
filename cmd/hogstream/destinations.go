package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/predicate"
)

type destinationsCmd struct {
	Add  destinationsAddCmd  `cmd:"" help:"Add a destination; the next record is delivered to it."`
	Ls   destinationsLsCmd   `cmd:"" help:"List destinations."`
	Show destinationsShowCmd `cmd:"" help:"Show all settings of a destination."`
	Set  destinationsSetCmd  `cmd:"" help:"Change settings of a destination."`
	Rm   destinationsRmCmd   `cmd:"" help:"Remove a destination."`

	Rotate destinationsRotateCmd `cmd:"" help:"Make a new secret; the old one signs beside it for a while."`
	Test   destinationsTestCmd   `cmd:"" help:"Show the request that a record would be sent as; with --send, send it as a test."`

	Pause      destinationsPauseCmd      `cmd:"" help:"Stop deliveries at their place."`
	Resume     destinationsResumeCmd     `cmd:"" help:"Go on after a pause or a suspension."`
	Skip       destinationsSkipCmd       `cmd:"" help:"Go on from now; what was not sent yet becomes dead letters, when you say so."`
	Deliveries destinationsDeliveriesCmd `cmd:"" help:"Search the delivery log, newest first."`
	Redeliver  destinationsRedeliverCmd  `cmd:"" help:"Deliver one record again now."`
}

type destination struct {
	ID             string          `json:"id"`
	Name           string          `json:"name"`
	URL            string          `json:"url"`
	Kind           string          `json:"kind"`
	Description    *string         `json:"description"`
	EventTypes     []string        `json:"eventTypes"`
	Secret         string          `json:"secret,omitempty"`
	SecretPrefix   *string         `json:"secretPrefix"`
	PublicKey      *string         `json:"publicKey"`
	Config         json.RawMessage `json:"config"`
	Status         string          `json:"status"`
	State          string          `json:"state"`
	StateReason    string          `json:"stateReason,omitempty"`
	PreviousUntil  *string         `json:"previousSecretUntil,omitempty"`
	LastDeliveryAt *string         `json:"lastDeliveryAt"`
	Failures       int64           `json:"failures"`
	Circuit        string          `json:"circuit"`
	Lag            *int64          `json:"lag"`
	Stopped        []stoppedCursor `json:"stopped"`
	LastError      *string         `json:"lastError"`
	LastErrorAt    *string         `json:"lastErrorAt"`
	CreatedAt      string          `json:"createdAt"`
}

// stoppedCursor is where a destination waits for an operator.
type stoppedCursor struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Position  int64  `json:"position"`
	ReplayID  string `json:"replayId,omitempty"`
	Why       string `json:"why"`
	Mend      string `json:"mend"`
}

// settingsFlags are the settings that a destination may be made with or get.
type settingsFlags struct {
	Description  *string        `help:"What it is for."`
	Config       string         `help:"Settings of the kind, a JSON object, without secrets: it stands in the shell's history. Where it is shown as ***, the stored value stays."`
	ConfigFile   string         `help:"A file with the settings of the kind, for those that hold a key; - for standard input." placeholder:"FILE"`
	Filter       *string        `help:"jq: what it does not say true to is not sent; empty for none."`
	Select       string         `help:"Instead of --filter, a condition on records, in YAML or JSON: {event: order.completed, where: {amount: {gt: 100}}, bucket: keen}."`
	Transform    *string        `help:"jq: makes what is sent."`
	RateLimit    *float64       `help:"Requests a second, 0 for no limit."`
	Concurrency  *int           `help:"Requests in flight in each process, 0 for the default."`
	RetryHorizon *time.Duration `help:"How long a record is retried, 0 for the default."`
	DeliveryLog  *string        `help:"all, failures or off."`
}

// body is what of them was given.
func (f *settingsFlags) body() (map[string]any, error) {
	body := map[string]any{}
	give(body, "description", f.Description)
	give(body, "filter", f.Filter)
	give(body, "transform", f.Transform)
	give(body, "rateLimit", f.RateLimit)
	give(body, "concurrency", f.Concurrency)
	give(body, "deliveryLog", f.DeliveryLog)
	if f.RetryHorizon != nil {
		body["retryHorizonSeconds"] = int64(f.RetryHorizon.Seconds())
	}
	if err := f.selectInto(body); err != nil {
		return nil, err
	}
	config, err := f.config()
	if config != nil {
		body["config"] = config
	}
	return body, err
}

// selectInto reads the condition on records, which is sent as the filter.
func (f *settingsFlags) selectInto(body map[string]any) error {
	switch {
	case f.Select == "":
		return nil
	case f.Filter != nil:
		return errors.New("give either --filter or --select")
	}
	condition, err := predicate.ParseSelectorYAML("--select", []byte(f.Select))
	if err == nil {
		body["filter"] = condition
	}
	return err
}

// config is the settings of the kind, nil when none are given.
func (f *settingsFlags) config() (json.RawMessage, error) {
	flag, given := "--config", []byte(f.Config)
	switch {
	case f.Config != "" && f.ConfigFile != "":
		return nil, errors.New("give either --config or --config-file")
	case f.ConfigFile != "":
		var err error
		flag = "--config-file " + f.ConfigFile
		if given, err = readFile(f.ConfigFile); err != nil {
			return nil, fmt.Errorf("--config-file: %w", err)
		}
	case f.Config == "":
		return nil, nil
	}
	if given = bytes.TrimSpace(given); !bytes.Equal(given, []byte("null")) && (!json.Valid(given) || given[0] != '{') {
		return nil, fmt.Errorf("%s: is not a JSON object", flag) // what it is may be a secret
	}
	return given, nil
}

func give[T any](body map[string]any, name string, value *T) {
	if value != nil {
		body[name] = *value
	}
}

// keyFlags are keys made elsewhere. They are read from files: what is an argument
// stands in the shell's history and in the list of processes.
type keyFlags struct {
	SecretFile     string `help:"A file with the signing secret (whsec_…), instead of one that is made; - for standard input." placeholder:"FILE"`
	SigningKeyFile string `help:"A file with the private ed25519 key (whsk_…), for config.ed25519, instead of one that is made; - for standard input." placeholder:"FILE"`
}

// add reads the keys that are given into a request.
func (f *keyFlags) add(body map[string]any) error {
	for _, key := range []struct{ flag, name, path string }{
		{"--secret-file", "secret", f.SecretFile}, {"--signing-key-file", "signingKey", f.SigningKeyFile},
	} {
		if key.path == "" {
			continue
		}
		text, err := readFile(key.path)
		if err != nil {
			return fmt.Errorf("%s: %w", key.flag, err)
		}
		if body[key.name] = strings.TrimSpace(string(text)); body[key.name] == "" {
			return fmt.Errorf("%s: %s is empty", key.flag, key.path)
		}
	}
	return nil
}

// onceStdin refuses two files that are both standard input.
func onceStdin(paths ...string) error {
	n := 0
	for _, path := range paths {
		if path == "-" {
			n++
		}
	}
	if n > 1 {
		return errors.New("--config-file, --secret-file, --signing-key-file: only one can be read from standard input")
	}
	return nil
}

type destinationsAddCmd struct {
	apiFlags
	settingsFlags
	keyFlags
	URL2   string   `arg:"" name:"destination-url" optional:"" help:"URL that records are delivered to."`
	Name   string   `help:"Unique name; made from the URL when not given."`
	Kind   string   `help:"Kind of sink." default:"webhook"`
	Event  []string `help:"Types to deliver: catalog names or patterns such as contact.*; * is every fact, event.tracked every product event. Repeatable." default:"*,event.tracked"`
	Paused bool     `help:"Deliver nothing until it is resumed."`
}

// Run creates the destination and prints its secret, the only time it is shown.
func (c *destinationsAddCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	if err := onceStdin(c.ConfigFile, c.SecretFile, c.SigningKeyFile); err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := c.add(body); err != nil {
		return err
	}
	body["url"], body["kind"], body["eventTypes"], body["disabled"] = c.URL2, c.Kind, c.Event, c.Paused
	if c.Name != "" {
		body["name"] = c.Name
	}
	var d destination
	if err := api.call(ctx, "POST", "/v1/admin/webhooks", nil, body, &d); err != nil {
		return err
	}
	return out.value(d, func(w io.Writer) {
		if c.SecretFile != "" {
			d.Secret = "" // no news to who gave it
		}
		d.print(w)
		next(w, "an event that it is to get", "events send signed_up --user-id u1 --contact-prop plan=pro")
	})
}

// print says what was made, and its secret when there is a new one.
func (d *destination) print(w io.Writer) {
	fmt.Fprintf(w, "%s  %s → %s (%s)\n", d.ID, d.Name, d.URL, strings.Join(d.EventTypes, ", "))
	if d.Secret != "" {
		fmt.Fprintf(w, "\nsecret %s\nKeep it now: it is not shown again.\n", d.Secret)
	}
	if d.PublicKey != nil {
		fmt.Fprintf(w, "public key %s\n", *d.PublicKey)
	}
}

type destinationsShowCmd struct{ oneDestination }

// Run shows a destination.
func (c *destinationsShowCmd) Run(ctx context.Context, out *output) error {
	api, path, err := c.destination(ctx, c.ID)
	if err != nil {
		return err
	}
	return showJSON(ctx, out, api, path, nil)
}

type destinationsSetCmd struct {
	oneDestination
	settingsFlags
	Name    *string  `help:"Another name."`
	NewURL  *string  `help:"Another URL." name:"to"`
	NewKind *string  `help:"Another kind." name:"kind"`
	Event   []string `help:"Types to deliver, instead of those it has. Repeatable."`
}

// Run changes what is given.
func (c *destinationsSetCmd) Run(ctx context.Context, out *output) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	give(body, "name", c.Name)
	give(body, "url", c.NewURL)
	give(body, "kind", c.NewKind)
	if len(c.Event) > 0 {
		body["eventTypes"] = c.Event
	}
	if len(body) == 0 {
		return errors.New("nothing to change: name a setting, for example --filter or --event")
	}
	api, path, err := c.destination(ctx, c.ID)
	if err != nil {
		return err
	}
	var d destination
	if err := api.call(ctx, "PATCH", path, nil, body, &d); err != nil {
		return err
	}
	return out.value(d, d.print)
}

type destinationsLsCmd struct{ apiFlags }

// Run lists destinations.
func (c *destinationsLsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	list := []destination{}
	err = eachDestination(ctx, api, func(d *destination) bool {
		list = append(list, *d)
		return true
	})
	if err != nil {
		return err
	}
	return out.value(list, func(w io.Writer) {
		rows := make([][]string, 0, len(list))
		for _, d := range list {
			last := "never"
			if d.LastDeliveryAt != nil {
				last = *d.LastDeliveryAt
			}
			rows = append(rows, []string{d.ID, d.Name, d.Kind, d.URL, strings.Join(d.EventTypes, ","), d.going(), d.behind(), last, strconv.FormatInt(d.Failures, 10), d.lastFailure()})
		}
		table(w, []string{"id", "name", "kind", "url", "types", "state", "lag", "last delivery", "failures in a row", "last error"}, rows)
		for _, d := range list {
			d.printStopped(w)
		}
	})
}

// going is its state with that of its circuit. One that is active is given a reason
// when its secrets cannot be opened: it stands still.
func (d *destination) going() string {
	if d.State == "active" && d.StateReason != "" {
		return d.State + ", unreadable"
	}
	if len(d.Stopped) > 0 {
		return d.State + ", stopped"
	}
	if d.Circuit == "open" {
		return d.State + ", circuit open"
	}
	return d.State
}

// lastFailure is what went wrong last, and when.
func (d *destination) lastFailure() string {
	if d.LastErrorAt == nil {
		return ""
	}
	return strings.TrimSpace(*d.LastErrorAt + " " + text(d.LastError))
}

// behind is its lag; "?" while Kafka does not answer.
func (d *destination) behind() string {
	if d.Lag == nil {
		return "?"
	}
	return strconv.FormatInt(*d.Lag, 10)
}

type destinationsRmCmd struct{ oneDestination }

// Run removes a destination.
func (c *destinationsRmCmd) Run(ctx context.Context, out *output) error {
	api, path, err := c.destination(ctx, c.ID)
	if err != nil {
		return err
	}
	var answer map[string]any
	if err := api.call(ctx, "DELETE", path, nil, nil, &answer); err != nil {
		return err
	}
	return out.value(answer, func(w io.Writer) { fmt.Fprintln(w, "removed") })
}

// destinationID finds the id of a destination given by id or name. An id that no
// destination has is returned as it is: it may be of one that was removed.
func destinationID(ctx context.Context, api *client, idOrName string) (string, error) {
	var id string
	err := eachDestination(ctx, api, func(d *destination) bool {
		if d.Name == idOrName {
			id = d.ID
		}
		return id == ""
	})
	if err != nil || id != "" {
		return id, err
	}
	if uuid.Validate(idOrName) != nil {
		return "", fmt.Errorf("no destination has the name or id %q: hogstream destinations ls shows them", idOrName)
	}
	return idOrName, nil
}

// eachDestination calls f for all destinations until it says false.
func eachDestination(ctx context.Context, api *client, f func(*destination) bool) error {
	const limit = 100
	for offset := 0; ; offset += limit {
		var page struct {
			Endpoints []destination `json:"endpoints"`
		}
		query := url.Values{"limit": {strconv.Itoa(limit)}, "offset": {strconv.Itoa(offset)}}
		if err := api.call(ctx, "GET", "/v1/admin/webhooks", query, nil, &page); err != nil {
			return err
		}
		for i := range page.Endpoints {
			if !f(&page.Endpoints[i]) {
				return nil
			}
		}
		if len(page.Endpoints) < limit {
			return nil
		}
	}
}
