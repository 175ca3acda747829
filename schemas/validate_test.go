package schemas_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

func TestWhatCanBeNoInputIsSaidInWordsByField(t *testing.T) {
	const id = "0190c1a0-7b1e-7c3a-9c9b-2f3f7a2d9f11"
	text := func(s string) *string { return &s }
	good := func() *schemas.Input {
		return &schemas.Input{ID: id, Type: schemas.InputEvent, Event: text("x"), UserID: text("u"), Email: text("a@b.co"),
			EventProperties: text(` {"a":1}`), ContactProperties: text("{}"), OccurredAt: time.Now(), Lists: map[string]bool{"news": true}}
	}
	require.NoError(t, good().Validate())
	anyAddress := good()
	anyAddress.Type, anyAddress.Email = schemas.InputDelete, text("no address")
	require.NoError(t, anyAddress.Validate(), "any address on file can be deleted")
	for want, spoil := range map[string]func(*schemas.Input){
		"id: is no id":                           func(in *schemas.Input) { in.ID = "1" },
		"type: must be event":                    func(in *schemas.Input) { in.Type = "surprise" },
		"event: an event needs a name":           func(in *schemas.Input) { in.Event = nil },
		"event: has more than 255 characters":    func(in *schemas.Input) { in.Event = text(strings.Repeat("ä", 256)) },
		"email: is no address":                   func(in *schemas.Input) { in.Email = text("nobody") },
		"email: contains the character U+0000":   func(in *schemas.Input) { in.Type, in.Email = schemas.InputDelete, text("a\x00b") },
		"userId: has more than 255 characters":   func(in *schemas.Input) { in.UserID = text(strings.Repeat("u", 300)) },
		"userId: contains the character U+0000":  func(in *schemas.Input) { in.UserID = text("a\x00b") },
		"anonymousId: contains the character":    func(in *schemas.Input) { in.AnonymousID = text("\x00") },
		"contactId: is no id":                    func(in *schemas.Input) { in.ContactID = text("7") },
		"eventProperties: is no JSON object":     func(in *schemas.Input) { in.EventProperties = text("{") },
		"contactProperties: is no JSON object":   func(in *schemas.Input) { in.ContactProperties = text("[1]") },
		"lists: contains the character U+0000":   func(in *schemas.Input) { in.Lists = map[string]bool{"\x00": true} },
		"source: contains the character U+0000":  func(in *schemas.Input) { in.Source = "\x00" },
		"idempotencyKey: has more than 255":      func(in *schemas.Input) { in.IdempotencyKey = text(strings.Repeat("k", 256)) },
		"scope: contains the character U+0000":   func(in *schemas.Input) { in.Scope = text("\x00") },
		"eventProperties: is no JSON object\nco": func(in *schemas.Input) { in.EventProperties, in.ContactProperties = text(""), text("null") },
	} {
		in := good()
		spoil(in)
		require.ErrorContains(t, in.Validate(), want)
		require.ErrorContains(t, (&schemas.Resolved{Type: schemas.ResolvedInput}).Validate(), "input: a record of this type is nothing without it")
	}
	for want, r := range map[string]schemas.Resolved{
		"contactId: is no id":                  {Type: schemas.ResolvedInput, ContactID: "c", Input: good()},
		"type: must be input, merge or absorb": {Type: "surprise", ContactID: id},
		"merge.survivor: is no id":             {Type: schemas.ResolvedMerge, ContactID: id, Merge: &schemas.Merge{InputID: id}},
		"absorb.loser: is no id":               {Type: schemas.ResolvedAbsorb, ContactID: id, Absorb: &schemas.Absorb{}},
		"absorb.state: properties":             {Type: schemas.ResolvedAbsorb, ContactID: id, Absorb: &schemas.Absorb{Loser: id, State: &schemas.Contact{ID: id, Properties: "nothing"}}},
		"merging: is no id":                    {Type: schemas.ResolvedInput, ContactID: id, Input: good(), Merging: []string{"x"}},
		"linked: the kind of an identifier":    {Type: schemas.ResolvedInput, ContactID: id, Input: good(), Linked: []schemas.Identifier{{Kind: "phone"}}},
	} {
		require.ErrorContains(t, r.Validate(), want)
	}
}

func TestWhatCanBeNoEventIsSaidInWordsByField(t *testing.T) {
	const id = "0190c1a0-7b1e-7c3a-9c9b-2f3f7a2d9f11"
	good := schemas.Event{ID: id, ContactID: id, Name: "x", Properties: "{}", Source: "api"}
	require.NoError(t, good.Validate())
	for want, spoil := range map[string]func(*schemas.Event){
		"id: is no id":                          func(e *schemas.Event) { e.ID = "1" },
		"contactId: is no id":                   func(e *schemas.Event) { e.ContactID = "" },
		"name: contains the character U+0000":   func(e *schemas.Event) { e.Name = "\x00" },
		"properties: is no JSON object":         func(e *schemas.Event) { e.Properties = "" },
		"source: contains the character U+0000": func(e *schemas.Event) { e.Source = "\x00" },
	} {
		e := good
		spoil(&e)
		require.ErrorContains(t, e.Validate(), want)
	}
}
