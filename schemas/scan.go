package schemas

// The scanner for readers of whole bodies: they cut documents out of a text
// that they walk over once.

// ScanValue returns the index behind the JSON value (RFC 8259) that begins at
// text[at], which must not be whitespace. The value may open at most depth
// levels. It does not look at UTF-8. The error is a *DocumentError.
func ScanValue(text string, at, depth int) (end int, err error) { return skipValue(text, at, depth) }

// ScanString is ScanValue for a value that must be a string.
func ScanString(text string, at int) (end int, err error) { return skipString(text, at) }

// SkipSpace returns the index of the first byte from text[at] on that is not
// JSON whitespace, or len(text).
func SkipSpace(text string, at int) int { return skipSpace(text, at) }

// Unquote decodes a JSON string with its quotes. One without escapes shares the
// memory of quoted.
func Unquote(quoted string) (string, error) { return unquote(quoted) }
