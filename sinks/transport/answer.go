package transport

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// Answer is what a receiver answered.
type Answer struct {
	Status int
	Header http.Header
	// Body is the beginning of the body, as long as the caller has asked for, as text
	// that can be stored.
	Body []byte
}

// readAnswer keeps so much of the body and reads a little more, in the hope of its
// end; a longer or slower one is cut off.
func readAnswer(resp *http.Response, keep int, interrupt context.CancelFunc) *Answer {
	ans := &Answer{Status: resp.StatusCode, Header: resp.Header}
	if resp.ContentLength == 0 || resp.StatusCode == http.StatusSwitchingProtocols { // after 101 it is no longer HTTP
		return ans
	}
	late := time.AfterFunc(bodyTime, interrupt)
	defer late.Stop()
	kept, err := io.ReadAll(io.LimitReader(resp.Body, int64(keep)))
	if err == nil {
		_, _ = io.CopyN(io.Discard, resp.Body, drainedOfAnswer) // only whether it ends matters
	}
	if len(kept) > 0 {
		ans.Body = []byte(CleanText(string(TrimPartialRune(kept))))
	}
	return ans
}

// TrimPartialRune cuts off the beginning of a character that did not fit.
func TrimPartialRune(b []byte) []byte {
	for i := 1; i <= min(3, len(b)); i++ {
		if tail := b[len(b)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// CleanText makes foreign text storable: valid UTF-8 without NUL, which Postgres refuses.
func CleanText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.ReplaceAll(s, "\x00", "\uFFFD")
}
