package schemas

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/hamba/avro/v2"
)

// shape is an Avro schema as a program over bytes. What another version of a
// schema wrote is checked by its shape before the library decodes it, because
// the library takes the end of the input for the end of the record, trusts
// counts and lengths (it allocates what a block header claims), ignores what
// follows the record and lets any bytes be a string.
type shape struct {
	kind     avro.Type
	logical  avro.LogicalType
	name     string       // full name, of a record
	fields   []shapeField // of a record
	items    *shape       // of an array or a map
	branches []*shape     // of a union
	symbols  []string     // of an enum
	size     int          // of a fixed
}

type shapeField struct {
	name  string
	shape *shape
	json  bool // the string is a JSON document
}

// contentType marks a string field that holds a JSON document.
const contentType = "contentType"

// shapeOf compiles a schema. Recursive schemas are refused.
func shapeOf(s avro.Schema) (*shape, error) { return compile(s, nil) }

func compile(s avro.Schema, open []string) (*shape, error) {
	if ref, ok := s.(*avro.RefSchema); ok {
		s = ref.Schema()
	}
	out := &shape{kind: s.Type()}
	if l, ok := s.(avro.LogicalTypeSchema); ok && l.Logical() != nil {
		out.logical = l.Logical().Type()
	}
	var err error
	switch s := s.(type) {
	case *avro.RecordSchema:
		out.name = s.FullName()
		if slices.Contains(open, out.name) {
			return nil, fmt.Errorf("schema of %s is recursive", out.name)
		}
		open = append(slices.Clone(open), out.name)
		for _, f := range s.Fields() {
			field := shapeField{name: f.Name(), json: f.Prop(contentType) == "application/json"}
			if field.shape, err = compile(f.Type(), open); err != nil {
				return nil, err
			}
			out.fields = append(out.fields, field)
		}
	case *avro.ArraySchema:
		out.items, err = compile(s.Items(), open)
	case *avro.MapSchema:
		out.items, err = compile(s.Values(), open)
	case *avro.UnionSchema:
		for _, t := range s.Types() {
			branch, err := compile(t, open)
			if err != nil {
				return nil, err
			}
			out.branches = append(out.branches, branch)
		}
	case *avro.EnumSchema:
		out.symbols = s.Symbols()
	case *avro.FixedSchema:
		out.size = s.Size()
	}
	return out, err
}

// checkAll reports whether b is exactly one value of this shape.
func (s *shape) checkAll(b []byte) error {
	rest, err := s.check(b)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errTrailing(len(rest))
	}
	return nil
}

// check reads one value and returns what follows it.
func (s *shape) check(b []byte) ([]byte, error) {
	switch s.kind {
	case avro.Null:
		return b, nil
	case avro.Boolean:
		if len(b) == 0 || b[0] > 1 {
			return nil, errAvro("a boolean is neither 0 nor 1")
		}
		return b[1:], nil
	case avro.Int:
		_, rest, err := readInt(b)
		return rest, err
	case avro.Long:
		v, rest, err := readLong(b)
		if err == nil && s.logical == avro.TimestampMicros && (v < minMicros || v > maxMicros) {
			return nil, errTimeRange
		}
		return rest, err
	case avro.Float:
		return skip(b, 4)
	case avro.Double:
		return skip(b, 8)
	case avro.Fixed:
		return skip(b, s.size)
	case avro.Bytes:
		_, rest, err := readBytes(b)
		return rest, err
	case avro.String:
		text, rest, err := readBytes(b)
		if err == nil && !utf8.Valid(text) {
			return nil, errAvro("a string is not UTF-8")
		}
		return rest, err
	case avro.Enum:
		i, rest, err := readInt(b)
		if err == nil && (i < 0 || i >= len(s.symbols)) {
			return nil, errAvro("an enum is out of range")
		}
		return rest, err
	case avro.Union:
		i, rest, err := readInt(b)
		if err != nil {
			return nil, err
		}
		if i < 0 || i >= len(s.branches) {
			return nil, errAvro("a union has no such branch")
		}
		return s.branches[i].check(rest)
	case avro.Record:
		return s.checkRecord(b)
	case avro.Array, avro.Map:
		return s.checkBlocks(b)
	}
	return nil, fmt.Errorf("avro type %s is not supported", s.kind)
}

func (s *shape) checkRecord(b []byte) ([]byte, error) {
	var err error
	for i := range s.fields {
		f := &s.fields[i]
		if b, err = f.shape.check(b); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return b, nil
}

// checkBlocks reads the blocks of an array or a map.
func (s *shape) checkBlocks(b []byte) ([]byte, error) {
	for {
		count, rest, err := readBlock(b)
		if err != nil || count == 0 {
			return rest, err
		}
		for range count {
			before := len(rest)
			if rest, err = s.checkItem(rest); err != nil {
				return nil, err
			}
			// Items without bytes would let ten bytes claim 2^63 of them.
			if len(rest) == before {
				return nil, errAvro("an item has no bytes")
			}
		}
		b = rest
	}
}

func (s *shape) checkItem(b []byte) ([]byte, error) {
	if s.kind == avro.Map {
		key, rest, err := readBytes(b)
		if err != nil {
			return nil, err
		}
		if !utf8.Valid(key) {
			return nil, errAvro("a map key is not UTF-8")
		}
		b = rest
	}
	return s.items.check(b)
}

// errAvro is an error for bytes that do not fit their schema. The texts are
// constants, so that nothing of a record reaches a log.
type errAvro string //nolint:errname // short, for it stands at every check

// Error implements error.
func (e errAvro) Error() string { return string(e) }

const errShort = errAvro("the record ends too early")

func readLong(b []byte) (int64, []byte, error) {
	// One byte is the common case: lengths of ids, branches, small counts.
	if len(b) > 0 && b[0] < 0x80 {
		u := b[0]
		return int64(u>>1) ^ -int64(u&1), b[1:], nil
	}
	v, n := binary.Varint(b)
	if n == 0 {
		return 0, nil, errShort
	}
	if n < 0 {
		return 0, nil, errAvro("a number is too long")
	}
	return v, b[n:], nil
}

func readInt(b []byte) (int, []byte, error) {
	v, rest, err := readLong(b)
	if err != nil {
		return 0, nil, err
	}
	if v < math.MinInt32 || v > math.MaxInt32 || len(b)-len(rest) > binary.MaxVarintLen32 {
		return 0, nil, errAvro("an int is out of range")
	}
	return int(v), rest, nil
}

func readBytes(b []byte) (value, rest []byte, err error) {
	n, rest, err := readLong(b)
	if err != nil {
		return nil, nil, err
	}
	if n < 0 {
		return nil, nil, errAvro("a length is negative")
	}
	if n > int64(len(rest)) {
		return nil, nil, errShort
	}
	return rest[:n], rest[n:], nil
}

// readBlock reads the header of a block of an array or a map; zero ends it. A
// count above the bytes that are left is refused before anything is allocated.
func readBlock(b []byte) (count int64, rest []byte, err error) {
	count, rest, err = readLong(b)
	if err != nil {
		return 0, nil, err
	}
	if count < 0 {
		var size int64
		if size, rest, err = readLong(rest); err != nil {
			return 0, nil, err
		}
		if size < 0 || size > int64(len(rest)) || count == math.MinInt64 {
			return 0, nil, errAvro("a block is longer than the record")
		}
		count = -count
	}
	if count > int64(len(rest)) {
		return 0, nil, errAvro("a block has more items than bytes")
	}
	return count, rest, nil
}

func skip(b []byte, n int) ([]byte, error) {
	if n > len(b) {
		return nil, errShort
	}
	return b[n:], nil
}
