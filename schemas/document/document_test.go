package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// nasty is a document whose every byte must survive.
const nasty = `{"big":12345678901234567890,"f":1.0,"e":1E+2,"nul":"a\u0000b","uni":"ü\u00fc\ud83d\ude00😀","z":{"b":1,"a":[1, 2 ,{"x":null}]},"esc":"\/\"<>&","":"empty key","dup":1,"dup":2}`

func TestPatchKeepsWhatItDoesNotTouch(t *testing.T) {
	for _, tc := range []struct{ doc, patch, want, changed string }{
		{`{}`, `{}`, `{}`, ``},
		{`{}`, `{"a":1}`, `{"a":1}`, `a`},
		{`{"a":1}`, `{"a":null}`, `{}`, `a`},
		{`{"a":1}`, `{"b":null}`, `{"a":1}`, ``},
		{`{"a":1, "b":[1, 2]}`, `{"b":[1,2]}`, `{"a":1, "b":[1, 2]}`, ``},
		{`{"a":1}`, `{"a":1.0}`, `{"a":1.0}`, `a`},
		{`{"a":"x y"}`, `{"a":"xy"}`, `{"a":"xy"}`, `a`},
		{`{"n":12345678901234567890,"s":"a\u0000b","z":{"b":1,"a":2}}`, `{"k":1}`, `{"n":12345678901234567890,"s":"a\u0000b","z":{"b":1,"a":2},"k":1}`, `k`},
		{`{"b":1,"a":2}`, `{"c":3,"b":4}`, `{"b":4,"a":2,"c":3}`, `c b`},
		{`{"\u0061":1}`, `{"a":2}`, `{"\u0061":2}`, `a`},
		{`{"a":1,"x":0,"a":2}`, `{"a":2}`, `{"a":1,"x":0,"a":2}`, ``},
		{`{"a":1,"x":0,"a":2}`, `{"a":3}`, `{"a":3,"x":0}`, `a`},
		{`{"a":1,"a":2}`, `{"a":null}`, `{}`, `a`},
		{`{"a":1,"a":2,"b":1}`, `{"a":2,"b":2}`, `{"a":2,"b":2}`, `b`},
		{`{"x":1}`, `{"a":1,"b":2,"a":null}`, `{"x":1,"b":2}`, `b`},
		{`{"a":{"b":1}}`, `{"a":{"c":null}}`, `{"a":{"c":null}}`, `a`},
		{` { "a" : 1 } `, ` { "" : "" } `, `{"a":1,"":""}`, ``},
	} {
		got, changed, err := Patch(tc.doc, tc.patch)
		require.NoError(t, err)
		require.Equal(t, tc.want, got, "%s with %s", tc.doc, tc.patch)
		require.Equal(t, tc.changed, strings.Join(changed, " "), "%s with %s", tc.doc, tc.patch)
	}
}

func TestPatchRefusesWhatIsNoObject(t *testing.T) {
	for _, bad := range []string{``, `1`, `[]`, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}x`, `{a:1}`, `{"a":01}`, `{"a":tru}`, `{"a":1 "b":2}`} {
		_, _, err := Patch(`{}`, bad)
		require.Error(t, err, bad)
		_, _, err = Patch(bad, `{"a":1}`)
		require.Error(t, err, bad)
		_, err = Overlay(`{}`, bad)
		require.Error(t, err, bad)
	}
}

func TestOverlayLetsTheLaterWin(t *testing.T) {
	got, err := Overlay(`{"a":1,"b":1}`, `{"b":2,"c":null}`, `{"d":1,"c":3}`)
	require.NoError(t, err)
	require.Equal(t, `{"a":1,"b":2,"c":3,"d":1}`, got)
	got, err = Overlay()
	require.NoError(t, err)
	require.Equal(t, `{}`, got)
}

func TestADocumentNestsAtMost64Levels(t *testing.T) {
	nest := func(levels int) string {
		return strings.Repeat(`{"a":`, levels-1) + `{}` + strings.Repeat(`}`, levels-1)
	}
	require.NoError(t, Validate(nest(64), MaxDepth))
	require.ErrorContains(t, Validate(nest(65), MaxDepth), "nested too deep")
	_, _, err := Patch(`{}`, nest(64))
	require.NoError(t, err)
	_, _, err = Patch(`{}`, nest(65))
	require.Error(t, err)
	require.Error(t, Validate(strings.Repeat(`{"a":`, 1_000_000), MaxDepth))
}

func TestValidateSaysWhatIsWrong(t *testing.T) {
	for doc, reason := range map[string]string{
		`[]`: "not a JSON object", `null`: "not a JSON object", ``: "not a JSON object",
		"{\"a\":\"\xff\"}": "UTF-8", "{\"a\":\"\x00\"}": "control character", `{"a":"\x"}`: "escape",
		`{"a":1}}`: "follows", `{"a":1e}`: "number", `{"a":-}`: "not a JSON value", `{"a"`: "colon",
	} {
		require.ErrorContains(t, Validate(doc, MaxDepth), reason, doc)
	}
	require.NoError(t, Validate(nasty, MaxDepth))
}

// naivePatch is Patch as encoding/json would do it; order and bytes are lost.
func naivePatch(t require.TestingT, doc, patch string) (map[string]any, []string) {
	read := func(s string) map[string]any {
		m := map[string]any{}
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		require.NoError(t, d.Decode(&m))
		return m
	}
	before, wanted := read(doc), read(patch)
	var changed []string
	for name, value := range wanted {
		old, had := before[name]
		switch {
		case value == nil && had:
			delete(before, name)
		case value == nil:
			continue
		default:
			before[name] = value
			if had && fmt.Sprint(old) == fmt.Sprint(value) {
				continue
			}
		}
		changed = append(changed, name)
	}
	slices.Sort(changed)
	return before, changed
}

var genValue = rapid.Custom(func(t *rapid.T) string {
	return rapid.SampledFrom([]string{
		`1`, `1.0`, `-0`, `12345678901234567890`, `1E5`, `"x"`, `"x y"`, `"a\u0000b"`, `"\ud83d\ude00"`, `"\""`, `"\\"`,
		`true`, `false`, `null`, `[]`, `[1, 2]`, `[1,2]`, `{}`, `{"b":1,"a":null}`, `{ "b" : 1 }`, `"ü"`,
	}).Draw(t, "value")
})

var genDoc = rapid.Custom(func(t *rapid.T) string {
	n := rapid.IntRange(0, 12).Draw(t, "n")
	space := rapid.SampledFrom([]string{"", "", " ", "\n\t"})
	seen := map[string]bool{}
	var out strings.Builder
	out.WriteString("{")
	for range n {
		key := rapid.SampledFrom([]string{`"a"`, `"b"`, `"c"`, `"\u0061"`, `"d"`, `""`, `"ü"`, `"\u00fc"`, `"x\"y"`, `"e"`, `"f"`, `"g"`, `"h"`, `"i"`, `"j"`}).Draw(t, "key")
		var name string
		if json.Unmarshal([]byte(key), &name) != nil || seen[name] {
			continue
		}
		if len(seen) > 0 {
			out.WriteString(",")
		}
		seen[name] = true
		out.WriteString(space.Draw(t, "s") + key + space.Draw(t, "s") + ":" + space.Draw(t, "s") + genValue.Draw(t, "v") + space.Draw(t, "s"))
	}
	out.WriteString("}")
	return out.String()
})

func TestPatchIsWhatANaiveMergeGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc, patch := genDoc.Draw(t, "doc"), genDoc.Draw(t, "patch")
		got, changed, err := Patch(doc, patch)
		require.NoError(t, err)
		want, wantChanged := naivePatch(t, doc, patch)
		gotMap, _ := naivePatch(t, got, `{}`)
		require.Equal(t, want, gotMap)
		slices.Sort(changed)
		// A nested object is compared by its bytes, so order matters to Patch only.
		require.Equal(t, wantChanged, changed)
		if len(changed) == 0 {
			require.Equal(t, doc, got)
		}
		again, none, err := Patch(got, patch)
		require.NoError(t, err)
		require.Empty(t, none)
		require.Equal(t, got, again)
	})
}

func FuzzValidateAgreesWithEncodingJSON(f *testing.F) {
	f.Add([]byte(nasty))
	f.Add([]byte(`{"a":[1,2,{"b":-1.5e+3}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		err := Validate(string(doc), 10_000)
		want := json.Valid(doc) && utf8.Valid(doc) && bytes.HasPrefix(bytes.TrimLeft(doc, " \t\r\n"), []byte("{"))
		if (err == nil) != want {
			t.Fatalf("%q: got %v, encoding/json says %v", doc, err, want)
		}
	})
}

func FuzzPatch(f *testing.F) {
	f.Add(nasty, `{"big":1,"dup":null}`)
	f.Add(`{"a":1,"a":2}`, `{"a":2}`)
	f.Fuzz(func(t *testing.T, doc, patch string) {
		got, changed, err := Patch(doc, patch)
		if err != nil {
			return
		}
		if utf8.ValidString(doc) && utf8.ValidString(patch) {
			if err := Validate(got, MaxDepth); err != nil {
				t.Fatalf("%q with %q gives %q: %v", doc, patch, got, err)
			}
		}
		again, none, err := Patch(got, patch)
		if err != nil || len(none) > 0 || again != got {
			t.Fatalf("%q with %q is not settled: %q, %v, %v (changed %v)", doc, patch, again, none, err, changed)
		}
	})
}

func BenchmarkPatch(b *testing.B) {
	var doc strings.Builder
	doc.WriteString(`{"n":1`)
	for i := range 30 {
		fmt.Fprintf(&doc, `,"property_%d":"value of property %d"`, i, i)
	}
	doc.WriteString(`}`)
	text := doc.String()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Patch(text, `{"n":2}`); err != nil {
			b.Fatal(err)
		}
	}
}
