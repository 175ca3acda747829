package eventfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// keys counts how often a content came, by the first bytes of its hash.
type keys map[uint64]uint32

func (k keys) give(e *Event, scope string) {
	content := sha256.Sum256(fmt.Appendf(nil, "%s\n%s", scope, e.JSON))
	short := binary.BigEndian.Uint64(content[:])
	k[short]++
	sum := sha256.Sum256(fmt.Appendf(content[:], "\n%d", k[short]))
	key := fmt.Appendf(nil, `{"idempotencyKey":"import-%s"`, hex.EncodeToString(sum[:16]))
	rest := bytes.TrimSpace(e.JSON[1:])
	if rest[0] != '}' {
		key = append(key, ',')
	}
	e.JSON, e.Keyed = append(key, rest...), true
}
