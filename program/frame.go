package program

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What goes over the pipes is frames: the length of the rest in four bytes, then parts,
// each with its own length before it as a uvarint.

// Bounds of frames. A frame that claims more is refused before anything is allocated.
const (
	maxRequest = 16 << 20
	maxAnswer  = 4 << 20 // an envelope of at most maxOutput, and what is in it once more
	frameHead  = 4
)

var errGarbled = errors.New("is not a frame")

// frame is a frame with these parts.
func frame(parts ...[]byte) []byte {
	size := frameHead
	for _, p := range parts {
		size += binary.MaxVarintLen32 + len(p)
	}
	b := make([]byte, frameHead, size)
	for _, p := range parts {
		b = append(binary.AppendUvarint(b, uint64(len(p))), p...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-frameHead))
	return b
}

// readFrame reads the parts of the next frame, which has at most so many bytes. They
// stand in memory of their own.
func readFrame(r io.Reader, most int) ([][]byte, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > uint32(most) {
		return nil, fmt.Errorf("%w: it has %d bytes: at most %d are allowed", errGarbled, size, most)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return partsOf(b)
}

func partsOf(b []byte) ([][]byte, error) {
	var parts [][]byte
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, fmt.Errorf("%w: a part is longer than the rest", errGarbled)
		}
		end := n + int(size)
		parts = append(parts, b[n:end:end])
		b = b[end:]
	}
	return parts, nil
}
