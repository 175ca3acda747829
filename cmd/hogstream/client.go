package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hogstream/hogstream"
)

// apiFlags say which Hogstream a command talks to. Without any, it is the
// developer's instance whose data directory is here.
type apiFlags struct {
	URL     string `help:"URL of the API." env:"HOGSTREAM_URL" group:"Connection"`
	Key     string `help:"API key." env:"HOGSTREAM_API_KEY,ADMIN_API_KEY" group:"Connection"`
	DataDir string `help:"Data directory of the developer's instance to use when no URL is given." env:"HOGSTREAM_DATA_DIR" default:".hogstream" type:"path" group:"Connection"`
}

// defaultDataDir is where an instance keeps its data when nobody says otherwise.
const defaultDataDir = ".hogstream"

// client talks to the HTTP API.
type client struct {
	base string
	key  string
	http *http.Client
}

func (f apiFlags) client() (*client, error) {
	if f.URL == "" || f.Key == "" {
		if running, err := hogstream.ReadRunning(f.DataDir); err == nil {
			if f.URL == "" {
				f.URL = running.URL
			}
			if f.Key == "" {
				f.Key = running.APIKey
			}
		}
	}
	if f.URL == "" {
		f.URL = "http://localhost:3002"
	}
	if f.Key == "" {
		return nil, fmt.Errorf("no API key: set HOGSTREAM_API_KEY (--key), or HOGSTREAM_DATA_DIR (--data-dir) to where a developer's instance keeps its data (no %s)", filepath.Join(f.DataDir, "running.json"))
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	return &client{base: strings.TrimRight(f.URL, "/"), key: f.Key, http: &http.Client{Timeout: 30 * time.Second, Transport: transport}}, nil
}

// apiError is an answer that is no success.
type apiError struct {
	Status     int
	Message    string
	RequestID  string
	RetryAfter string
	Body       []byte
}

// Error says it to a person at a terminal: by the flags of the command, not the fields of
// the request.
func (e *apiError) Error() string {
	s := asFlags(e.Message)
	switch {
	case e.RequestID == "":
		s = fmt.Sprintf("what answers there is no Hogstream (is --url, HOGSTREAM_URL, right?): %d %s", e.Status, s)
	case e.Status == http.StatusUnauthorized:
		s = "the API key is not accepted: set HOGSTREAM_API_KEY, or --key, to one that is (hogstream keys ls shows them)"
	}
	if e.RequestID != "" {
		s += " (request " + e.RequestID + ")"
	}
	return s
}

// flagNames are the flags of fields whose names are others.
var flagNames = map[string]string{
	"eventTypes": "--event", "scopes": "--scope", "retryHorizonSeconds": "--retry-horizon", "overlapSeconds": "--overlap",
	"keys": "--contact", "types": "--type", "replayId": "--replay", "disabled": "--paused", "url": "the URL",
	"secret": "--secret-file", "signingKey": "--signing-key-file",
}

// flagName is the flag that sets a field.
func flagName(field string) string {
	if name, ok := flagNames[field]; ok {
		return name
	}
	return "--" + strings.ToLower(upperCase.ReplaceAllString(field, "-$0"))
}

var (
	upperCase = regexp.MustCompile(`[A-Z]`)
	// sentField is how the API tells to send a field: `send "dryRun": true`.
	sentField = regexp.MustCompile(`send "([a-zA-Z]+)": true`)
)

// asFlags says what the API has a sender send as the flags that do.
func asFlags(text string) string {
	return sentField.ReplaceAllStringFunc(text, func(found string) string {
		return "say " + flagName(sentField.FindStringSubmatch(found)[1])
	})
}

// call sends body as JSON and decodes the answer into result; both may be nil.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body, result any) error {
	if body == nil {
		return c.send(ctx, method, path, query, nil, result)
	}
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.send(ctx, method, path, query, b, result)
}

// send is call with a body that is JSON already.
func (c *client) send(ctx context.Context, method, path string, query url.Values, body []byte, result any) error {
	resp, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", path, err)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer, result)
}

// maxAnswer bounds what is read of an answer into memory.
const maxAnswer = 64 << 20

// do sends a request; the answer is a success, and the caller closes its body.
func (c *client) do(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("cannot reach %s (HOGSTREAM_URL, --url): %w", c.base, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", path, err)
	}
	return nil, answerError(resp, answer)
}

// destination is a client and the path of a destination given by id or name.
func (f apiFlags) destination(ctx context.Context, idOrName string) (api *client, path string, err error) {
	if api, err = f.client(); err != nil {
		return nil, "", err
	}
	id, err := destinationID(ctx, api, idOrName)
	return api, "/v1/admin/webhooks/" + url.PathEscape(id), err
}

// pages reads a list that is handed out in pages: at most limit of its members,
// which stand under name in each answer.
func pages[T any](ctx context.Context, api *client, path, name string, query url.Values, limit, most int) ([]T, error) {
	return pagesWith[T](ctx, api, path, name, query, limit, most, func(map[string]json.RawMessage) error { return nil })
}

// pagesWith is pages that has each answer looked at.
func pagesWith[T any](ctx context.Context, api *client, path, name string, query url.Values, limit, most int, look func(map[string]json.RawMessage) error) ([]T, error) {
	found := []T{}
	for len(found) < limit {
		query.Set("limit", strconv.Itoa(min(most, limit-len(found))))
		var page map[string]json.RawMessage
		if err := api.call(ctx, "GET", path, query, nil, &page); err != nil {
			return nil, err
		}
		var part []T
		var next *string
		if page["nextCursor"] == nil {
			page["nextCursor"] = json.RawMessage("null")
		}
		if err := errors.Join(json.Unmarshal(page[name], &part), json.Unmarshal(page["nextCursor"], &next), look(page)); err != nil {
			return nil, fmt.Errorf("read the answer of %s: %w", path, err)
		}
		found = append(found, part...)
		if next == nil {
			break
		}
		query.Set("cursor", *next)
	}
	return found, nil
}

// offsetPages is pages of a list that is read by offset.
func offsetPages[T any](ctx context.Context, api *client, path, name string, query url.Values, limit int) ([]T, error) {
	found := []T{}
	for len(found) < limit {
		part := min(100, limit-len(found))
		query.Set("limit", strconv.Itoa(part))
		query.Set("offset", strconv.Itoa(len(found)))
		var page map[string]json.RawMessage
		if err := api.call(ctx, http.MethodGet, path, query, nil, &page); err != nil {
			return nil, err
		}
		var members []T
		if err := json.Unmarshal(page[name], &members); err != nil {
			return nil, fmt.Errorf("read the answer of %s: %w", path, err)
		}
		if found = append(found, members...); len(members) < part {
			break
		}
	}
	return found, nil
}

func answerError(resp *http.Response, body []byte) error {
	e := &apiError{Status: resp.StatusCode, RetryAfter: resp.Header.Get("Retry-After"), Body: body}
	var envelope struct {
		Error     json.RawMessage `json:"error"`
		Fix       string          `json:"fix"`
		RequestID string          `json:"requestId"`
	}
	_ = json.Unmarshal(body, &envelope)
	e.RequestID = envelope.RequestID
	var validation struct {
		Message string `json:"message"`
	}
	switch {
	case json.Unmarshal(envelope.Error, &e.Message) == nil:
		e.Message = withFix(e.Message, envelope.Fix)
	case json.Unmarshal(envelope.Error, &validation) == nil && validation.Message != "":
		e.Message = issuesText(validation.Message)
	default:
		e.Message = strings.TrimSpace(string(body[:min(len(body), 300)]))
	}
	return e
}

func withFix(message, fix string) string {
	if fix == "" || fix == message {
		return message
	}
	return message + ": " + fix
}

// issuesText is for people what the API says of a document: a JSON list of what is
// wrong, where, and how to mend it. A message that is no such list stays as it is.
func issuesText(message string) string {
	var issues []struct {
		Path    []any  `json:"path"`
		Message string `json:"message"`
		Fix     string `json:"fix"`
	}
	if json.Unmarshal([]byte(message), &issues) != nil || len(issues) == 0 {
		return message
	}
	texts := make([]string, 0, len(issues))
	for _, i := range issues {
		text := withFix(i.Message, i.Fix)
		if len(i.Path) > 0 {
			at := make([]string, len(i.Path))
			for n, part := range i.Path {
				at[n] = fmt.Sprint(part)
			}
			at[0] = flagName(at[0])
			text = strings.Join(at, ".") + ": " + text
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "\n")
}

// infraFlags are for commands that talk to Kafka and Postgres themselves.
// Settings that are not given are taken from the developer's instance that
// runs on the data directory.
type infraFlags struct {
	hogstream.Config `embed:""`
}

func (f *infraFlags) config() (hogstream.Config, error) {
	cfg := f.Config
	if running, err := hogstream.ReadRunning(cfg.DataDir); err == nil {
		running.FillIn(&cfg)
	} else if !errors.Is(err, os.ErrNotExist) {
		return cfg, err
	}
	return cfg, nil
}
