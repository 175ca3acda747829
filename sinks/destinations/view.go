package destinations

import (
	"context"
	"encoding/json"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/signing"
	"github.com/hogstream/hogstream/storage"
)

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
	Filter              any                       `json:"filter" doc:"jq as a text, empty for none, or a condition on records as an object or a list of these."`
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

// List returns all destinations, newest first, with their lag, for which Kafka is asked.
func (o *Operations) List(ctx context.Context) ([]View, error) {
	list, err := o.store.List(ctx)
	if err != nil {
		return nil, err
	}
	views := make([]View, len(list))
	for i, d := range list {
		views[i] = o.view(d)
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
	views := []View{o.view(d)}
	return &views[0], o.addHealth(ctx, views)
}

func (o *Operations) view(d *storage.Destination) View {
	kind, _ := o.deliverer.Kind(d.Kind)
	v := View{
		ID: d.ID, URL: redactURL(d.URL, kind), Description: d.Description, EventTypes: d.EventTypes, Kind: d.Kind,
		Config: redactConfig(d.Config, kind), Status: "enabled", LastDeliveryAt: schemas.ISOTimeOf(d.LastDeliveryAt),
		CreatedAt: schemas.ISOTime{Time: d.CreatedAt}, UpdatedAt: schemas.ISOTime{Time: d.UpdatedAt}, Name: d.Name, State: d.Status, StateReason: d.StatusReason,
		Filter: filterOf(d.Filter, d.Selector), Transform: d.Transform, RateLimit: d.RateLimit, Concurrency: d.Concurrency,
		RetryHorizonSeconds: int64(d.RetryHorizon / time.Second), DeliveryLog: d.DeliveryLog,
		PreviousSecretUntil: schemas.ISOTimeOf(d.PreviousSecretUntil), Revision: d.Revision,
		DestinationHealth: storage.DestinationHealth{Circuit: "closed", Owners: []storage.DestinationOwner{}, Stopped: []storage.StoppedCursor{}},
	}
	if d.Secret != "" {
		prefix := signing.Shown(d.Secret)
		v.SecretPrefix = &prefix
	}
	if public := signing.PublicKey(d.SigningKey); public != "" {
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
