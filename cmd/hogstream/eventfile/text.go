package eventfile

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// notText is a byte that no UTF-8 has: it stands for what cannot be decoded, so that the
// line is refused and not changed.
const notText = 0xFF

// decode gives the text of a file in UTF-8, without a byte order mark.
func decode(r io.Reader, encoding string) (io.Reader, error) {
	raw := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := raw.Peek(2); string(magic) == "\x1f\x8b" {
		unzipped, err := gzip.NewReader(raw)
		if err != nil {
			return nil, fmt.Errorf("read the gzipped file: %w", err)
		}
		raw = bufio.NewReaderSize(unzipped, 64<<10)
	}
	mark, _ := raw.Peek(3)
	bom := func(s string) bool {
		if !strings.HasPrefix(string(mark), s) {
			return false
		}
		_, _ = raw.Discard(len(s))
		return true
	}
	switch strings.ToLower(encoding) {
	case "", "utf-8", "utf8":
		switch {
		case bom("\xef\xbb\xbf"):
		case encoding == "" && bom("\xff\xfe"):
			return &utf16Reader{r: raw, order: binary.LittleEndian}, nil
		case encoding == "" && bom("\xfe\xff"):
			return &utf16Reader{r: raw, order: binary.BigEndian}, nil
		}
		return raw, nil
	case "utf-16", "utf16":
		if bom("\xfe\xff") {
			return &utf16Reader{r: raw, order: binary.BigEndian}, nil
		}
		bom("\xff\xfe")
		return &utf16Reader{r: raw, order: binary.LittleEndian}, nil
	case "windows-1252", "cp1252", "latin1", "iso-8859-1":
		return &byteReader{r: raw}, nil
	}
	return nil, fmt.Errorf("encoding %q is not known: give utf-8, utf-16 or windows-1252", encoding)
}

// byteReader decodes Windows-1252, of which ISO 8859-1 text is a part.
type byteReader struct {
	r    *bufio.Reader
	rest []byte
}

func (b *byteReader) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		chunk := make([]byte, 4<<10)
		n, err := b.r.Read(chunk)
		for _, c := range chunk[:n] {
			if r := charmap.Windows1252.DecodeByte(c); r == utf8.RuneError {
				b.rest = append(b.rest, notText)
			} else {
				b.rest = utf8.AppendRune(b.rest, r)
			}
		}
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// utf16Reader decodes UTF-16. golang.org/x/text would put U+FFFD in the place of half a
// pair, and nobody could tell it from one that was sent.
type utf16Reader struct {
	r     *bufio.Reader
	order binary.ByteOrder
	rest  []byte
}

func (u *utf16Reader) Read(p []byte) (int, error) {
	for len(u.rest) == 0 {
		unit, err := u.unit()
		if err != nil {
			return 0, err
		}
		u.rest = u.appendUnit(nil, unit)
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

func (u *utf16Reader) appendUnit(to []byte, unit rune) []byte {
	if unit < 0 {
		return append(to, notText)
	}
	if !utf16.IsSurrogate(unit) {
		return utf8.AppendRune(to, unit)
	}
	if next, err := u.r.Peek(2); err == nil {
		if r := utf16.DecodeRune(unit, rune(u.order.Uint16(next))); r != utf8.RuneError {
			_, _ = u.r.Discard(2)
			return utf8.AppendRune(to, r)
		}
	}
	return append(to, notText)
}

// unit is the next half of four bytes at most, or -1 for an odd byte at the end.
func (u *utf16Reader) unit() (rune, error) {
	var b [2]byte
	switch _, err := io.ReadFull(u.r, b[:]); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return -1, nil
	case err != nil:
		return 0, err
	}
	return rune(u.order.Uint16(b[:])), nil
}

// lines reads a text line by line. Lines end in LF, CRLF, or, where the first 64 KiB have
// no LF, in CR, as old spreadsheets write.
type lines struct {
	r      *bufio.Reader
	end    byte
	number int    // of the line read last
	back   []line // read already, to be read again
}

type line struct {
	text   string
	number int
	whole  bool // false when it was larger than MaxRecord
}

func newLines(r io.Reader) (*lines, error) {
	l := &lines{r: bufio.NewReaderSize(r, 64<<10), end: '\n'}
	start, err := l.r.Peek(64 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if s := string(start); !strings.Contains(s, "\n") && strings.Contains(s, "\r") {
		l.end = '\r'
	}
	return l, nil
}

// first is the first byte that is no space; ErrEmpty when there is none.
func (l *lines) first() (byte, error) {
	for n := 1; ; n++ {
		start, err := l.r.Peek(n)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, bufio.ErrBufferFull) {
				err = ErrEmpty
			}
			return 0, err
		}
		if c := start[n-1]; !strings.ContainsRune(" \t\r\n", rune(c)) {
			return c, nil
		}
	}
}

// next reads a line, of which it keeps as much as a record may have; io.EOF after the last one.
func (l *lines) next() (line, error) {
	if len(l.back) > 0 {
		first := l.back[0]
		l.back = l.back[1:]
		return first, nil
	}
	var text []byte
	whole, any := true, false
	for {
		part, err := l.r.ReadSlice(l.end)
		any = any || len(part) > 0
		if whole = whole && len(text)+len(part) <= MaxRecord; whole {
			text = append(text, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (!errors.Is(err, io.EOF) || !any):
			if !errors.Is(err, io.EOF) {
				err = fmt.Errorf("line %d: %w", l.number+1, err)
			}
			return line{}, err
		}
		l.number++
		return line{text: strings.TrimSuffix(strings.TrimSuffix(string(text), string(l.end)), "\r"), number: l.number, whole: whole}, nil
	}
}

// unread gives lines back that were read in vain.
func (l *lines) unread(back []line) { l.back = append(back, l.back...) }
