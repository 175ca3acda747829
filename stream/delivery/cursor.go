package delivery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Cursor is how far a destination is on one partition of one topic: everything
// below Position is finished, and so are the ranges of Finished beyond it. What
// it holds, in memory and when stored, is in the order of the records that are
// open, not of the distance between the oldest of them and the newest.
//
// Not safe for concurrent use.
type Cursor struct {
	next     int64   // everything below has been seen
	slots    []slot  // seen and open, ascending; some already done
	open     int     // slots that are not done
	restored []int64 // pairs [from, to) at or beyond next that were finished before a restart
}

type slot struct {
	offset int64
	done   bool
}

// NewCursor starts where a stored one was: its position and its finished ranges
// as flat pairs [from, to).
func NewCursor(position int64, finished []int64) *Cursor {
	c := &Cursor{next: position, restored: finished}
	c.skipRestored()
	return c
}

// Next is the offset to look at next; it lies in no finished range.
func (c *Cursor) Next() int64 { return c.next }

// Open is the number of records admitted and not finished.
func (c *Cursor) Open() int { return c.open }

// Admit looks at the record at offset, at or beyond Next, and opens it. It
// reports false for a record that was finished before a restart, which stays so.
func (c *Cursor) Admit(offset int64) bool {
	c.Advance(offset)
	if c.next != offset {
		return false
	}
	c.slots = append(c.slots, slot{offset: offset})
	c.open++
	c.next = offset + 1
	c.skipRestored()
	return true
}

// Advance says that everything below to has been seen and what was not
// admitted is not wanted. It never goes back.
func (c *Cursor) Advance(to int64) {
	if to > c.next {
		c.next = to
		c.skipRestored()
	}
}

// skipRestored drops restored ranges that next has reached and moves next out of
// the one it stands in.
func (c *Cursor) skipRestored() {
	for len(c.restored) > 0 && c.restored[0] <= c.next {
		c.next = max(c.next, c.restored[1])
		c.restored = c.restored[2:]
	}
}

// Finish closes the record at offset; false when it is not open.
func (c *Cursor) Finish(offset int64) bool {
	i := sort.Search(len(c.slots), func(i int) bool { return c.slots[i].offset >= offset })
	if i == len(c.slots) || c.slots[i].offset != offset || c.slots[i].done {
		return false
	}
	c.slots[i].done = true
	c.open--
	c.dropDone()
	return true
}

// FinishAhead closes a record at or beyond Next that was not admitted; false when it is
// finished already, or lies before.
func (c *Cursor) FinishAhead(offset int64) bool {
	if offset < c.next {
		return false
	}
	i := sort.Search(len(c.restored)/2, func(i int) bool { return c.restored[2*i+1] >= offset }) * 2
	switch {
	case i < len(c.restored) && c.restored[i] <= offset && offset < c.restored[i+1]:
		return false
	case i < len(c.restored) && c.restored[i+1] == offset: // it follows a range
		c.restored[i+1] = offset + 1
		if i+2 < len(c.restored) && c.restored[i+2] == offset+1 {
			c.restored = slices.Delete(c.restored, i+1, i+3)
		}
	case i < len(c.restored) && c.restored[i] == offset+1: // it precedes one
		c.restored[i] = offset
	default:
		c.restored = slices.Insert(c.restored, i, offset, offset+1)
	}
	c.skipRestored()
	return true
}

// dropDone forgets finished slots at the front, and all of them when they have
// become more than the open ones, so that one open record at the front does not
// make the rest pile up.
func (c *Cursor) dropDone() {
	i := 0
	for i < len(c.slots) && c.slots[i].done {
		i++
	}
	c.slots = c.slots[i:]
	if len(c.slots) <= 2*c.open+16 {
		return
	}
	kept := make([]slot, 0, c.open+16)
	for _, s := range c.slots {
		if !s.done {
			kept = append(kept, s)
		}
	}
	c.slots = kept
}

// Position is the offset below which everything is finished.
func (c *Cursor) Position() int64 {
	if len(c.slots) > 0 {
		return c.slots[0].offset
	}
	return c.next
}

// Finished appends to dst the finished ranges beyond Position, as flat pairs
// [from, to), ascending and not touching.
func (c *Cursor) Finished(dst []int64) []int64 {
	from := int64(-1)
	for _, s := range c.slots {
		if s.done {
			continue
		}
		if from >= 0 && from < s.offset {
			dst = append(dst, from, s.offset)
		}
		from = s.offset + 1
	}
	if from >= 0 && from < c.next {
		dst = append(dst, from, c.next)
	}
	return append(dst, c.restored...)
}

// packRanges is how finished ranges are stored: unsigned varints, each the
// distance from the one before, the first from the position.
func packRanges(position int64, pairs []int64) []byte {
	buf := make([]byte, 0, 2*len(pairs))
	for _, p := range pairs {
		buf = binary.AppendUvarint(buf, uint64(p-position))
		position = p
	}
	return buf
}

var errRanges = errors.New("finished ranges are damaged")

// UnpackRanges undoes packRanges.
func UnpackRanges(position int64, buf []byte) ([]int64, error) {
	var pairs []int64
	for len(buf) > 0 {
		d, n := binary.Uvarint(buf)
		if n <= 0 || int64(d) < 0 {
			return nil, fmt.Errorf("%w after %d numbers", errRanges, len(pairs))
		}
		position += int64(d)
		pairs = append(pairs, position)
		buf = buf[n:]
	}
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("%w: %d numbers are no pairs", errRanges, len(pairs))
	}
	return pairs, nil
}
