package packed_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas/packed"
)

var errWrong = errors.New("wrong")

func TestWhatWasAppendedIsRead(t *testing.T) {
	out := binary.AppendUvarint(binary.AppendVarint([]byte{7}, -300), 300)
	r := packed.NewReader(append(packed.AppendText(out, "text"), 'x'), errWrong)
	require.Equal(t, []any{byte(7), int64(-300), uint64(300), "text"}, []any{r.Byte(), r.Int(), r.Uint(), r.Text()})
	require.Equal(t, []byte("x"), r.Rest())
	require.NoError(t, r.Err())
}

// Whatever stands there, nothing is read beyond it, and the first fault stays.
func FuzzReader(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte("bicut"))
	f.Fuzz(func(t *testing.T, data, steps []byte) {
		r := packed.NewReader(data, errWrong)
		for _, step := range steps {
			before, had := len(r.Rest()), r.Err()
			switch step {
			case 'b':
				r.Byte()
			case 'i':
				r.Int()
			case 'u':
				r.Uint()
			case 'c':
				require.LessOrEqual(t, r.Count(3)*3, len(data))
			default:
				r.Text()
			}
			require.LessOrEqual(t, len(r.Rest()), before)
			if had != nil {
				require.Equal(t, had, r.Err())
			}
		}
		if r.Err() != nil {
			require.ErrorIs(t, r.Err(), errWrong)
		}
	})
}
