package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/document"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/web"
)

// Limits of bodies, in bytes after decompression.
const (
	maxBatchBody   = 5 << 20
	maxBatch       = 1000 // events
	maxContactBody = schemas.MaxProperties + 16<<10
	maxDeleteBody  = 16 << 10
)

// What bodies look like, for the description alone: events are read by hand.
type (
	eventRequest struct {
		Name              string          `json:"name" minLength:"1" maxLength:"255" doc:"Name of the event. Names that begin with bucket: bucket. journey: journey. email. contact. webhook. event.tracked hogstream. are reserved." example:"order.completed"`
		UserID            string          `json:"userId,omitempty" minLength:"1" maxLength:"255" doc:"Your id of the person. One of userId, email and anonymousId is needed."`
		Email             string          `json:"email,omitempty" format:"email" maxLength:"320"`
		AnonymousID       string          `json:"anonymousId,omitempty" minLength:"1" maxLength:"255"`
		EventProperties   map[string]any  `json:"eventProperties,omitempty" doc:"Goes to the event alone. Kept byte for byte; nests at most 64 levels."`
		ContactProperties map[string]any  `json:"contactProperties,omitempty" doc:"Is merged into the contact alone; null removes a property."`
		Lists             map[string]bool `json:"lists,omitempty" doc:"Memberships to set, by list id."`
		IdempotencyKey    string          `json:"idempotencyKey,omitempty" maxLength:"255" doc:"An event with a key that this API key used within the window is not stored again. The header Idempotency-Key wins; an empty header switches it off."`
		Timestamp         string          `json:"timestamp,omitempty" format:"date-time" doc:"When it happened, in UTC with Z; now when left out."`
	}
	batchRequest struct {
		Events []eventRequest `json:"events" minItems:"1" maxItems:"1000"`
	}
	batchQuery struct {
		IDs bool `json:"ids" doc:"true to be told the events' ids"`
	}
	batchResponse struct {
		Accepted  int             `json:"accepted"`
		Rejected  []rejectedEvent `json:"rejected"`
		IDs       []*string       `json:"ids,omitempty" doc:"With ?ids=true: the ids in the order of the batch, null for a rejected event."`
		RequestID string          `json:"requestId"`
		Error     string          `json:"error,omitempty" doc:"None was accepted."`
	}
)

func (a *API) eventRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodPost, Path: "/v1/events", Scopes: []string{storage.ScopeIngest, storage.ScopeWrite}, Tag: "Events", Summary: "Send an event",
			Text:    "202 means that the log has it. With an idempotency key the answer says whether the event was new (`stored`) and, where journeys declare exitOn, which runs it ended (`exits`).",
			Request: eventRequest{}, Answers: map[int]any{202: eventResponse{}},
			Example: `/v1/events {"name":"order.completed","userId":"u-1","eventProperties":{"total":42}}`, Serve: a.postEvent,
		},
		{
			Method: http.MethodPost, Path: "/v1/events/batch", Scopes: []string{storage.ScopeIngest, storage.ScopeWrite}, Tag: "Events", Summary: "Send up to 1000 events",
			Text:  "At most 5 MiB. Each event stands for itself: what is rejected is named by its index with the fix. 400 when none is good. A bare array is taken too. Each event may carry its own idempotencyKey.",
			Query: batchQuery{}, Request: batchRequest{},
			Answers: map[int]any{202: batchResponse{}, 400: []any{batchResponse{}, web.FailureBody{}}},
			Example: `/v1/events/batch?ids=true {"events":[{"name":"order.completed","userId":"u-1"}]}`, Serve: a.postEvents,
		},
	}
}

// workspace is what is read from one request that carries events.
type workspace struct {
	drafts []*draft
	msgs   []schemas.Message
	index  []int // of the event in the batch, for each message
}

// draft adds a draft to be read into.
func (ws *workspace) draft(kind bodyKind, utf8OK bool) *draft {
	d := &draft{kind: kind, utf8OK: utf8OK}
	ws.drafts = append(ws.drafts, d)
	return d
}

// newID makes a UUIDv7.
func newID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}
	return id.String(), nil
}

// postEvent is POST /v1/events.
func (a *API) postEvent(x *web.Exchange, r *http.Request) {
	in, ok := a.readOne(x, r, eventBody, schemas.MaxEvent)
	if !ok {
		return
	}
	if in.IdempotencyKey != nil && a.deps.Answers != nil {
		a.postKeyed(x, r, in)
		return
	}
	if err := a.deps.Appender.Append(r.Context(), in); err != nil {
		a.metrics.events(0, 1)
		x.FailErr(err)
		return
	}
	x.Accepted = 1
	a.metrics.events(1, 0)
	x.JSON(http.StatusAccepted, []byte(`{"id":"`+in.ID+`","stored":true,"exits":[]}`))
}

// readOne reads a body that is one input; when it is none, it has answered.
func (a *API) readOne(x *web.Exchange, r *http.Request, kind bodyKind, limit int) (*schemas.Input, bool) {
	refused := func(answer func()) (*schemas.Input, bool) {
		if kind == eventBody {
			x.Rejected = 1
			a.metrics.events(0, 1)
		}
		answer()
		return nil, false
	}
	text, err := web.ReadJSON(x, r, limit)
	if err != nil {
		return refused(func() { x.FailErr(err) })
	}
	d := &draft{kind: kind, utf8OK: utf8.ValidString(text)}
	if err := d.readWhole(text); err != nil {
		return refused(func() { x.FailErr(err) })
	}
	if kind == eventBody {
		d.keyFromHeader(r)
	}
	if len(d.issues) == 0 {
		d.checkNamed()
	}
	if len(d.issues) > 0 {
		return refused(func() { x.FailIssues(d.issues) })
	}
	if !d.hasSubject() {
		return refused(func() { failNoSubject(x) })
	}
	id, err := newID()
	if err != nil {
		return refused(func() { x.FailErr(err) })
	}
	x.InputID = id
	return d.finish(id, a.now().UTC(), x.Caller.ID), true
}

// readWhole reads a text that is one value.
func (d *draft) readWhole(text string) error {
	at, err := d.read(text, document.SkipSpace(text, 0))
	if err != nil {
		return asMalformed(err)
	}
	if at = document.SkipSpace(text, at); at < len(text) {
		return web.Malformed(&document.Error{Offset: at, Reason: "something follows the JSON value"}, "")
	}
	return d.wholeUTF8(text)
}

// wholeUTF8 refuses text that is not UTF-8 where no field was to blame.
func (d *draft) wholeUTF8(text string) error {
	if d.utf8OK || len(d.issues) > 0 || utf8.ValidString(text) {
		return nil
	}
	return web.Refuse(http.StatusBadRequest, web.FailureBody{Error: web.MalformedJSON, Detail: "the body is not UTF-8", Fix: "send valid JSON in UTF-8"})
}

func asMalformed(err error) error {
	var f *web.RefusalError
	if errors.As(err, &f) {
		return err
	}
	return web.Malformed(err, "")
}

// keyFromHeader takes the idempotency key from the header: it wins over the
// body's when it is there, and an empty one switches it off.
func (d *draft) keyFromHeader(r *http.Request) {
	values, given := r.Header["Idempotency-Key"]
	if !given || len(values) == 0 {
		return
	}
	d.key = ""
	if !utf8.ValidString(values[0]) { // encoded as JSON, all such keys would be one
		d.issue(web.Issue{Code: "invalid_format", Origin: "string", Format: "utf-8", Message: "Invalid text: not UTF-8", Fix: "send the key in UTF-8"}, "Idempotency-Key")
		return
	}
	quoted, err := web.Marshal(values[0])
	if err != nil {
		return
	}
	if key, ok := d.text(&document.Member{Name: "Idempotency-Key", Value: string(quoted)}, maxKey); ok {
		d.key = key
	}
}

// giver answers with what was decided about an input, which is nil when that is not known
// in time. ctx ends when the sender has waited long enough.
type giver func(ctx context.Context, x *web.Exchange, in *schemas.Input, decided *schemas.Answer)

// appendAndWait appends an input and answers with what the processors decided;
// when that takes too long, with 202 and the input's id: it will be done.
func (a *API) appendAndWait(x *web.Exchange, r *http.Request, in *schemas.Input, give giver) {
	in.Wait = true
	waiter := a.deps.Answers.Register(in.ID)
	defer waiter.Close()
	if err := a.deps.Appender.Append(r.Context(), in); err != nil {
		if in.Type == schemas.InputEvent {
			a.metrics.events(0, 1)
		}
		x.FailErr(err)
		return
	}
	if in.Type == schemas.InputEvent {
		x.Accepted = 1
		a.metrics.events(1, 0)
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.cfg.AnswerTimeout)
	defer cancel()
	text, err := waiter.Wait(ctx)
	if err != nil {
		give(ctx, x, in, nil)
		return
	}
	var decided schemas.Answer
	if err := json.Unmarshal(text, &decided); err != nil {
		x.FailErr(fmt.Errorf("read the answer to input %s: %w", in.ID, err))
		return
	}
	give(ctx, x, in, &decided)
}

// eventResponse is the answer to an event that its sender waited for.
type eventResponse struct {
	ID         string             `json:"id"`
	Stored     bool               `json:"stored"`
	Exits      []schemas.Exit     `json:"exits" doc:"Of a sender that waits: the runs that lived when the event came and whose journey declares exitOn."`
	ContactID  string             `json:"contactId,omitempty"`
	Conflicts  []schemas.Conflict `json:"conflicts,omitempty"`
	ListsError string             `json:"listsError,omitempty"`
	// Reason says why the event was not stored, when it is no duplicate.
	Reason string `json:"reason,omitempty"`
	// Pending says that the event is on the log and what comes of it was not all
	// known in time.
	Pending bool `json:"pending,omitempty" doc:"The event is on the log, and what comes of it was not all known in time: without contactId whether it is new, with it which runs it ended."`
}

func eventResponseOf(in *schemas.Input, decided *schemas.Answer) eventResponse {
	if decided == nil {
		return eventResponse{ID: in.ID, Exits: []schemas.Exit{}, Stored: true, Pending: true}
	}
	return eventResponse{
		ID: in.ID, Exits: []schemas.Exit{}, Stored: decided.Stored, ContactID: decided.ContactID, Conflicts: decided.Conflicts,
		ListsError: decided.ListsError, Reason: decided.Error,
	}
}

// postKeyed takes an event whose sender waits to be told whether it is new and, where
// journeys declare exitOn, what it did to runs.
func (a *API) postKeyed(x *web.Exchange, r *http.Request, in *schemas.Input) {
	var exits *storage.Waiter
	if a.deps.Exits != nil && a.deps.Exits() {
		exits = a.deps.Answers.Register(schemas.ExitsID(schemas.EventID(in.ID)))
		defer exits.Close()
	}
	a.appendAndWait(x, r, in, func(ctx context.Context, x *web.Exchange, in *schemas.Input, decided *schemas.Answer) {
		response := eventResponseOf(in, decided)
		if exits != nil && decided != nil {
			said, err := a.exits(ctx, exits, decided)
			if err != nil {
				response.Pending, x.Err = true, err
			} else {
				response.Exits = said
			}
		}
		x.Encode(http.StatusAccepted, response)
	})
}

// exits waits for what an event did to runs. One that was sent before is told what the
// first did, for as long as answers are kept and if that one's sender waited, too. An error
// says that it is not known in time.
//
// After one that was not, others wait for a tenth of the time until one is: while processor
// journeys is away, senders are not to be held up by it.
func (a *API) exits(ctx context.Context, own *storage.Waiter, decided *schemas.Answer) ([]schemas.Exit, error) {
	waiter := own
	if !decided.Stored {
		if decided.First == "" || decided.ContactID == "" { // erased since
			return []schemas.Exit{}, nil
		}
		given, err := a.deps.Answers.Given(ctx, decided.First)
		if err != nil || !given {
			return []schemas.Exit{}, err
		}
		waiter = a.deps.Answers.RegisterLate(schemas.ExitsID(schemas.EventID(decided.First)))
		defer waiter.Close()
	}
	if a.exitsLate.Load() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.cfg.AnswerTimeout/10)
		defer cancel()
	}
	text, err := waiter.Wait(ctx)
	late := errors.Is(err, context.DeadlineExceeded)
	if late || err == nil {
		a.exitsLate.Store(late)
	}
	if err != nil {
		return nil, err
	}
	var said schemas.Exits
	if err := json.Unmarshal(text, &said); err != nil {
		return nil, fmt.Errorf("read what the event did to runs: %w", err)
	}
	return said.Exits, nil
}

// rejectedEvent is an event of a batch that is not on the log.
type rejectedEvent struct {
	Index   int    `json:"index"`
	Code    string `json:"code"`
	Path    []any  `json:"path"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

// postEvents is POST /v1/events/batch.
func (a *API) postEvents(x *web.Exchange, r *http.Request) {
	text, err := web.ReadJSON(x, r, maxBatchBody)
	if err != nil {
		x.FailErr(err)
		return
	}
	ws := &workspace{}
	n, err := ws.readBatch(text)
	if err != nil {
		x.FailErr(err)
		return
	}
	a.metrics.batch.Observe(float64(n))
	rejected := a.prepare(x, ws, n)
	refused := len(rejected)
	var failed error
	if len(ws.msgs) > 0 {
		if failed = a.deps.Appender.Append(r.Context(), ws.msgs...); failed != nil {
			rejected = append(rejected, ws.unconfirmed(failed)...)
		}
	}
	x.Rejected, x.Accepted = len(rejected), n-len(rejected)
	a.metrics.events(x.Accepted, x.Rejected)
	switch {
	case x.Accepted == 0 && failed != nil:
		x.FailErr(failed)
		return
	case failed != nil:
		x.Err = failed
	}
	status := http.StatusAccepted
	if x.Accepted == 0 && refused > 0 {
		status = http.StatusBadRequest
	}
	a.answerBatch(x, ws, status, rejected, r.URL.RawQuery != "" && r.URL.Query().Get("ids") == "true")
}

// readBatch reads the events of a body, {"events": […]} or a bare array, into
// drafts and returns how many there are.
func (ws *workspace) readBatch(text string) (n int, err error) {
	valid := utf8.ValidString(text)
	at := document.SkipSpace(text, 0)
	found := false
	var end int
	if at < len(text) && text[at] == '{' {
		m := document.Members{Text: text, At: at}
		for !found && m.NextName() {
			if m.Name == "events" && m.At < len(text) && text[m.At] == '[' {
				found = true
				if n, m.At, err = ws.readEvents(text, m.At, valid); err != nil {
					return 0, err
				}
			} else if m.SkipValue(); m.Err != nil {
				break
			}
		}
		for m.Err == nil && found && m.NextName() {
			if m.Name == "events" { // which of the lists is meant? Neither may get lost
				return 0, web.Refuse(http.StatusBadRequest, web.FailureBody{Error: "The field events stands twice in the request body", Path: []any{"events"}, Fix: "send all events in one list"})
			}
			m.SkipValue()
		}
		if m.Err != nil {
			return 0, web.Malformed(m.Err, m.Name)
		}
		end = m.At
	} else if at < len(text) && text[at] == '[' {
		found = true
		if n, end, err = ws.readEvents(text, at, valid); err != nil {
			return 0, err
		}
	} else if end, err = document.Skip(text, at); err != nil {
		return 0, web.Malformed(err, "")
	}
	if end = document.SkipSpace(text, end); end < len(text) {
		return 0, web.Malformed(&document.Error{Offset: end, Reason: "something follows the JSON value"}, "")
	}
	if !found || n == 0 {
		return 0, web.Refuse(http.StatusBadRequest, web.FailureBody{Error: "No events in request body", Path: []any{"events"}, Fix: `send {"events": [{"name": …, "userId": …}, …]} with 1 to 1000 events`})
	}
	return n, nil
}

// readEvents reads the array at text[at].
func (ws *workspace) readEvents(text string, at int, valid bool) (n, end int, err error) {
	at = document.SkipSpace(text, at+1)
	if at < len(text) && text[at] == ']' {
		return 0, at + 1, nil
	}
	for {
		if n == maxBatch {
			return 0, at, web.Refuse(http.StatusBadRequest, web.FailureBody{Error: fmt.Sprintf("More than %d events in one batch", maxBatch), Path: []any{"events"}, Fix: fmt.Sprintf("send at most %d events in one request", maxBatch)})
		}
		d := ws.draft(eventBody, valid)
		start := at
		if at, err = d.read(text, at); err != nil {
			return 0, at, inEvent(asMalformed(err), n)
		}
		if !valid && len(d.issues) == 0 && !utf8.ValidString(text[start:at]) {
			d.notUTF8("")
			d.issues[0].Path = []any{}
		}
		n++
		at = document.SkipSpace(text, at)
		switch {
		case at == len(text):
			return 0, at, inEvent(web.Malformed(&document.Error{Offset: at, Reason: "ends too early"}, ""), n-1)
		case text[at] == ']':
			return n, at + 1, nil
		case text[at] != ',':
			return 0, at, inEvent(web.Malformed(&document.Error{Offset: at, Reason: "a comma or a closing bracket is missing"}, ""), n-1)
		}
		at = document.SkipSpace(text, at+1)
	}
}

// inEvent says in which event of a batch a body is malformed.
func inEvent(err error, index int) error {
	var f *web.RefusalError
	if errors.As(err, &f) && f.Body.Error == web.MalformedJSON {
		f.Body.Path = append([]any{"events", index}, f.Body.Path...)
	}
	return err
}

// prepare makes messages of the drafts without issues and returns the others.
func (a *API) prepare(x *web.Exchange, ws *workspace, n int) (rejected []rejectedEvent) {
	now := a.now().UTC()
	for i, d := range ws.drafts[:n] {
		if len(d.issues) == 0 && !d.hasSubject() {
			d.issue(web.Issue{Code: "custom", Message: noSubject, Fix: "name the person: give userId, email or anonymousId"})
		}
		if len(d.issues) > 0 {
			first := d.issues[0]
			rejected = append(rejected, rejectedEvent{Index: i, Code: first.Code, Path: first.Path, Message: first.Message, Fix: first.Fix})
			continue
		}
		id, err := newID()
		if err != nil {
			rejected = append(rejected, rejectedEvent{Index: i, Code: "unavailable", Path: []any{}, Message: err.Error(), Fix: "send the event again"})
			continue
		}
		ws.msgs = append(ws.msgs, d.finish(id, now, x.Caller.ID))
		ws.index = append(ws.index, i)
	}
	return rejected
}

// unconfirmed are the events that the log did not confirm.
func (ws *workspace) unconfirmed(err error) (rejected []rejectedEvent) {
	reject := func(message int, cause error) {
		e := rejectedEvent{Index: ws.index[message], Code: "unavailable", Path: []any{}, Message: "The log did not confirm the event; it is not known whether it is stored", Fix: "send the event again; an idempotency key makes that safe"}
		if errors.Is(cause, stream.ErrTooLarge) {
			e.Code, e.Message, e.Fix = "too_big", "Too big: the event is too large for the log", "send less in properties"
		}
		rejected = append(rejected, e)
		ws.msgs[message] = nil
	}
	var some *stream.AppendError
	if errors.As(err, &some) {
		for _, f := range some.Failed {
			reject(f.Index, f.Err)
		}
		return rejected
	}
	for i := range ws.msgs {
		reject(i, err)
	}
	return rejected
}

// answerBatch writes {accepted, rejected, ids?}; ids stand in the order of the
// batch, null for what was rejected.
func (a *API) answerBatch(x *web.Exchange, ws *workspace, status int, rejected []rejectedEvent, withIDs bool) {
	out := []byte(`{"accepted":`)
	out = strconv.AppendInt(out, int64(x.Accepted), 10)
	out = append(out, `,"rejected":`...)
	if len(rejected) == 0 {
		out = append(out, `[]`...)
	} else {
		text, err := web.Marshal(rejected)
		if err != nil {
			x.FailErr(fmt.Errorf("encode rejected events: %w", err))
			return
		}
		out = append(out, text...)
	}
	if status != http.StatusAccepted {
		out = append(out, `,"error":"None of the events was accepted"`...)
	}
	if withIDs {
		out = ws.appendIDs(out)
	}
	out = append(out, `,"requestId":"`...)
	out = append(out, x.RequestID...)
	out = append(out, `"}`...)
	x.JSON(status, out)
}

func (ws *workspace) appendIDs(out []byte) []byte {
	out = append(out, `,"ids":[`...)
	next := 0
	for i, m := range ws.msgs {
		for ; next < ws.index[i]; next++ {
			out = append(out, `null,`...)
		}
		next++
		if in, ok := m.(*schemas.Input); ok && in != nil {
			out = append(out, '"')
			out = append(out, in.ID...)
			out = append(out, `",`...)
		} else {
			out = append(out, `null,`...)
		}
	}
	if out[len(out)-1] == ',' {
		out = out[:len(out)-1]
	}
	return append(out, ']')
}
