package eventfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/cmd/hogstream/eventfile"
)

// read reads a whole file: a line for each event ("2 {…}") or refused line ("2 ! why"), and the
// error that stopped it.
func read(content string, o eventfile.Options) (got []string, err error) {
	r, err := eventfile.New(strings.NewReader(content), o)
	if err != nil {
		return nil, err
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		if e.Problem != "" {
			got = append(got, fmt.Sprintf("%d ! %s", e.Line, e.Problem))
			continue
		}
		got = append(got, fmt.Sprintf("%d %s", e.Line, e.JSON))
	}
}

// TestFilesFromTheField decides each of the files that people have tried to import: what is
// right for it, and how a refusal is told.
func TestFilesFromTheField(t *testing.T) {
	for _, tc := range []struct {
		file    string
		options eventfile.Options
		want    []string
		err     string
	}{
		{file: "anon.csv", want: []string{`2 {"name":"x","anonymousId":"anon-1","eventProperties":{"sku":"12E5"}}`}},
		{file: "arr.json", want: []string{`1 {"name":"imp.arr","userId":"ib22"}`, `1 {"name":"imp.arr","userId":"ib23"}`}},
		{file: "badquote.csv", want: []string{
			`2 ! column 15: a quote (") within a cell that is not quoted: put the cell in quotes and write the quote twice ("")`,
			`3 ! a quote (") is opened and never closed: close it, or write a quote that belongs to the text twice ("")`,
			`4 {"name":"imp.quote","userId":"ib28"}`,
		}},
		{file: "blank.csv", want: []string{`3 {"name":"imp.blank","userId":"ib15"}`}},
		{file: "bom.csv", want: []string{`2 {"name":"imp.bom","userId":"ib1","email":"ib1@example.com"}`}},
		{file: "bom.ndjson", want: []string{`1 {"name":"imp.bomnd","userId":"ib2"}`, `2 {"name":"imp.bomnd","userId":"ib3"}`}},
		{file: "cr.csv", want: []string{`2 {"name":"imp.cr","userId":"ib24"}`, `3 {"name":"imp.cr","userId":"ib25"}`}},
		{file: "crlf.ndjson", want: []string{`1 {"name":"imp.crlf","userId":"ib31"}`, `2 {"name":"imp.crlf","userId":"ib32"}`}},
		{file: "dup16.csv", err: `columns 1 ("name") and 3 ("name") are the same: remove or rename one`},
		{file: "duphdr.csv", err: `columns 1 ("name") and 3 ("name") are the same: remove or rename one`},
		{file: "empty.csv", err: "the file is empty"},
		{file: "hcase.csv", want: []string{`2 {"name":"imp.case","userId":"ib11"}`}},
		{file: "hspace.csv", want: []string{`2 {"name":"imp.hsp","userId":"ib10"}`}},
		{file: "iddup.csv", want: []string{
			`2 {"name":"imp.id","userId":"ib170","idempotencyKey":"key-1","anonymousId":"anon-170","email":"ib170@example.com"}`,
			`3 {"name":"imp.id","userId":"ib170","idempotencyKey":"key-1","anonymousId":"anon-170","email":"ib170@example.com"}`,
			`4 {"name":"imp.id","userId":"1e5"}`, `5 {"name":"imp.id","userId":"007"}`, `6 {"name":"imp.id","userId":"true"}`,
			`7 {"name":"imp.id","userId":"12345678901234567890"}`, `8 {"name":"imp.num","userId":"ib171"}`,
		}},
		{file: "jsoncell.csv", want: []string{
			`2 {"name":"imp.json","userId":"ib18","eventProperties":{"a":1}}`,
			`3 ! column eventProperties: "notjson" is not a JSON object`,
		}},
		{file: "key.csv", want: []string{
			`2 {"name":"order.completed","userId":"m9","idempotencyKey":"order-7"}`,
			`3 {"name":"order.completed","userId":"m9","idempotencyKey":"order-7"}`, // the API takes the key once
		}},
		{file: "latin1.csv", want: []string{
			`2 ! column 8: the byte 0xE9 is not UTF-8: save the file as UTF-8, or give --encoding windows-1252 (or utf-16)`,
		}},
		{file: "latin1.csv", options: eventfile.Options{Encoding: "windows-1252"}, want: []string{`2 {"name":"imp.latén","userId":"ib29"}`}},
		{file: "latin1.ndjson", want: []string{
			`1 ! column 65: the byte 0xFC is not UTF-8: save the file as UTF-8, or give --encoding windows-1252 (or utf-16)`,
			`2 {"name":"imp.l1nd","userId":"ib182"}`,
		}},
		{file: "latin1.ndjson", options: eventfile.Options{Encoding: "windows-1252"}, want: []string{
			`1 {"name":"imp.l1nd","userId":"ib181","eventProperties":{"city":"München"}}`, `2 {"name":"imp.l1nd","userId":"ib182"}`,
		}},
		{file: "latin1prop.csv", want: []string{
			`2 ! column 15: the byte 0xFC is not UTF-8: save the file as UTF-8, or give --encoding windows-1252 (or utf-16)`,
		}},
		{file: "latin1prop.csv", options: eventfile.Options{Encoding: "windows-1252"}, want: []string{
			`2 {"name":"imp.l1","userId":"ib180","eventProperties":{"city":"München","last_name":"null"}}`,
		}},
		{file: "mend.csv", want: []string{`2 {"name":"imp.mend","userId":"m1"}`, `3 {"name":"imp.mend","userId":"m3"}`}},
		{file: "nofinal.ndjson", want: []string{`1 {"name":"imp.nofinal","userId":"ib30"}`}},
		{file: "nofinal.ndjson.gz", want: []string{`1 {"name":"imp.nofinal","userId":"ib30"}`}},
		{file: "num.csv", want: []string{
			`2 {"name":"imp.num","userId":"ib172","eventProperties":{"sku":"12E5","zip":"01234","phone":"+491234","v":"1.10","big":"12345678901234567890","flag":"TRUE","neg":"-0"}}`,
		}},
		{
			file:    "num.csv",
			options: eventfile.Options{Types: map[string]eventfile.Type{"v": eventfile.Number, "big": eventfile.Number, "flag": eventfile.Boolean, "neg": eventfile.Number}},
			want: []string{
				`2 {"name":"imp.num","userId":"ib172","eventProperties":{"sku":"12E5","zip":"01234","phone":"+491234","v":1.10,"big":12345678901234567890,"flag":true,"neg":-0}}`,
			},
		},
		{
			file: "num.csv", options: eventfile.Options{Types: map[string]eventfile.Type{"zip": eventfile.Number}},
			want: []string{`2 ! column zip: "01234" is not a number such as 12, -0.5 or 1e3`},
		},
		{file: "num.csv", options: eventfile.Options{Types: map[string]eventfile.Type{"zap": eventfile.Number}}, err: `no column "zap"`},
		{file: "onlyheader.csv", want: nil},
		{file: "pretty.ndjson", want: []string{
			`1 {"name":"imp.nd","userId":"ib19"}`, "3 {\"name\":\"imp.nd\",\n  \"userId\":\"ib20\"}", `5 {"name":"imp.nd","userId":"ib21"}`,
		}},
		{file: "props.csv", want: []string{
			`2 {"name":"imp.props","userId":"ib7","email":"ib7@example.com","eventProperties":{"total":"42","sku":"007"},"contactProperties":{"plan":"pro"},"lists":{"news":true}}`,
			`3 {"name":"imp.props","userId":"ib8","email":"ib8@example.com","eventProperties":{"total":"9007199254740993","sku":"1e5"},"lists":{"news":false}}`,
			`4 {"name":"imp.props","userId":"ib9","eventProperties":{"sku":"a,\"b\"\nc"},"contactProperties":{"plan":"null"}}`,
		}},
		{file: "ragged.csv", want: []string{
			"2 ! the row has 3 columns, the header 2", "3 ! the row has 1 columns, the header 2", `4 {"name":"imp.ragged","userId":"ib14"}`,
		}},
		{file: "seg.csv", err: `no column "name" for the event's name (columns: event, user_id): try --name-column "event"`},
		{
			file: "seg.csv", options: eventfile.Options{Columns: eventfile.Columns{Name: "event"}},
			err: `no column "userId", "email" or "anonymousId" for the person (columns: event, user_id): try --user-column "user_id"`,
		},
		{
			file: "seg.csv", options: eventfile.Options{Columns: eventfile.Columns{Name: "event", UserID: "user_id"}},
			want: []string{`2 {"name":"imp.seg","userId":"ib12"}`},
		},
		{file: "semi.csv", want: []string{`2 {"name":"imp.semi","userId":"ib4","email":"ib4@example.com"}`}},
		{file: "tab.tsv", want: []string{`2 {"name":"imp.tab","userId":"ib5"}`}},
		{file: "ts.csv", want: []string{
			`2 {"name":"imp.ts","userId":"ib17","timestamp":"2026-01-31T12:00:00Z"}`,
			`3 ! column timestamp: "1/31/2026" is no time such as 2026-01-02T03:04:05Z; where day and month can be taken for each other nobody can tell`,
			`4 ! column timestamp: "1767225600" is a number: say what it counts, --unix-times s, ms or us`,
			`5 {"name":"imp.ts","userId":"ib17","timestamp":"2026-01-31T12:00:00Z"}`,
			`6 {"name":"imp.ts","userId":"ib17"}`,
		}},
		{file: "ts.csv", options: eventfile.Options{Unix: time.Second, Zone: time.FixedZone("", -5*3600)}, want: []string{
			`2 {"name":"imp.ts","userId":"ib17","timestamp":"2026-01-31T17:00:00Z"}`,
			`3 ! column timestamp: "1/31/2026" is no time such as 2026-01-02T03:04:05Z; where day and month can be taken for each other nobody can tell`,
			`4 {"name":"imp.ts","userId":"ib17","timestamp":"2026-01-01T00:00:00Z"}`,
			`5 {"name":"imp.ts","userId":"ib17","timestamp":"2026-01-31T12:00:00Z"}`,
			`6 {"name":"imp.ts","userId":"ib17"}`,
		}},
		{file: "u16.csv", want: []string{`2 {"name":"imp.u16","userId":"ib6"}`}},
		{file: "u16.csv", options: eventfile.Options{Encoding: "utf-16"}, want: []string{`2 {"name":"imp.u16","userId":"ib6"}`}},
		{file: "u16.csv", options: eventfile.Options{Encoding: "utf-8"}, err: "is not UTF-8"},
		{file: "mend.csv", options: eventfile.Options{Encoding: "ebcdic"}, err: `encoding "ebcdic" is not known`},
	} {
		t.Run(fmt.Sprintf("%s %s", tc.file, tc.options.Encoding), func(t *testing.T) {
			content, err := os.ReadFile(filepath.Join("testdata", "cases", tc.file))
			require.NoError(t, err)
			tc.options.Name = tc.file
			got, err := read(string(content), tc.options)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestEveryFileFromTheFieldIsDecided(t *testing.T) {
	source, err := os.ReadFile("cases_test.go")
	require.NoError(t, err)
	files, err := os.ReadDir(filepath.Join("testdata", "cases"))
	require.NoError(t, err)
	for _, f := range files {
		require.True(t, bytes.Contains(source, []byte(`file: "`+f.Name()+`"`)) || bytes.Contains(source, []byte(`file:    "`+f.Name()+`"`)), f.Name())
	}
}
