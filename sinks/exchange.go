package sinks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// answerHead bounds the status line and the headers of an answer, with the
	// informational answers before it.
	answerHead = 64 << 10
	// informational bounds the answers 1xx before the final one.
	informational = 5
	// writtenAtOnce is how large a request may be to go out in one write before
	// the answer is looked for. A larger one is written while the answer is read:
	// it may be refused before it is read to its end.
	writtenAtOnce = 32 << 10
	// lateWrite is how long a large request may still be on its way when its
	// answer is complete, before the connection is given up.
	lateWrite = 50 * time.Millisecond
	// lastWords is how long an answer is waited for on a connection that takes
	// nothing any more; what there is of it has arrived by then.
	lastWords = 100 * time.Millisecond
)

// exchange sends a request and reads its answer, of the body at most keep bytes.
// It ends when ctx does; the connection is closed then.
//
// On a connection that was idle the request is sent again on another if none of it
// was sent; a receiver never has it twice by that. An idle connection that the
// receiver ends in the very moment is a failed attempt: whether it took the
// request nobody knows.
func (cs *connections) exchange(ctx context.Context, req *Request, keep int) (*Answer, error) {
	for {
		c, err := cs.take(ctx, req.URL)
		if err != nil {
			return nil, err
		}
		if tooLate(ctx) {
			cs.keep(c)
			return nil, context.DeadlineExceeded
		}
		stop := context.AfterFunc(ctx, c.stop)
		ans, whole, err := c.exchange(req, keep)
		if stop() && whole {
			cs.keep(c)
			return ans, nil
		}
		c.abandon()
		if errors.Is(err, errNothingSent) && c.reused && ctx.Err() == nil {
			continue
		}
		return ans, err
	}
}

// tooLate says whether the time of ctx is over. Its own timer may not have run yet:
// a process that was stopped wakes up in the middle of what it was about to send,
// and somebody else may be delivering in its place by now.
func tooLate(ctx context.Context) bool {
	deadline, bounded := ctx.Deadline()
	return ctx.Err() != nil || bounded && !time.Now().Before(deadline)
}

// errNothingSent says that of a request not one byte was written.
var errNothingSent = errors.New("the connection took nothing of the request")

// exchange says whether the answer was read to its end, so that the connection can
// be used again.
func (c *connection) exchange(req *Request, keep int) (ans *Answer, whole bool, err error) {
	room := requests.Get().(*[]byte)
	head := appendHead((*room)[:0], req)
	if len(head)+len(req.Body) > writtenAtOnce {
		return c.exchangeLarge(head, req.Body, keep)
	}
	*room = append(head, req.Body...)
	n, failed := c.conn.Write(*room)
	requests.Put(room) // not held while the receiver thinks
	if failed != nil {
		if n == 0 && c.reused {
			return nil, false, fmt.Errorf("%w: %w", errNothingSent, failed)
		}
		// A receiver may answer and hang up before it has read everything.
		defer time.AfterFunc(lastWords, c.interrupt).Stop()
		if ans, _, err := c.answer(keep); err == nil {
			return ans, false, nil
		}
		return nil, false, failed
	}
	return c.answer(keep)
}

// exchangeLarge writes while it reads.
func (c *connection) exchangeLarge(head, body []byte, keep int) (ans *Answer, whole bool, err error) {
	type written struct {
		n   int
		err error
	}
	ended := make(chan written, 1)
	go func() {
		n, err := c.conn.Write(head)
		if err == nil {
			_, err = c.conn.Write(body)
		}
		if err != nil {
			time.AfterFunc(lastWords, c.interrupt)
		}
		ended <- written{n, err}
	}()
	ans, whole, err = c.answer(keep)
	var w written
	late := time.NewTimer(lateWrite)
	defer late.Stop()
	if err != nil {
		c.abandon()
	}
	select {
	case w = <-ended:
	case <-late.C:
		c.abandon()
		w = <-ended
	}
	switch {
	case err == nil:
		return ans, whole && w.err == nil, nil
	case w.err != nil && w.n == 0 && c.reused:
		return nil, false, fmt.Errorf("%w: %w", errNothingSent, w.err)
	}
	return nil, false, err
}

// requests are buffers for requests.
var requests = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// appendHead writes a request up to its body: Host, User-Agent and Content-Length
// first, the other headers by name.
func appendHead(b []byte, req *Request) []byte {
	b = append(append(append(b, "POST "...), req.URL.RequestURI()...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, req.URL.Host...), "\r\n"...)
	b = appendField(b, "User-Agent", req.Header["User-Agent"])
	b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(req.Body)), 10), "\r\n"...)
	var room [16]string
	names := room[:0]
	for name := range req.Header {
		if name != "User-Agent" && name != "Content-Length" && name != "Host" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		b = appendField(b, name, req.Header[name])
	}
	return append(b, "\r\n"...)
}

func appendField(b []byte, name string, values []string) []byte {
	for _, v := range values {
		b = append(append(b, name...), ": "...)
		start := len(b)
		b = append(b, v...)
		for i, c := range b[start:] {
			if c == '\r' || c == '\n' {
				b[start+i] = ' ' // settings are checked for these; here they would end the header
			}
		}
		b = append(b, "\r\n"...)
	}
	return b
}

// posted tells the reader of answers what was asked.
var posted = &http.Request{Method: http.MethodPost}

// answer reads the final answer and the beginning of its body. The status decides:
// a body that breaks off or drips is cut, and is no error.
func (c *connection) answer(keep int) (ans *Answer, whole bool, err error) {
	resp, err := c.answerHead() //nolint:bodyclose // Close would read a body to its end, however long
	if err != nil {
		return nil, false, err
	}
	ans = &Answer{Status: resp.StatusCode, Header: resp.Header}
	c.mayRead = math.MaxInt64
	ended := resp.ContentLength == 0
	if !ended {
		ans.Body, ended = c.answerBody(resp, keep)
	}
	// After 101 the connection is no longer HTTP.
	return ans, ended && !resp.Close && resp.StatusCode >= 200 && c.drained(), nil
}

func (c *connection) answerHead() (*http.Response, error) {
	c.mayRead = answerHead
	if _, err := c.in.Peek(1); err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	for range informational + 1 {
		resp, err := http.ReadResponse(c.in, posted)
		if err != nil {
			if errors.Is(err, errTooMuch) || c.mayRead <= 0 {
				return nil, fmt.Errorf("headers of the answer are longer than %d bytes", answerHead)
			}
			return nil, fmt.Errorf("read answer: %w", err)
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, fmt.Errorf("more than %d informational answers", informational)
}

// answerBody keeps so much of the body, the first KiB mostly, and reads a little
// more, in the hope of its end; a longer or slower one is cut off.
func (c *connection) answerBody(resp *http.Response, keep int) (kept []byte, ended bool) {
	if n := resp.ContentLength; n < 0 || n > int64(c.in.Buffered()) {
		late := time.AfterFunc(bodyTime, c.interrupt)
		defer func() {
			if !late.Stop() {
				ended = false // the connection is, or will be, interrupted
			}
		}()
	}
	if n := resp.ContentLength; n > 0 && n < int64(keep) {
		keep = int(n)
	}
	buf := make([]byte, keep)
	n, err := readFull(resp.Body, buf)
	if err == nil {
		var more [512]byte
		for read := 0; err == nil && read < drainedOfAnswer; {
			var n int
			n, err = resp.Body.Read(more[:])
			read += n
		}
	}
	if n > 0 {
		kept = []byte(tame(string(trimRune(buf[:n]))))
	}
	return kept, errors.Is(err, io.EOF)
}

// readFull is io.ReadFull that tells an end from a body that broke off.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var more int
		more, err = r.Read(buf[n:])
		n += more
	}
	return n, err
}
