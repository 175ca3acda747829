package schemas

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/hamba/avro/v2"

	"github.com/hogstream/hogstream/schemas/document"
)

// JSON renders a record value as one line of JSON for people: every field of
// the writer's schema under its name, also those this program does not know,
// times as RFC 3339, bytes as base64, JSON documents embedded byte for byte. A
// value of nil, a tombstone, is null. Errors as DecodeInput.
func (c *Codec) JSON(topic Topic, value []byte) ([]byte, error) {
	if value == nil {
		return []byte("null"), nil
	}
	w, body, err := c.open(topic, value)
	if err != nil {
		return nil, err
	}
	if err := w.shape.checkAll(body); err != nil {
		return nil, undecodable(err)
	}
	out, _ := w.shape.json(make([]byte, 0, 2*len(body)), body, false)
	return out, nil
}

// json appends the value that b begins with and returns what follows it. The
// bytes have been checked. document says that a string is a JSON document.
func (s *shape) json(out, b []byte, document bool) (json, rest []byte) {
	switch s.kind {
	case avro.Boolean:
		return strconv.AppendBool(out, b[0] == 1), b[1:]
	case avro.Int:
		v, rest, _ := readInt(b)
		return strconv.AppendInt(out, int64(v), 10), rest
	case avro.Long:
		v, rest, _ := readLong(b)
		if s.logical == avro.TimestampMicros {
			return time.UnixMicro(v).UTC().AppendFormat(out, `"`+time.RFC3339Nano+`"`), rest
		}
		return strconv.AppendInt(out, v, 10), rest
	case avro.Float, avro.Double, avro.Fixed:
		// Ours have none: shown as the bytes they are.
		rest, _ = skip(b, map[avro.Type]int{avro.Float: 4, avro.Double: 8, avro.Fixed: s.size}[s.kind])
		return appendBase64(out, b[:len(b)-len(rest)]), rest
	case avro.Bytes:
		v, rest, _ := readBytes(b)
		return appendBase64(out, v), rest
	case avro.String:
		v, rest, _ := readBytes(b)
		return appendText(out, string(v), document), rest
	case avro.Enum:
		i, rest, _ := readInt(b)
		return appendText(out, s.symbols[i], false), rest
	case avro.Union:
		i, rest, _ := readInt(b)
		return s.branches[i].json(out, rest, document)
	case avro.Record:
		return s.recordJSON(out, b)
	case avro.Array, avro.Map:
		return s.blocksJSON(out, b)
	}
	return append(out, "null"...), b
}

func (s *shape) recordJSON(out, b []byte) (json, rest []byte) {
	out = append(out, '{')
	for i := range s.fields {
		f := &s.fields[i]
		if i > 0 {
			out = append(out, ',')
		}
		out = appendText(out, f.name, false)
		out = append(out, ':')
		out, b = f.shape.json(out, b, f.json)
	}
	return append(out, '}'), b
}

func (s *shape) blocksJSON(out, b []byte) (json, rest []byte) {
	opening, closing := byte('['), byte(']')
	if s.kind == avro.Map {
		opening, closing = '{', '}'
	}
	out = append(out, opening)
	for first := true; ; {
		count, rest, _ := readBlock(b)
		b = rest
		if count == 0 {
			return append(out, closing), b
		}
		for range count {
			if !first {
				out = append(out, ',')
			}
			first = false
			if s.kind == avro.Map {
				key, rest, _ := readBytes(b)
				out = append(appendText(out, string(key), false), ':')
				b = rest
			}
			out, b = s.items.json(out, b, false)
		}
	}
}

// appendText appends a string as JSON, or the document that it holds. What is
// marked as a document but is none is shown as the string it is.
func appendText(out []byte, text string, isDocument bool) []byte {
	if isDocument && json.Valid([]byte(text)) {
		return append(out, document.Compact(text)...)
	}
	quoted, _ := json.Marshal(text) // a string always marshals
	return append(out, quoted...)
}

func appendBase64(out, b []byte) []byte {
	out = append(out, '"')
	out = base64.StdEncoding.AppendEncode(out, b)
	return append(out, '"')
}

// readMessage fills a message. The names of our fields differ from those of the
// schema in case alone, so that encoding/json finds them; documents are strings here.
func readMessage(text []byte, message any) error {
	text, err := quoteDocuments(text, "contact", "merged")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, message); err != nil {
		return fmt.Errorf("is no record: %w", err)
	}
	return nil
}

// quoteDocuments makes a string of the member properties where it is an object, of
// the object itself and of the members that are named.
func quoteDocuments(text []byte, within ...string) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, fmt.Errorf("is no JSON object: %w", err)
	}
	if p := members["properties"]; len(p) > 0 && p[0] == '{' {
		quoted, err := json.Marshal(string(p))
		if err != nil {
			return nil, err
		}
		members["properties"] = quoted
	}
	for _, name := range within {
		if m := members[name]; len(m) > 0 && m[0] == '{' {
			quoted, err := quoteDocuments(m)
			if err != nil {
				return nil, err
			}
			members[name] = quoted
		}
	}
	return json.Marshal(members)
}
