package transport

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestAURLWhoseQueryWouldBreakTheRequestIsRefusedWithHowToWriteIt(t *testing.T) {
	g := NewGuard(Config{})
	for raw, want := range map[string]string{
		"https://example.com/h?name=a b":   "url: the query holds a space: write it as %20",
		"https://example.com/h?name=é":     `url: the query holds 'é': write it as %C3%A9`,
		"https://example.com/h?name=\xff":  "write it as %FF",
		"https://example.com/h?a=\u2028":   "write it as %E2%80%A8",
		"https://example.com/h?a=\x00":     "invalid control character",
		"https://example.com/h?a=\r\nX: y": "invalid control character",
		"https://example.com/h\tx?a":       "invalid control character",
	} {
		_, err := g.CheckURL("url", raw)
		require.ErrorContains(t, err, want, "%q", raw)
	}
	for _, raw := range []string{"https://example.com/h?name=a%20b+c&x=%C3%A9", "https://example.com/h?", "https://example.com/a b/é?q=1;[]|"} {
		_, err := g.CheckURL("url", raw)
		require.NoError(t, err, raw)
	}
}

func TestAURLThatIsAcceptedMakesOneRequestLine(t *testing.T) {
	g := NewGuard(Config{})
	rapid.Check(t, func(t *rapid.T) {
		raw := "https://example.com/" + rapid.String().Draw(t, "path") + rapid.SampledFrom([]string{"", "?"}).Draw(t, "mark") + rapid.String().Draw(t, "query")
		u, err := g.CheckURL("url", raw)
		if err != nil {
			t.Skip(err)
		}
		var head bytes.Buffer
		req := &Request{URL: u, Header: http.Header{"User-Agent": {"x"}}}
		require.NoError(t, req.outgoing(context.Background()).Write(&head))
		read, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head.Bytes())))
		require.NoError(t, err, "%q", head.String())
		require.Equal(t, u.RequestURI(), read.RequestURI)
		for _, c := range []byte(read.RequestURI) {
			require.True(t, c > ' ' && c < 0x7f, "%q", read.RequestURI)
		}
		require.Equal(t, http.Header{"Content-Length": {"0"}, "User-Agent": {"x"}}, read.Header)
	})
}
