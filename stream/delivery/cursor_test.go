package delivery

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A model of a cursor: what happened to every offset, kept in full.
type cursorModel struct {
	next     int64
	finished map[int64]bool
	open     []int64
}

func (m *cursorModel) position() int64 {
	p := int64(0)
	for p < m.next && m.finished[p] {
		p++
	}
	return p
}

func TestCursorPositionIsTheFinishedPrefixAndRangesAreExactlyWhatIsFinishedBeyond(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := NewCursor(0, nil)
		m := &cursorModel{finished: map[int64]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"admit": func(t *rapid.T) {
				off := c.Next() + rapid.Int64Range(0, 3).Draw(t, "skip")
				for o := m.next; o < off; o++ {
					m.finished[o] = true // looked at and not wanted
				}
				if admitted := c.Admit(off); admitted == m.finished[off] {
					t.Fatalf("admit %d: %v, but finished before: %v", off, admitted, m.finished[off])
				} else if admitted {
					m.open = append(m.open, off)
				}
				m.next = max(m.next, off+1)
			},
			"advance": func(t *rapid.T) {
				to := c.Next() + rapid.Int64Range(0, 5).Draw(t, "by")
				c.Advance(to)
				for o := m.next; o < to; o++ {
					m.finished[o] = true
				}
				m.next = max(m.next, to)
			},
			"finish": func(t *rapid.T) {
				if len(m.open) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(m.open)-1).Draw(t, "which")
				if !c.Finish(m.open[i]) {
					t.Fatalf("finish %d refused", m.open[i])
				}
				if c.Finish(m.open[i]) {
					t.Fatalf("finish %d twice", m.open[i])
				}
				m.finished[m.open[i]] = true
				m.open = slices.Delete(m.open, i, i+1)
			},
			"finish ahead": func(t *rapid.T) {
				off := c.Next() + rapid.Int64Range(-2, 8).Draw(t, "ahead")
				want := off >= c.Next() && !m.finished[off]
				if done := c.FinishAhead(off); done != want {
					t.Fatalf("finish %d ahead: %v", off, done)
				}
				if want {
					m.finished[off] = true
				}
				for m.finished[m.next] {
					m.next++
				}
			},
			"crash and restore": func(t *rapid.T) {
				pairs, err := UnpackRanges(c.Position(), packRanges(c.Position(), c.Finished(nil)))
				if err != nil {
					t.Fatal(err)
				}
				c = NewCursor(c.Position(), pairs)
				m.next, m.open = m.position(), nil
				for o := m.next; m.finished[o]; o++ {
					m.next = o + 1
				}
			},
			"": func(t *rapid.T) {
				if c.Open() != len(m.open) {
					t.Fatalf("open %d; model %v", c.Open(), m.open)
				}
				for o := int64(0); o < c.Position(); o++ {
					if !m.finished[o] {
						t.Fatalf("%d lies below position %d and is not finished", o, c.Position())
					}
				}
				pairs := c.Finished(nil)
				last := c.Position()
				covered := map[int64]bool{}
				for i := 0; i < len(pairs); i += 2 {
					if pairs[i] <= last || pairs[i+1] <= pairs[i] {
						t.Fatalf("ranges %v beyond %d are not ascending and apart", pairs, c.Position())
					}
					for o := pairs[i]; o < pairs[i+1]; o++ {
						if !m.finished[o] {
							t.Fatalf("%d lies in %v and is not finished", o, pairs)
						}
						covered[o] = true
					}
					last = pairs[i+1]
				}
				for o := range m.finished {
					if o >= c.Position() && !covered[o] {
						t.Fatalf("%d is finished and neither below %d nor in %v", o, c.Position(), pairs)
					}
				}
				if len(c.slots) > 2*c.open+16 || len(pairs) > 2*(c.open+1)+len(c.restored) {
					t.Fatalf("%d slots, %d numbers for %d open", len(c.slots), len(pairs), c.open)
				}
			},
		})
	})
}

func TestCursorStaysSmallWhileOneRecordIsOpenForAMillion(t *testing.T) {
	c := NewCursor(0, nil)
	c.Admit(0)
	for o := int64(1); o < 1_000_000; o++ {
		c.Admit(o)
		c.Finish(o)
	}
	if c.Position() != 0 || len(c.slots) > 32 {
		t.Fatalf("position %d, %d slots", c.Position(), len(c.slots))
	}
	if got := c.Finished(nil); !slices.Equal(got, []int64{1, 1_000_000}) {
		t.Fatalf("finished %v", got)
	}
}

func TestDamagedRangesAreRefused(t *testing.T) {
	for _, b := range [][]byte{{0x80}, {1}, {1, 2, 3}} {
		if _, err := UnpackRanges(0, b); err == nil {
			t.Errorf("%v accepted", b)
		}
	}
}
