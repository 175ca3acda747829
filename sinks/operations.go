package sinks

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
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/program"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// ErrNotFound: there is no such destination.
var ErrNotFound = errors.New("no such destination")

// InvalidError says which setting is wrong and what to write instead.
type InvalidError struct{ Field, Message string }

// Error implements error.
func (e *InvalidError) Error() string { return e.Field + ": " + e.Message }

// invalid turns an error that begins with the name of its field into an
// InvalidError.
func invalid(err error) error {
	field, message, found := strings.Cut(err.Error(), ": ")
	if !found {
		return &InvalidError{Field: "config", Message: err.Error()}
	}
	return &InvalidError{Field: field, Message: message}
}

// Ends tells where topics end. Implemented by *stream.Admin.
type Ends interface {
	// EndOffsets returns, for every partition of the topics, the offset that the
	// next record will get, with the topic's id.
	EndOffsets(ctx context.Context, topics ...schemas.Topic) ([]storage.CursorStart, error)
}

// Operations are what operators do to destinations. It is safe for concurrent use.
type Operations struct {
	db        *storage.DB
	store     *storage.Destinations
	ends      Ends
	deliverer *Deliverer
}

// NewOperations makes them. The deliverer checks settings and sends tests; it
// may be one of this process only.
func NewOperations(db *storage.DB, store *storage.Destinations, ends Ends, d *Deliverer) *Operations {
	return &Operations{db: db, store: store, ends: ends, deliverer: d}
}

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
	// Filter and Transform are jq, "" for none.
	Filter, Transform string
	RateLimit         float64 // requests a second, 0 for no limit
	Concurrency       int     // requests in flight, 0 for the default
	RetryHorizon      time.Duration
	DeliveryLog       string // all | failures | off, "" for the default
}

// View is a destination as it may be shown: nothing secret is in it. The first
// fields are those of the reference's endpoint object.
type View struct {
	ID             string           `json:"id"`
	URL            string           `json:"url"`
	Description    *string          `json:"description"`
	EventTypes     []string         `json:"eventTypes"`
	SecretPrefix   *string          `json:"secretPrefix"`
	Kind           string           `json:"kind"`
	Config         json.RawMessage  `json:"config"`
	Status         string           `json:"status" enum:"enabled,disabled"`
	OrganizationID *string          `json:"organizationId"`
	LastDeliveryAt *schemas.ISOTime `json:"lastDeliveryAt" format:"date-time"`
	CreatedAt      schemas.ISOTime  `json:"createdAt" format:"date-time"`
	UpdatedAt      schemas.ISOTime  `json:"updatedAt" format:"date-time"`

	Name                string                    `json:"name"`
	State               storage.DestinationStatus `json:"state" enum:"active,paused,suspended"`
	StateReason         string                    `json:"stateReason"`
	Filter              string                    `json:"filter"`
	Transform           string                    `json:"transform"`
	RateLimit           float64                   `json:"rateLimit"`
	Concurrency         int                       `json:"concurrency"`
	RetryHorizonSeconds int64                     `json:"retryHorizonSeconds"`
	DeliveryLog         string                    `json:"deliveryLog"`
	PreviousSecretUntil *schemas.ISOTime          `json:"previousSecretUntil" format:"date-time"`
	PublicKey           *string                   `json:"publicKey" doc:"Of the ed25519 signature (v1a), null without config.ed25519."`
	Revision            int64                     `json:"revision"`
	storage.DestinationHealth
}

// Created is a new destination and, this once, its secret ("" for kinds without).
type Created struct {
	View
	Secret string `json:"secret,omitempty"`
}

// Create makes a destination that is sent everything appended after the call
// returned: its cursors stand at the ends of its topics, read beforehand. A wrong
// setting is an [*InvalidError].
func (o *Operations) Create(ctx context.Context, s Settings) (*Created, error) {
	d := o.deliverer.kinds.destinationOf(s)
	if err := o.deliverer.kinds.adopt(d, s.Secret, s.SigningKey); err != nil {
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
	return &Created{View: o.deliverer.kinds.viewOf(d), Secret: d.Secret}, nil
}

func (c catalog) destinationOf(s Settings) *storage.Destination {
	d := &storage.Destination{
		ID: uuid.Must(uuid.NewV7()).String(), Name: s.Name, Kind: s.Kind, URL: strings.TrimSpace(s.URL),
		Description: s.Description, EventTypes: s.EventTypes, Config: s.Config,
		Status: storage.DestinationActive, Filter: s.Filter, Transform: s.Transform,
		RateLimit: s.RateLimit, Concurrency: s.Concurrency, RetryHorizon: s.RetryHorizon, DeliveryLog: s.DeliveryLog,
	}
	if d.Kind == "" {
		d.Kind = webhookKind.Name
	}
	if s.Disabled {
		d.Status = storage.DestinationPaused
	}
	if kind, err := c.find(d.Kind); err == nil {
		if d.RateLimit == 0 {
			d.RateLimit = kind.DefaultRate
		}
	}
	if d.Name == "" {
		d.Name = defaultName(d)
	}
	c.equip(d)
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
			return storage.CreateCursors(ctx, tx, d.ID, starts)
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
	kind, err := o.deliverer.kinds.find(d.Kind)
	if err != nil {
		return none, invalid(err)
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
	if opened := o.deliverer.ready(d); opened.err != nil {
		return none, invalid(opened.err)
	}
	return sub, o.checkPrograms(ctx, d)
}

// checkPrograms has a worker compile filter and transform.
func (o *Operations) checkPrograms(ctx context.Context, d *storage.Destination) error {
	err := o.deliverer.workers.Check(ctx, programs(d))
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

// List returns all destinations, newest first, with their lag, for which Kafka is asked.
func (o *Operations) List(ctx context.Context) ([]View, error) {
	list, err := o.store.List(ctx)
	if err != nil {
		return nil, err
	}
	views := make([]View, len(list))
	for i, d := range list {
		views[i] = o.deliverer.kinds.viewOf(d)
	}
	if err := o.addHealth(ctx, views); err != nil || len(views) == 0 {
		return views, err
	}
	return views, o.inspect(ctx, views)
}

// Get returns a destination by name or id, or [ErrNotFound].
func (o *Operations) Get(ctx context.Context, nameOrID string) (*View, error) {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	views := []View{o.deliverer.kinds.viewOf(d)}
	return &views[0], o.addHealth(ctx, views)
}

func (o *Operations) find(ctx context.Context, nameOrID string) (*storage.Destination, error) {
	d, err := o.store.Find(ctx, nameOrID)
	if storage.IsNotFound(err) {
		return nil, fmt.Errorf("%q: %w", nameOrID, ErrNotFound)
	}
	return d, err
}

func (c catalog) viewOf(d *storage.Destination) View {
	kind, _ := c.find(d.Kind)
	v := View{
		ID: d.ID, URL: redactURL(d.URL, kind), Description: d.Description, EventTypes: d.EventTypes, Kind: d.Kind,
		Config: redactConfig(d.Config, kind), Status: "enabled", LastDeliveryAt: schemas.ISOTimeOf(d.LastDeliveryAt),
		CreatedAt: schemas.ISOTime{Time: d.CreatedAt}, UpdatedAt: schemas.ISOTime{Time: d.UpdatedAt}, Name: d.Name, State: d.Status, StateReason: d.StatusReason,
		Filter: d.Filter, Transform: d.Transform, RateLimit: d.RateLimit, Concurrency: d.Concurrency,
		RetryHorizonSeconds: int64(d.RetryHorizon / time.Second), DeliveryLog: d.DeliveryLog,
		PreviousSecretUntil: schemas.ISOTimeOf(d.PreviousSecretUntil), Revision: d.Revision,
		DestinationHealth: storage.DestinationHealth{Circuit: "closed", Owners: []storage.DestinationOwner{}, Stopped: []storage.StoppedCursor{}},
	}
	if d.Secret != "" {
		prefix := SecretPrefix(d.Secret)
		v.SecretPrefix = &prefix
	}
	if public := publicKey(d.SigningKey); public != "" {
		v.PublicKey = &public
	}
	if d.Status != storage.DestinationActive {
		v.Status = "disabled"
	}
	if d.Unreadable != "" {
		v.StateReason = d.Unreadable
	}
	return v
}

// Patch changes settings; a nil field stays as it is.
type Patch struct {
	Name        *string
	Kind        *string
	URL         *string
	Description *string  // empty clears
	EventTypes  []string // replaces
	// Config replaces the whole; `null` clears. A hidden value (***) keeps the stored one,
	// unless the destination moves to another receiver.
	Config       json.RawMessage
	Disabled     *bool
	Filter       *string
	Transform    *string
	RateLimit    *float64
	Concurrency  *int
	RetryHorizon *time.Duration
	DeliveryLog  *string
}

// Update changes a destination and returns it; the secret is set when the change
// to a signed kind made one. A topic that is newly subscribed to is sent from its
// end on, one that no longer is loses its position. Errors as Create and Get.
func (o *Operations) Update(ctx context.Context, nameOrID string, p Patch) (*Created, error) {
	var made string
	d, err := o.change(ctx, nameOrID, func(d *storage.Destination) error {
		before, kept := *d, o.deliverer.kinds.keptSecrets(p.Config, d)
		if err := p.apply(o.deliverer.kinds, d); err != nil {
			return err
		}
		if err := o.deliverer.kinds.refuseMove(&before, d, kept); err != nil {
			return err
		}
		made = o.deliverer.kinds.equip(d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	views := []View{o.deliverer.kinds.viewOf(d)}
	if err := o.addHealth(ctx, views); err != nil {
		o.deliverer.log.Warn("destination.health_not_read", zap.String("destination_id", d.ID), zap.Error(err)) // the change was made
	}
	return &Created{View: views[0], Secret: made}, nil
}

func (p *Patch) apply(kinds catalog, d *storage.Destination) error {
	if err := p.applyURL(kinds, d); err != nil {
		return err
	}
	if p.Config != nil {
		config, err := restoreConfig(p.Config, d.Config)
		if err != nil {
			return invalid(err)
		}
		if d.Config = config; string(config) == "null" {
			d.Config = nil
		}
	}
	if p.Description != nil {
		if d.Description = p.Description; *p.Description == "" {
			d.Description = nil
		}
	}
	if p.EventTypes != nil {
		d.EventTypes = p.EventTypes
	}
	if p.Disabled != nil {
		d.Status, d.StatusReason = storage.DestinationActive, ""
		if *p.Disabled {
			d.Status = storage.DestinationPaused
		}
	}
	set(&d.Name, p.Name)
	set(&d.Kind, p.Kind)
	set(&d.Filter, p.Filter)
	set(&d.Transform, p.Transform)
	set(&d.RateLimit, p.RateLimit)
	set(&d.Concurrency, p.Concurrency)
	set(&d.RetryHorizon, p.RetryHorizon)
	set(&d.DeliveryLog, p.DeliveryLog)
	return nil
}

// applyURL changes the URL. As it is shown it stays as it is, but for one that is a
// credential: another kind would show it, so it goes when the kind does.
func (p *Patch) applyURL(kinds catalog, d *storage.Destination) error {
	kind, _ := kinds.find(d.Kind)
	kept := p.URL == nil || *p.URL == redactURL(d.URL, kind)
	switch {
	case kept && kind != nil && kind.SecretURL && p.Kind != nil && *p.Kind != d.Kind:
		d.URL = ""
	case kept:
	case strings.Contains(*p.URL, redacted):
		return &InvalidError{"url", redacted + " hides a value: write the whole URL, or leave the field out"}
	default:
		d.URL = strings.TrimSpace(*p.URL)
	}
	return nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// change reads, changes, checks and writes a destination, again when somebody
// else was faster.
func (o *Operations) change(ctx context.Context, nameOrID string, edit func(*storage.Destination) error) (*storage.Destination, error) {
	for try := 1; ; try++ {
		d, err := o.find(ctx, nameOrID)
		if err != nil {
			return nil, err
		}
		before, _ := schemas.ParseSubscription(d.EventTypes) // valid when it was stored
		if err := edit(d); err != nil {
			return nil, err
		}
		sub, err := o.check(ctx, d)
		if err != nil {
			return nil, err
		}
		err = o.write(ctx, d, before.Topics(), sub.Topics())
		switch {
		case err == nil:
			return d, nil
		case errors.Is(err, storage.ErrDestinationName):
			return nil, nameTaken(d.Name)
		case !errors.Is(err, storage.ErrDestinationChanged) || try == 5:
			return nil, err
		}
	}
}

func (o *Operations) write(ctx context.Context, d *storage.Destination, before, after []schemas.Topic) error {
	var starts []storage.CursorStart
	if added := without(after, before); len(added) > 0 {
		var err error
		if starts, err = o.ends.EndOffsets(ctx, added...); err != nil {
			return fmt.Errorf("read ends of topics for destination %s: %w", d.Name, err)
		}
	}
	revision := d.Revision
	return o.db.InRetriedTx(ctx, func(tx *storage.Tx) error {
		d.Revision = revision // of a try before
		if err := o.store.Update(ctx, tx, d); err != nil {
			return err
		}
		for _, topic := range without(before, after) {
			if err := storage.DeleteCursors(ctx, tx, d.ID, string(topic)); err != nil {
				return err
			}
		}
		if len(starts) == 0 {
			return nil
		}
		return storage.CreateCursors(ctx, tx, d.ID, starts)
	})
}

func without(topics, other []schemas.Topic) []schemas.Topic {
	return slices.DeleteFunc(slices.Clone(topics), func(t schemas.Topic) bool { return slices.Contains(other, t) })
}

// Pause stops deliveries to a destination at its place.
func (o *Operations) Pause(ctx context.Context, nameOrID, reason string) (*View, error) {
	return o.setStatus(ctx, nameOrID, storage.DestinationPaused, reason)
}

// Resume lets deliveries go on, after Pause or a suspension.
func (o *Operations) Resume(ctx context.Context, nameOrID string) (*View, error) {
	return o.setStatus(ctx, nameOrID, storage.DestinationActive, "")
}

func (o *Operations) setStatus(ctx context.Context, nameOrID string, status storage.DestinationStatus, reason string) (*View, error) {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	if _, err := o.store.SetStatus(ctx, d.ID, status, reason); err != nil {
		return nil, err
	}
	return o.Get(ctx, d.ID)
}

// Delete removes a destination with its cursors, or returns [ErrNotFound].
func (o *Operations) Delete(ctx context.Context, nameOrID string) error {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return err
	}
	deleted, err := o.store.Delete(ctx, d.ID)
	if err != nil {
		return err
	}
	if !deleted {
		return fmt.Errorf("%q: %w", nameOrID, ErrNotFound)
	}
	o.deliverer.Forget(d.ID)
	return nil
}

// Tested is what came of a test.
type Tested struct {
	// DeliveryID is the id of the message that was sent.
	DeliveryID string           `json:"deliveryId"`
	EventType  string           `json:"eventType"`
	Verdict    string           `json:"verdict"`
	Delivered  bool             `json:"delivered"`
	Status     int              `json:"status"` // of HTTP, 0 without an answer
	LatencyMS  int64            `json:"latencyMs"`
	Error      string           `json:"error,omitempty"`
	Response   string           `json:"response,omitempty"`
	Outcome    delivery.Outcome `json:"-"`
	// Request is what was sent, or why nothing was.
	Request *Preview `json:"request"`
}

// Test sends a sample to a destination now, whatever it subscribes to and also when
// it is paused, marked by the header Hogstream-Test and under an id of its own, and
// returns what came of it. What its filter leaves out is not sent.
func (o *Operations) Test(ctx context.Context, nameOrID string, s Sample) (*Tested, error) {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	t, err := o.try(ctx, d, s, true)
	if err != nil {
		return nil, err
	}
	defer t.opened.close()
	out := t.outcome()
	if t.attempt != nil {
		a := &attempt{Attempt: *t.attempt}
		a.write(t.opened)
		out = o.deliverer.attempt(ctx, t.opened, a)
		o.logTest(ctx, d, t.payload, out)
	}
	return &Tested{
		DeliveryID: t.payload.MessageID(), EventType: t.payload.Type, Verdict: out.Verdict.String(), Delivered: out.Verdict == delivery.Delivered,
		Status: out.Status, LatencyMS: out.Latency.Milliseconds(), Error: out.Err, Response: string(out.Response), Outcome: out, Request: t.preview,
	}, nil
}

// logTest puts the attempt into the delivery log, under no topic. The answer to
// whoever tests is worth more than the row: a failure to write it is only logged.
func (o *Operations) logTest(ctx context.Context, d *storage.Destination, p *Payload, out delivery.Outcome) {
	err := o.db.InTx(ctx, func(tx *storage.Tx) error {
		return storage.WriteAttempts(ctx, tx, []storage.Attempt{{
			At: time.Now(), DestinationID: d.ID, RecordID: p.ID, RecordType: p.Type, RecordKey: p.Person.ContactID,
			Partition: -1, Offset: -1, Attempt: 1, Outcome: out.Verdict.String(), Status: out.Status,
			Latency: out.Latency, Error: out.Err, Response: out.Response,
		}})
	})
	if err != nil {
		o.deliverer.log.Warn("destination.test_not_logged", zap.String("destination_id", d.ID), zap.Error(err))
	}
}
