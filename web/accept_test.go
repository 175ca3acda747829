package web_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/web"
)

// Named is a part that several requests share.
type Named struct {
	Name string `json:"name" minLength:"1" maxLength:"5"`
}

type order struct {
	Named
	Kind   string     `json:"kind,omitempty" enum:"a,b" default:"a"`
	Count  int        `json:"count,omitempty" minimum:"1" maximum:"9"`
	Rate   *float64   `json:"rate,omitempty" minimum:"0"`
	Done   *bool      `json:"done,omitempty"`
	Tags   []string   `json:"tags,omitempty" minItems:"1" nullable:"false"`
	At     *time.Time `json:"at,omitempty"`
	Config web.Object `json:"config,omitempty"`
	Note   *string    `json:"note,omitempty" nullable:"true"`
}

// Check refuses a name that is its kind.
func (o *order) Check() web.IssuesError {
	if o.Name == o.Kind {
		return web.IssuesError{web.Wrong("kind", "custom", "The same as name", "choose another")}
	}
	return nil
}

type orderQuery struct {
	web.Page
	From time.Time `json:"from"`
	All  bool      `json:"all"`
}

// served serves a route.
func served(t require.TestingT, route web.Route) func(method, target, body string) *httptest.ResponseRecorder {
	table, err := web.Compile(web.About{}, []web.Route{route})
	require.NoError(t, err)
	mux := chi.NewRouter()
	mux.Use(web.NewEdge(web.Config{}, zap.NewNop()).Exchanges)
	mux.Method(route.Method, route.Path, web.Handle(table.Routes[0].Serve))
	return func(method, target, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w
	}
}

// issuesOf are what is wrong, as "path code", the path with dots.
func issuesOf(t require.TestingT, w *httptest.ResponseRecorder) (out []string, all []web.Issue) {
	var body web.IssuesBody
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body.String())
	require.NoError(t, json.Unmarshal([]byte(body.Error.Message), &all))
	for _, i := range all {
		path, err := json.Marshal(i.Path)
		require.NoError(t, err)
		out = append(out, string(path)+" "+i.Code)
		require.NotEmpty(t, i.Fix)
		require.NotEmpty(t, i.Message)
	}
	return out, all
}

func orders(got *order) web.Route {
	return web.Route{
		Method: http.MethodPost, Path: "/orders/{id}", Scopes: []string{"write"}, Tag: "Orders", Summary: "Make an order",
		Example: `/orders/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01 {"name":"x"}`, Status: http.StatusCreated,
		Handle: web.Body(func(_ *web.Request, o *order) (*order, error) { *got = *o; return o, nil }),
	}
}

const anOrder = "/orders/0198F0A0-3c4e-7d2a-9b1e-5a6f7c8d9e01"

func TestABodyBecomesTheValueThatItsTypeDescribes(t *testing.T) {
	t.Parallel()
	var got order
	send := served(t, orders(&got))
	w := send(http.MethodPost, anOrder, ` {"name":"\ufffd","count":2e0,"rate":0.5,"done":false,"tags":["","b"],"at":"2026-01-31T12:00Z","config":{"b": 1e2,"a":"<\ud800"},"note":null} `)
	require.Equal(t, http.StatusCreated, w.Code, w.Body)
	require.Equal(t, "�", got.Name)
	require.Equal(t, "a", got.Kind, "by default")
	require.Equal(t, 2, got.Count)
	require.InDelta(t, 0.5, *got.Rate, 0)
	require.False(t, *got.Done)
	require.Equal(t, []string{"", "b"}, got.Tags)
	require.Equal(t, time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC), got.At.UTC())
	require.Equal(t, `{"b": 1e2,"a":"<\ud800"}`, string(got.Config), "byte for byte")
	require.Nil(t, got.Note)
}

func TestEverythingThatIsWrongWithARequestIsToldAtOnce(t *testing.T) {
	t.Parallel()
	var got order
	send := served(t, orders(&got))
	for body, want := range map[string][]string{
		`{"kind":"a"}`:               {`["name"] invalid_type`},
		`{}`:                         {`["name"] invalid_type`},
		`{"nam":"x"}`:                {`["nam"] unrecognized_keys`}, // which is what is missing
		`{"name":"x","name":"y"}`:    {`["name"] custom`},
		`{"name":"a"}`:               {`["kind"] custom`},
		`{"name":" ","rate":1e999}`:  {`["name"] too_small`, `["rate"] too_big`},
		`{"name":"a\u0000"}`:         {`["name"] invalid_format`},
		`{"name":"\udc00\ud800"}`:    {`["name"] invalid_format`},
		`{"name":"x","done":"true"}`: {`["done"] invalid_type`},
		`{"name":null,"kind":"c","count":10,"rate":-1,"done":0,"tags":[],"at":"2026-01-31","config":[],"note":1}`: {
			`["name"] invalid_type`, `["kind"] invalid_value`, `["count"] too_big`, `["rate"] too_small`, `["done"] invalid_type`,
			`["tags"] too_small`, `["at"] invalid_format`, `["config"] invalid_type`, `["note"] invalid_type`},
		`{"name":"üüüüü!","count":1.5,"tags":[1,"\u0000"],"at":"2026-02-29T00:00Z"}`: {
			`["name"] too_big`, `["count"] invalid_type`, `["tags",0] invalid_type`, `["tags",1] invalid_format`, `["at"] invalid_format`},
	} {
		w := send(http.MethodPost, anOrder, body)
		require.Equal(t, http.StatusBadRequest, w.Code, body)
		paths, _ := issuesOf(t, w)
		require.Equal(t, want, paths, body)
	}
	for body, detail := range map[string]string{`[]`: "not a JSON object (at byte 0)", `null`: "not a JSON object", `{"name":`: "ends too early (at byte 8)", ``: "not a JSON object"} {
		require.Contains(t, send(http.MethodPost, anOrder, body).Body.String(), detail, body)
	}
	paths, all := issuesOf(t, send(http.MethodPost, "/orders/7?x=1", `{"name":1}`))
	require.Equal(t, []string{`["id"] invalid_format`, `["x"] unrecognized_keys`, `["name"] invalid_type`}, paths)
	require.Equal(t, "Invalid input: expected string, received number", all[2].Message)
	require.Equal(t, order{}, got, "no handler was called")
}

func TestAQueryBecomesTheValueThatItsTypeDescribes(t *testing.T) {
	t.Parallel()
	var got orderQuery
	send := served(t, web.Route{
		Method: http.MethodGet, Path: "/orders", Scopes: []string{"read"}, Tag: "Orders", Summary: "List orders", Example: "/orders?limit=1",
		Handle: web.Query(func(_ *web.Request, q *orderQuery) (web.Page, error) { got = *q; return q.Page, nil }),
	})
	require.JSONEq(t, `{"limit":50,"offset":0}`, send(http.MethodGet, "/orders", "").Body.String())
	require.Equal(t, http.StatusOK, send(http.MethodGet, "/orders?limit=7&offset=2147483647&all=true&from=2026-01-31T12:00:00.5%2B02:00", "").Code)
	require.Equal(t, web.Page{Limit: 7, Offset: 1<<31 - 1}, got.Page)
	require.True(t, got.All)
	require.Equal(t, time.Date(2026, 1, 31, 10, 0, 0, 5e8, time.UTC), got.From.UTC())
	paths, all := issuesOf(t, send(http.MethodGet, "/orders?limit=0&offset=1.5&all=yes&from=&limt=1", `{"a":1}`))
	require.Equal(t, []string{`["all"] invalid_value`, `["from"] invalid_format`, `["limit"] too_small`, `["limt"] unrecognized_keys`, `["offset"] invalid_type`, `["a"] unrecognized_keys`}, paths)
	require.Equal(t, "send a whole number from 1 to 100", all[2].Fix)
	require.Equal(t, "use one of all, from, limit, offset", all[3].Fix)
}

func TestARequestWhoseEmbeddedFieldsNoSchemaSeesIsNotServed(t *testing.T) {
	t.Parallel()
	type hidden struct{ order }
	r := orders(&order{})
	r.Handle = web.Body(func(*web.Request, *hidden) (*order, error) { return nil, nil })
	_, err := web.Compile(web.About{}, []web.Route{r})
	require.ErrorContains(t, err, "export their type")
}

// Whatever is sent is either refused with what is wrong, or decodes into the type as
// encoding/json does it.
func TestNoValueThatItsTypeCannotHoldReachesAHandler(t *testing.T) {
	t.Parallel()
	var got order
	send := served(t, orders(&got))
	values := []string{`1`, `-1`, `9`, `10`, `1.5`, `1e3`, `1e400`, `"a"`, `"b"`, `"abcdef"`, `""`, `"\ud800"`, `"2026-01-31T12:00:00Z"`, `true`, `null`, `[]`, `["x"]`, `[null]`, `{}`, `{"a":{}}`}
	rapid.Check(t, func(t *rapid.T) {
		members := []string{}
		for _, name := range []string{"name", "kind", "count", "rate", "done", "tags", "at", "config", "note", "other"} {
			if value := rapid.SampledFrom(append(slices.Clone(values), "")).Draw(t, name); value != "" {
				members = append(members, `"`+name+`":`+value)
			}
		}
		body := "{" + strings.Join(members, ",") + "}"
		switch w := send(http.MethodPost, anOrder, body); w.Code {
		case http.StatusBadRequest:
			issuesOf(t, w)
		case http.StatusCreated:
			want := order{Kind: "a"}
			dec := json.NewDecoder(strings.NewReader(body))
			dec.DisallowUnknownFields()
			if !strings.Contains(body, "1e3") { // a whole number to us, none to encoding/json
				require.NoError(t, dec.Decode(&want), body)
				require.Equal(t, want, got, body)
			}
		default:
			t.Fatalf("%d for %s", w.Code, body)
		}
	})
}

func FuzzAnyBodyIsAnswered(f *testing.F) {
	for _, seed := range []string{`{"name":"x"}`, `{"name":"x","config":{"a":[1,{}]}}`, ` [`, `{"a":1,"a":2}`, `{"tags":["\ud800"]}`, "\xff", `{"count":1e-9}`} {
		f.Add(seed)
	}
	var got order
	send := served(f, orders(&got))
	f.Fuzz(func(t *testing.T, body string) {
		require.Less(t, send(http.MethodPost, anOrder, body).Code, 500)
	})
}
