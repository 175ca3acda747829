// Package packed reads what was made with the appending functions of encoding/binary: the
// compact bytes in which states and pending outputs stand in Postgres.
package packed

import (
	"encoding/binary"
	"fmt"
)

// Reader reads until the first fault; after it everything is zero. It never reads beyond
// the data, whatever that says. Not safe for concurrent use.
type Reader struct {
	data  []byte
	all   []byte
	text  string // all of it, once text of it is wanted
	err   error
	wrong error
}

// oneText is up to how many bytes all texts of the data are parts of one: a state has a dozen,
// and each by itself would cost more than to keep all of it for one.
const oneText = 4 << 10

// NewReader reads data, which stays the caller's; faults wrap wrong.
func NewReader(data []byte, wrong error) *Reader { return &Reader{data: data, all: data, wrong: wrong} }

// Fail is a fault, for what was read has a value that it cannot have.
func (r *Reader) Fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", r.wrong, what)
	}
	r.data = nil
}

// Err is the first fault.
func (r *Reader) Err() error { return r.err }

// Rest is what was not read yet.
func (r *Reader) Rest() []byte { return r.data }

// Take is the next n bytes, a part of the data; nil after a fault.
func (r *Reader) Take(n int) []byte {
	if n < 0 || n > len(r.data) {
		r.Fail("ends too early")
		return nil
	}
	out := r.data[:n:n]
	r.data = r.data[n:]
	return out
}

// Byte is the next byte.
func (r *Reader) Byte() byte {
	if b := r.Take(1); b != nil {
		return b[0]
	}
	return 0
}

// Int is a signed number (binary.AppendVarint).
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.data)
	if n <= 0 {
		r.Fail("no number")
		return 0
	}
	r.data = r.data[n:]
	return v
}

// Uint is a number without a sign (binary.AppendUvarint).
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.Fail("no number")
		return 0
	}
	r.data = r.data[n:]
	return v
}

// Count is how many things of at least size bytes follow: never more than there can be, so
// that memory may be had for them.
func (r *Reader) Count(size int) int {
	v := r.Uint()
	if v > uint64(len(r.data)/size) {
		r.Fail("no count")
		return 0
	}
	return int(v)
}

// Bytes are bytes behind their length (AppendText), a part of the data.
func (r *Reader) Bytes() []byte { return r.Take(r.Count(1)) }

// Text is a copy of Bytes.
func (r *Reader) Text() string {
	text := r.Bytes()
	if len(text) == 0 || len(r.all) > oneText {
		return string(text)
	}
	if r.text == "" {
		r.text = string(r.all)
	}
	end := len(r.all) - len(r.data)
	return r.text[end-len(text) : end]
}

// AppendText appends text or bytes behind their length.
func AppendText[T string | []byte](out []byte, text T) []byte {
	return append(binary.AppendUvarint(out, uint64(len(text))), text...)
}
