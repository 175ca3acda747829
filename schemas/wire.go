package schemas

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"
)

// wire writes or reads the Avro encoding of our own schemas. Each record names
// its fields once, in the order of its schema (wire_records.go), for both
// directions; tests hold it against the library, which reads what other writers
// wrote. The library's own generic path was measured at three to four times the
// cost, and it writes a map's entries in random order. Writing leaves the
// message untouched, so one message may be encoded by many goroutines.
type wire struct {
	buf     []byte // writing: what was written; reading: what is left
	err     error  // the first error; what follows it does nothing
	reading bool
	// text is the whole record as one string that short records' strings share.
	text string
	// spare are strings for nullable fields, allocated a few at a time.
	spare []string
	keys  []string // scratch for a map's sorted keys
}

// shareBelow bounds the memory that one kept string can hold on to.
const shareBelow = 4 << 10

// wired is a record that can name its fields to a wire.
type wired interface{ wire(w *wire) }

// appendWire appends the encoding of a record.
func appendWire(dst []byte, m wired) ([]byte, error) {
	w := wire{buf: dst}
	m.wire(&w)
	return w.buf, w.err
}

// readWire decodes exactly one record.
func readWire(body []byte, m wired) error {
	w := wire{buf: body, reading: true}
	if len(body) <= shareBelow {
		w.text = string(body)
	}
	m.wire(&w)
	return w.ended()
}

// ended is what came of reading a whole record.
func (w *wire) ended() error {
	if w.err == nil && len(w.buf) > 0 {
		w.err = errTrailing(len(w.buf))
	}
	return w.err
}

func errTrailing(n int) error { return fmt.Errorf("%d bytes after the record", n) }

func (w *wire) fail(err error) {
	if w.err == nil {
		w.err = err
		w.buf = w.buf[:0:0]
	}
}

// long handles a long.
func (w *wire) long(v *int64) {
	if w.err != nil {
		return
	}
	if !w.reading {
		w.buf = binary.AppendVarint(w.buf, *v)
		return
	}
	n, rest, err := readLong(w.buf)
	if err != nil {
		w.fail(err)
		return
	}
	*v, w.buf = n, rest
}

// count handles a Go int that is a long on the wire.
func (w *wire) count(v *int) {
	n := int64(*v)
	w.long(&n)
	if w.reading {
		*v = int(n)
	}
}

// int handles an int.
func (w *wire) int(v *int) {
	if w.err != nil {
		return
	}
	if !w.reading {
		if *v < math.MinInt32 || *v > math.MaxInt32 {
			w.fail(errAvro("an int is out of range"))
			return
		}
		w.buf = binary.AppendVarint(w.buf, int64(*v))
		return
	}
	n, rest, err := readInt(w.buf)
	if err != nil {
		w.fail(err)
		return
	}
	*v, w.buf = n, rest
}

func (w *wire) int32(v *int32) {
	n := int(*v)
	w.int(&n)
	if w.reading {
		*v = int32(n)
	}
}

func (w *wire) bool(v *bool) {
	switch {
	case w.err != nil:
	case !w.reading && *v:
		w.buf = append(w.buf, 1)
	case !w.reading:
		w.buf = append(w.buf, 0)
	case len(w.buf) == 0 || w.buf[0] > 1:
		w.fail(errAvro("a boolean is neither 0 nor 1"))
	default:
		*v, w.buf = w.buf[0] == 1, w.buf[1:]
	}
}

func (w *wire) string(v *string) {
	if w.err != nil {
		return
	}
	if !w.reading {
		if !utf8.ValidString(*v) {
			w.fail(errAvro("a string is not UTF-8"))
			return
		}
		w.buf = binary.AppendVarint(w.buf, int64(len(*v)))
		w.buf = append(w.buf, *v...)
		return
	}
	b, rest, err := readBytes(w.buf)
	if err != nil {
		w.fail(err)
		return
	}
	if !utf8.Valid(b) {
		w.fail(errAvro("a string is not UTF-8"))
		return
	}
	if w.text != "" {
		end := len(w.text) - len(rest)
		*v = w.text[end-len(b) : end]
	} else {
		*v = string(b)
	}
	w.buf = rest
}

// bytes handles bytes; what is read is a copy.
func (w *wire) bytes(v *[]byte) {
	if w.err != nil {
		return
	}
	if !w.reading {
		w.buf = binary.AppendVarint(w.buf, int64(len(*v)))
		w.buf = append(w.buf, *v...)
		return
	}
	b, rest, err := readBytes(w.buf)
	if err != nil {
		w.fail(err)
		return
	}
	*v, w.buf = append(make([]byte, 0, len(b)), b...), rest
}

// time handles microseconds since 1970, from year 1 to 9999: beyond, neither
// JSON nor RFC 3339 can say the time.
func (w *wire) time(v *time.Time) {
	if !w.reading && !ValidTime(*v) {
		w.fail(errTimeRange)
		return
	}
	n := v.UnixMicro()
	w.long(&n)
	if !w.reading || w.err != nil {
		return
	}
	if n < minMicros || n > maxMicros {
		w.fail(errTimeRange)
		return
	}
	*v = time.UnixMicro(n).UTC()
}

const (
	minMicros    = -62135596800_000000 // 0001-01-01T00:00:00Z, the zero time
	maxMicros    = 253402300799_999999 // 9999-12-31T23:59:59.999999Z
	errTimeRange = errAvro("a time is outside the years 1 to 9999")
)

// ValidTime reports whether a time can be encoded: it lies, in UTC, in the years
// 1 to 9999. What comes from outside is checked with it where it comes in.
func ValidTime(t time.Time) bool {
	const first, last = minMicros / 1_000_000, maxMicros / 1_000_000
	s := t.Unix()
	return s >= first && s <= last
}

// branch handles the index of a union of null and a type; set says that the
// value is, or will be, there.
func (w *wire) branch(set bool) bool {
	if w.err != nil {
		return false
	}
	if !w.reading {
		if set {
			w.buf = append(w.buf, 2)
		} else {
			w.buf = append(w.buf, 0)
		}
		return set
	}
	n, rest, err := readInt(w.buf)
	if err != nil {
		w.fail(err)
		return false
	}
	if n != 0 && n != 1 {
		w.fail(errAvro("a union has no such branch"))
		return false
	}
	w.buf = rest
	return n == 1
}

func (w *wire) nullString(v **string) {
	if !w.branch(*v != nil) {
		return
	}
	if w.reading {
		if len(w.spare) == 0 {
			w.spare = make([]string, 4)
		}
		*v, w.spare = &w.spare[0], w.spare[1:]
	}
	w.string(*v)
}

func (w *wire) nullBytes(v *[]byte) {
	if w.branch(*v != nil) {
		w.bytes(v)
	}
}

// null handles a nullable value of another type.
func null[T any](w *wire, v **T, each func(*T, *wire)) {
	if !w.branch(*v != nil) {
		return
	}
	if w.reading {
		*v = new(T)
	}
	each(*v, w)
}

func wireTime(v *time.Time, w *wire) { w.time(v) }
func wireLong(v *int64, w *wire)     { w.long(v) }
func wireInt(v *int, w *wire)        { w.int(v) }
func wireString(v *string, w *wire)  { w.string(v) }
func wireBool(v *bool, w *wire)      { w.bool(v) }

// list handles an array: written as one block, read in any number of them. An
// empty one is read as nil.
func list[T any](w *wire, items *[]T, each func(*T, *wire)) {
	if w.err != nil {
		return
	}
	if !w.reading {
		if len(*items) > 0 {
			w.buf = binary.AppendVarint(w.buf, int64(len(*items)))
		}
		for i := range *items {
			each(&(*items)[i], w)
		}
		w.end()
		return
	}
	for w.err == nil {
		count, rest, err := readBlock(w.buf)
		if err != nil {
			w.fail(err)
			return
		}
		if w.buf = rest; count == 0 {
			return
		}
		// A count is only a claim: beyond a few, memory follows what is there.
		*items = slices.Grow(*items, int(min(count, 64)))
		for i := int64(0); i < count && w.err == nil; i++ {
			var item T
			each(&item, w)
			*items = append(*items, item)
		}
	}
}

// end writes the empty block that ends an array or a map.
func (w *wire) end() {
	if w.err == nil {
		w.buf = append(w.buf, 0)
	}
}

// table handles a map, written in the order of its keys, so that the same
// message always gives the same bytes. An empty one is read as nil.
func table[T any](w *wire, m *map[string]T, each func(*T, *wire)) {
	if w.err != nil {
		return
	}
	if !w.reading {
		writeTable(w, *m, each)
		return
	}
	for w.err == nil {
		count, rest, err := readBlock(w.buf)
		if err != nil {
			w.fail(err)
			return
		}
		if w.buf = rest; count == 0 {
			return
		}
		for i := int64(0); i < count && w.err == nil; i++ {
			var key string
			var item T
			w.string(&key)
			each(&item, w)
			if w.err != nil {
				return
			}
			if *m == nil {
				*m = make(map[string]T)
			}
			(*m)[key] = item
		}
	}
}

func writeTable[T any](w *wire, m map[string]T, each func(*T, *wire)) {
	w.keys = w.keys[:0]
	for key := range m {
		w.keys = append(w.keys, key)
	}
	slices.Sort(w.keys)
	if len(m) > 0 {
		w.buf = binary.AppendVarint(w.buf, int64(len(m)))
	}
	for i := range w.keys {
		item := m[w.keys[i]]
		w.string(&w.keys[i])
		each(&item, w)
	}
	w.end()
}
