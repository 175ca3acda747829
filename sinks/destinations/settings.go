package destinations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/program"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/storage"
)

// Settings are what a new destination is made from.
type Settings struct {
	// Name is unique; empty means one made from kind and host.
	Name        string
	Kind        string // empty means webhook
	URL         string
	Description *string
	EventTypes  []string
	Config      json.RawMessage
	// Secret of a signed kind; empty has one made.
	Secret string
	// SigningKey is the private ed25519 key (whsk_…) of a webhook that signs with one;
	// empty has one made.
	SigningKey string
	Disabled   bool
	Filter     Filter
	// Transform is jq, "" for none.
	Transform    string
	RateLimit    float64 // requests a second, 0 for no limit
	Concurrency  int     // requests in flight, 0 for the default
	RetryHorizon time.Duration
	DeliveryLog  string // all | failures | off, "" for the default
}

// Create makes a destination that is sent everything appended after the call
// returned: its cursors stand at the ends of its topics, read beforehand. A wrong
// setting is an [*InvalidError].
func (o *Operations) Create(ctx context.Context, s Settings) (*Created, error) {
	d := o.destinationOf(s)
	kind, err := o.kind(d)
	if err != nil {
		return nil, err
	}
	if err := adopt(kind, d, s.Secret, s.SigningKey); err != nil {
		return nil, err
	}
	sub, err := o.check(ctx, d)
	if err != nil {
		return nil, err
	}
	starts, err := o.ends.EndOffsets(ctx, sub.Topics()...)
	if err != nil {
		return nil, fmt.Errorf("read ends of topics for destination %s: %w", d.Name, err)
	}
	if err := o.insert(ctx, d, starts, s.Name == ""); err != nil {
		return nil, err
	}
	return &Created{View: o.view(d), Secret: d.Secret}, nil
}

func (o *Operations) destinationOf(s Settings) *storage.Destination {
	d := &storage.Destination{
		ID: uuid.Must(uuid.NewV7()).String(), Name: s.Name, Kind: s.Kind, URL: strings.TrimSpace(s.URL),
		Description: s.Description, EventTypes: s.EventTypes, Config: s.Config,
		Status: storage.DestinationActive, Filter: s.Filter.JQ, Selector: s.Filter.stored(), Transform: s.Transform,
		RateLimit: s.RateLimit, Concurrency: s.Concurrency, RetryHorizon: s.RetryHorizon, DeliveryLog: s.DeliveryLog,
	}
	if d.Kind == "" {
		d.Kind = sinks.Webhook
	}
	if s.Disabled {
		d.Status = storage.DestinationPaused
	}
	if d.Name == "" {
		d.Name = defaultName(d)
	}
	kind, _ := o.deliverer.Kind(d.Kind)
	if kind != nil && d.RateLimit == 0 {
		d.RateLimit = kind.DefaultRate
	}
	equip(kind, d)
	return d
}

// insert writes destination and cursors. A name that we made up and that is
// taken gets a number.
func (o *Operations) insert(ctx context.Context, d *storage.Destination, starts []storage.CursorStart, mayRename bool) error {
	base := d.Name
	for n := 2; ; n++ {
		err := o.db.InRetriedTx(ctx, func(tx *storage.Tx) error {
			if err := o.store.Insert(ctx, tx, d); err != nil {
				return err
			}
			return tx.CreateCursors(ctx, d.ID, starts)
		})
		if !errors.Is(err, storage.ErrDestinationName) {
			return err
		}
		if !mayRename || n > 1000 {
			return nameTaken(d.Name)
		}
		d.Name = base + "-" + strconv.Itoa(n)
	}
}

func nameTaken(name string) error {
	return &InvalidError{Field: "name", Message: fmt.Sprintf("%q is taken by another destination: choose another one", name)}
}

var (
	validDestinationName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)
	notInName            = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
)

func defaultName(d *storage.Destination) string {
	u, err := url.Parse(d.URL)
	if err != nil || u.Hostname() == "" {
		return d.Kind
	}
	name := notInName.ReplaceAllString(d.Kind+"-"+u.Hostname(), "-")
	return name[:min(len(name), 90)]
}

// check validates all settings, and returns the subscription.
func (o *Operations) check(ctx context.Context, d *storage.Destination) (schemas.Subscription, error) {
	var none schemas.Subscription
	kind, err := o.kind(d)
	if err != nil {
		return none, err
	}
	sub, err := schemas.ParseSubscription(d.EventTypes)
	if err != nil {
		return none, invalid(err)
	}
	if err := checkNumbers(d); err != nil {
		return none, err
	}
	if d.URL == "" && kind.NeedsURL {
		return none, &InvalidError{Field: "url", Message: "is empty: write the address of the receiver, for example https://example.com/hook"}
	}
	if err := o.deliverer.CheckSettings(d); err != nil {
		return none, invalid(err)
	}
	if err := o.deliverer.CheckLoop(ctx, d); err != nil {
		return none, invalid(err)
	}
	if sub.WantsOutbox() {
		if err := o.deliverer.CheckOutbox(d); err != nil {
			return none, invalid(err)
		}
	}
	return sub, o.checkPrograms(ctx, d)
}

// checkPrograms has a worker compile filter and transform.
func (o *Operations) checkPrograms(ctx context.Context, d *storage.Destination) error {
	err := o.deliverer.CheckPrograms(ctx, d)
	var wrong *program.SourceError
	if errors.As(err, &wrong) {
		return &InvalidError{Field: wrong.Field, Message: wrong.Reason}
	}
	return err
}

// mostRate is no limit any more.
const mostRate = 1_000_000

func checkNumbers(d *storage.Destination) error {
	_, isUUID := uuid.Parse(d.Name)
	switch {
	case !validDestinationName.MatchString(d.Name):
		return &InvalidError{"name", "use 1 to 100 letters, digits, dots, dashes and underscores, beginning with a letter or digit"}
	case isUUID == nil:
		return &InvalidError{"name", "looks like an id: choose a word"}
	case d.Description != nil && len([]rune(*d.Description)) > 500:
		return &InvalidError{"description", "is longer than 500 characters"}
	case d.RateLimit != 0 && !(d.RateLimit >= storage.LeastRate && d.RateLimit <= mostRate):
		return &InvalidError{"rateLimit", fmt.Sprintf("must be 0 (no limit), or between %g and %d requests a second; to send nothing, pause the destination", storage.LeastRate, mostRate)}
	case d.Concurrency < 0 || d.Concurrency > 4096:
		return &InvalidError{"concurrency", "must be between 0 (the default) and 4096"}
	case d.RetryHorizon != 0 && (d.RetryHorizon < time.Second || d.RetryHorizon > 30*24*time.Hour):
		return &InvalidError{"retryHorizon", "must be 0 (the default), or between one second and 30 days"}
	case !slices.Contains([]string{"", "all", "failures", "off"}, d.DeliveryLog):
		return &InvalidError{"deliveryLog", "use all, failures, off, or leave it out for the default"}
	}
	return nil
}
