package console

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/stream/replay"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

func refuse(status int, text, fix string) error {
	return web.Refuse(status, web.FailureBody{Error: text, Fix: fix})
}

// known are errors of the parts with an answer of their own; without a text the
// error is the text.
var known = []struct {
	err       error
	status    int
	text, fix string
}{
	{destinations.ErrNotFound, http.StatusNotFound, noWebhook, ""},
	{storage.ErrDestinationChanged, http.StatusConflict, "", "read it again and repeat the change"},
	{replay.ErrNoDestination, http.StatusNotFound, noWebhook, ""},
	{replay.ErrNoReplay, http.StatusNotFound, "Backfill not found", ""},
	{replay.ErrReplayState, http.StatusConflict, "", "start another one"},
	{replay.ErrNoLetter, http.StatusNotFound, "DLQ entry not found", ""},
	{replay.ErrLetterDone, http.StatusConflict, "Entry is not in pending state", ""},
	{replay.ErrLetterLost, http.StatusConflict, "", "discard the entry"},
	{replay.ErrLetterLate, http.StatusConflict, "", "discard the entry"},
	{replay.ErrLetterErased, http.StatusConflict, "The person of this entry was erased", "discard the entry"},
}

// inWords is an error of the parts as the API says it. What it has no words for stays as
// it is: an outage, a fault of ours.
func inWords(err error) error {
	if err == nil {
		return nil
	}
	if wrong := mistakesOf(err); wrong != nil {
		return web.IssuesError(wrong)
	}
	for _, k := range known {
		if errors.Is(err, k.err) {
			return refuse(k.status, cmp.Or(k.text, err.Error()), k.fix)
		}
	}
	var redrive *replay.RedriveError
	var undelivered *replay.UndeliveredError
	var rotating *destinations.RotatingError
	switch {
	case errors.As(err, &rotating):
		return refuse(http.StatusConflict, rotating.Error(), `wait until then, or send "force": true, which ends that secret at once`)
	case errors.As(err, &undelivered):
		return refuse(http.StatusConflict, undelivered.Error(), `to make dead letters of them instead, send "skipUndelivered": true`)
	case errors.As(err, &redrive):
		return refuse(http.StatusBadGateway, redrive.Error(), "mend the destination, then retry; the entry is pending")
	}
	return err
}

// sent are the fields of bodies that settings are read from under another name.
var sent = map[string]string{"retryHorizon": "retryHorizonSeconds", "overlap": "overlapSeconds"}

// issuePath is where a field stands in the body: `config.apiKey` within config,
// `eventTypes[1]` within eventTypes. Names of headers may hold dots.
func issuePath(field string) []any {
	path := []any{}
	for i, part := range strings.SplitN(field, ".", 3) {
		name, index, isItem := strings.Cut(strings.TrimSuffix(part, "]"), "[")
		n, err := strconv.Atoi(index)
		switch {
		case isItem && err == nil:
			path = append(path, name, n)
		case i == 0 && sent[part] != "":
			path = append(path, sent[part])
		default:
			path = append(path, part)
		}
	}
	return path
}

// mistakesOf are the issues that an error of the sender stands for, or none.
func mistakesOf(err error) []web.Issue {
	var setting *destinations.InvalidError
	var wish *replay.Error
	wrong := func(field, message, fix string) []web.Issue {
		return []web.Issue{{Code: "custom", Path: issuePath(field), Message: message, Fix: fix}}
	}
	switch {
	case errors.As(err, &setting):
		return wrong(setting.Field, setting.Message, setting.Message)
	case errors.As(err, &wish):
		return wrong(wish.Field, wish.Message, wish.Message)
	case errors.Is(err, replay.ErrLetterCursor), errors.Is(err, storage.ErrListCursor):
		return wrong("cursor", err.Error(), "send nextCursor as it was given")
	}
	return nil
}
