package eventfile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/cmd/hogstream/eventfile"
)

func TestAHeaderSaysWhatEachColumnIs(t *testing.T) {
	for _, tc := range []struct{ name, content, want, err string }{
		{name: "a type behind a colon", content: "name,userId,total:number,lists.news,paid:boolean,x:y\nn,u,1.10,NO,t,z", want: `2 {"name":"n","userId":"u","eventProperties":{"total":1.10,"paid":true,"x:y":"z"},"lists":{"news":false}}`},
		{name: "a member that is JSON", content: "name,userId,contactProperties.tags:json\nn,u,\"[1, \"\"a\"\"]\"", want: `2 {"name":"n","userId":"u","contactProperties":{"tags":[1,"a"]}}`},
		{name: "a list that is neither", content: "name,userId,lists.news\nn,u,maybe", want: `2 ! column lists.news: "maybe" is neither true nor false`},
		{name: "names and members in any case", content: "NAME,Email,CONTACTPROPERTIES.Plan\nn,e@x.y,pro", want: `2 {"name":"n","email":"e@x.y","contactProperties":{"Plan":"pro"}}`},
		{name: "the same in another case", content: "name,userId,Name\nn,u,x", err: `columns 1 ("name") and 3 ("Name") are the same`},
		{name: "a property said twice", content: "name,userId,sku,eventProperties.sku\nn,u,1,2", err: `columns 3 ("sku") and 4 ("eventProperties.sku") are the same`},
		{name: "an object and one of its members", content: "name,userId,lists,lists.news\nn,u,{},true", err: `columns 3 ("lists") and 4 ("lists.news") both say lists`},
		{name: "no header", content: "signup,u1\nsignup,u2", err: `no column "name" for the event's name (columns: signup, u1): the first line of the file has to name them`},
		{name: "only blank lines", content: " \r\n\t\n", err: "the file is empty"},
		{name: "a column without a name that is empty", content: "name,userId,\nn,u,", want: `2 {"name":"n","userId":"u"}`},
		{name: "a column without a name that is not", content: "name,userId,\nn,u,x", want: `2 ! column 3: "x" stands in a column without a name: name it in the header`},
		{name: "semicolons within quotes", content: "\"name;a\";name;userId\n\"x,y;z\";n;u", want: `2 {"name":"n","userId":"u","eventProperties":{"name;a":"x,y;z"}}`},
		{name: "bars", content: "name|userId\nn|u", want: `2 {"name":"n","userId":"u"}`},
		{name: "padded cells", content: "name,userId,note\n n , u , x ", want: `2 {"name":"n","userId":"u","eventProperties":{"note":" x "}}`},
		{name: "markup", content: "name,userId,note\nn,u,<a&b>", want: `2 {"name":"n","userId":"u","eventProperties":{"note":"<a&b>"}}`},
		{name: "an open quote in the header", content: "name,\"userId\nn,u", err: `that neither ends its cell nor is written twice`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := read(tc.content, eventfile.Options{Name: "f.csv"})
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{tc.want}, got)
		})
	}
}

func TestAColumnOfItsOwnNameLeavesTheAPIsNameToAProperty(t *testing.T) {
	got, err := read("event,name,uid\nsignup,Ada,u1", eventfile.Options{Name: "f.csv", Columns: eventfile.Columns{Name: "event", UserID: "uid"}})
	require.NoError(t, err)
	require.Equal(t, []string{`2 {"name":"signup","userId":"u1","eventProperties":{"name":"Ada"}}`}, got)
}

func TestOneBrokenLineCostsNoOther(t *testing.T) {
	for name, tc := range map[string]struct {
		content string
		want    []string
	}{
		"an object that is not closed": {`{"name":"a","userId":` + "\n" + `{"name":"b"}`, []string{"1 ! the line is not a JSON object: it is not closed", `2 {"name":"b"}`}},
		"garbage":                      {"wrong\n\"x\"\n" + `{"name":"b"}`, []string{"1 ! the line is not a JSON object", "2 ! the line is not a JSON object", `3 {"name":"b"}`}},
		"elements that are no objects": {`[1,"]",{"name":"a"},[{"name":"x"}]]` + "\n" + `{"name":"b"}`, []string{
			"1 ! the element is not a JSON object", "1 ! the element is not a JSON object", `1 {"name":"a"}`, "1 ! the element is not a JSON object", `2 {"name":"b"}`,
		}},
		"garbage behind an object": {`{"name":"a"} x` + "\n" + `{"name":"b"}`, []string{`1 {"name":"a"}`, "1 ! the line is not a JSON object", `2 {"name":"b"}`}},
		"two on a line":            {`{"name":"a"}{"name":"b"}`, []string{`1 {"name":"a"}`, `1 {"name":"b"}`}},
		"a line that is too large": {strings.Repeat("x", 2<<20) + "\n" + `{"name":"b"}`, []string{"1 ! the line is larger than 1 MiB", `2 {"name":"b"}`}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(tc.content, eventfile.Options{Name: "f.ndjson"})
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestAnArrayOverManyLinesIsReadElementByElement(t *testing.T) {
	got, err := read("[\n  {\"name\": \"a\",\n   \"eventProperties\": {\"x\": [1, {\"y\": \"}]\"}]}},\n  {\"name\":\"b\"}\n]\n", eventfile.Options{})
	require.NoError(t, err)
	require.Equal(t, []string{"2 {\"name\": \"a\",\n   \"eventProperties\": {\"x\": [1, {\"y\": \"}]\"}]}}", `4 {"name":"b"}`}, got)

	got, err = read("[{\"name\":\"a\"},\n{\"name\":\"b\",\n", eventfile.Options{})
	require.ErrorContains(t, err, "line 2:")
	require.ErrorContains(t, err, "mend the file there")
	require.Equal(t, []string{`1 {"name":"a"}`}, got)

	got, err = read("[{\"name\":\"a\"} {\"name\":\"b\"}]", eventfile.Options{})
	require.ErrorContains(t, err, "line 1: the line is not a JSON object, and what follows in the array cannot be told apart", "a comma is missing")
	require.Equal(t, []string{`1 {"name":"a"}`}, got)
}

func TestHalfACharacterIsRefusedAndNotReplaced(t *testing.T) {
	text := []uint16{0xFEFF}
	text = append(text, utf16.Encode([]rune("name,userId\nok,\uFFFD\nbad,"))...)
	text = append(text, 0xD800)
	text = append(text, utf16.Encode([]rune("\nok,😀\n"))...)
	var b bytes.Buffer
	for _, unit := range text {
		b.Write([]byte{byte(unit >> 8), byte(unit)})
	}
	got, err := read(b.String(), eventfile.Options{Name: "f.csv"})
	require.NoError(t, err)
	require.Len(t, got, 3)
	require.Equal(t, `2 {"name":"ok","userId":"`+"\uFFFD"+`"}`, got[0])
	require.Contains(t, got[1], "3 ! column 5: the byte 0xFF is not UTF-8")
	require.Equal(t, `4 {"name":"ok","userId":"😀"}`, got[2])
}

// Keys follow content: a line that goes or comes moves nobody else's.
func TestAMendedFileKeepsTheKeysOfItsOtherLines(t *testing.T) {
	keys := func(content string) (found []string) {
		r, err := eventfile.New(strings.NewReader(content), eventfile.Options{Name: "f.csv"})
		require.NoError(t, err)
		for {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				return found
			}
			require.NoError(t, err)
			r.Key(&e, "f.csv")
			var key struct{ IdempotencyKey string }
			require.NoError(t, json.Unmarshal(e.JSON, &key))
			require.NotEmpty(t, key.IdempotencyKey)
			found = append(found, key.IdempotencyKey)
		}
	}
	before := keys("name,userId\nn,m1\nn,m2\nn,m1\nn,m3\n")
	after := keys("name,userId\nn,m0\nn,m1\nn,m1\nn,m3\n")
	require.Len(t, map[string]bool{before[0]: true, before[1]: true, before[2]: true, before[3]: true}, 4, "equal lines are two events")
	require.Equal(t, []string{before[0], before[2], before[3]}, after[1:])
}

func TestRefusedLinesCanBeMendedAndReadAgain(t *testing.T) {
	content := "name;userId;n:number\n\"a\nb\";u1;1\nx;u2;two\ny;u3\nz;u4;4\n"
	r, err := eventfile.New(strings.NewReader(content), eventfile.Options{Name: "f.csv"})
	require.NoError(t, err)
	refused := map[int]bool{}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if e.Problem != "" || e.Subject == `"u1"` { // what the API refuses is no other
			refused[e.Number] = true
		}
	}
	var out strings.Builder
	require.NoError(t, eventfile.CopyRefused(&out, strings.NewReader(content), eventfile.Options{Name: "f.csv"}, refused))
	require.Equal(t, "name;userId;n:number\n\"a\nb\";u1;1\nx;u2;two\ny;u3\n", out.String())

	require.Equal(t, "dir/f.refused.csv", eventfile.RefusedName("dir/f.csv.gz"))
	require.Equal(t, "f.refused.ndjson", eventfile.RefusedName("f.json"))
	require.Equal(t, "f.refused.jsonl", eventfile.RefusedName("f.jsonl"))
}

// A file of all of its events, written as refused lines are, reads as the same events.
func checkFile(t require.TestingT, content, name string) {
	o := eventfile.Options{Name: name}
	all := map[int]bool{}
	var first []string
	r, err := eventfile.New(strings.NewReader(content), o)
	for err == nil {
		var e eventfile.Event
		if e, err = r.Next(); err != nil {
			break
		}
		all[e.Number] = true
		if e.Problem == "" {
			require.True(t, json.Valid(e.JSON), "%s", e.JSON)
			first = append(first, string(e.JSON))
		}
	}
	if !errors.Is(err, io.EOF) || len(all) == 0 {
		return // told, and nothing after it was read
	}
	var out strings.Builder
	require.NoError(t, eventfile.CopyRefused(&out, strings.NewReader(content), o, all))
	again, err := read(out.String(), o)
	require.NoError(t, err)
	var second []string
	for _, line := range again {
		if _, text, _ := strings.Cut(line, " "); !strings.HasPrefix(text, "! ") {
			second = append(second, text)
		}
	}
	require.Equal(t, first, second)
}

func TestWhatStandsInQuotesIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cells := rapid.SliceOfN(rapid.StringMatching("[a,;\" \n\té]{0,6}"), 1, 8).Draw(t, "cells")
		comma := rapid.SampledFrom([]string{",", ";", "\t"}).Draw(t, "comma")
		content := strings.Join([]string{"name", "userId", "x"}, comma) + "\n"
		var want []string
		for _, c := range cells {
			content += strings.Join([]string{"n", "u", `"` + strings.ReplaceAll(c, `"`, `""`) + `"`}, comma) + "\n"
			if strings.TrimSpace(c) != "" {
				want = append(want, c)
			}
		}
		r, err := eventfile.New(strings.NewReader(content), eventfile.Options{Name: "f.csv"})
		require.NoError(t, err)
		var got []string
		for {
			e, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			require.Empty(t, e.Problem)
			var event struct {
				EventProperties struct{ X *string }
			}
			require.NoError(t, json.Unmarshal(e.JSON, &event))
			if event.EventProperties.X != nil {
				got = append(got, *event.EventProperties.X)
			}
		}
		require.Equal(t, want, got)
	})
}

func FuzzReader(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "cases", "*"))
	require.NoError(f, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(string(content), filepath.Base(file))
	}
	f.Fuzz(func(t *testing.T, content, name string) { checkFile(t, content, name) })
}
