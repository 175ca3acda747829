package ingest

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hogstream/hogstream/schemas/document"
)

var seeds = []string{
	`{"name":"n","userId":"u","eventProperties":{"a":[1,{"b":null}]},"lists":{"x":true},"timestamp":"2026-01-31T12:00:00.5Z"}`,
	`{"name":"n","email":"a@b.co","idempotencyKey":"k","contactProperties":{}}`,
	`{"name":"\u0000","userId":"\ud800"}`, `[`, `{"events":[{"name":"a"},1,[[]]],"events":[]}`, `[{"name":"a","userId":"u"}]`, `"`, `{"a":` + "\x00",
	strings.Repeat("[", 70), `{"name":"a","userId":"` + "\xff" + `"}`,
}

// FuzzAnEventIsRefusedOrWhole checks that what is accepted is JSON in UTF-8 with
// a subject and a name, and that what is no JSON never is.
func FuzzAnEventIsRefusedOrWhole(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := &draft{kind: eventBody, utf8OK: utf8.ValidString(text)}
		err := d.readWhole(text)
		if err == nil != json.Valid([]byte(text)) && utf8.ValidString(text) && len(text) < 1000 {
			t.Fatalf("read: %v, but valid: %v: %q", err, json.Valid([]byte(text)), text)
		}
		if err != nil || len(d.issues) > 0 || !d.hasSubject() {
			return
		}
		accepted(t, d)
	})
}

// FuzzABatchCountsItsEvents checks the same of every event of a batch.
func FuzzABatchCountsItsEvents(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
		f.Add("[" + s + "," + s + "]")
		f.Add(`{"x":1,"events":[` + s + `]}`)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ws := &workspace{}
		n, err := ws.readBatch(text)
		if err != nil {
			return
		}
		if !json.Valid([]byte(text)) && len(text) < 1000 {
			t.Fatalf("read %d events of what is no JSON: %q", n, text)
		}
		for _, d := range ws.drafts[:n] {
			if len(d.issues) == 0 && d.hasSubject() {
				accepted(t, d)
			}
		}
	})
}

func accepted(t *testing.T, d *draft) {
	t.Helper()
	in := d.finish("id", time.Unix(0, 0), "scope")
	if *in.Event == "" || isReserved(*in.Event) {
		t.Fatalf("accepted the name %q", *in.Event)
	}
	for _, s := range []*string{in.UserID, in.Email, in.AnonymousID, in.Event, in.IdempotencyKey} {
		if s != nil && (!utf8.ValidString(*s) || strings.ContainsRune(*s, 0) || strings.TrimSpace(*s) == "" && s != in.IdempotencyKey) {
			t.Fatalf("accepted %q", *s)
		}
	}
	for _, doc := range []*string{in.EventProperties, in.ContactProperties} {
		if doc != nil {
			if err := document.Validate(*doc, document.MaxDepth); err != nil {
				t.Fatalf("accepted %q: %v", *doc, err)
			}
		}
	}
}
