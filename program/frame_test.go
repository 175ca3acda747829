package program

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsNoFrameIsRefusedBeforeAnythingIsAllocated(t *testing.T) {
	huge := binary.BigEndian.AppendUint32(nil, maxAnswer+1)
	_, err := readFrame(bytes.NewReader(huge), maxAnswer)
	require.ErrorIs(t, err, errGarbled)
	_, err = readFrame(bytes.NewReader([]byte{0, 0, 0, 2, 5, 'x'}), maxAnswer)
	require.ErrorIs(t, err, errGarbled)
	_, err = readFrame(bytes.NewReader([]byte{0, 0, 0, 2, 5}), maxAnswer)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = readFrame(bytes.NewReader(nil), maxAnswer)
	require.ErrorIs(t, err, io.EOF)
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{}, []byte("k"), []byte("{}"))
	f.Add([]byte{0, 0, 0, 3, 1, 'k', 0}, []byte{}, bytes.Repeat([]byte("x"), 300))
	f.Add([]byte{0, 0, 0, 11, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, any, first, second []byte) {
		const most = 1 << 16
		in := bytes.NewReader(any)
		if parts, err := readFrame(in, most); err == nil {
			total := 0
			for _, p := range parts {
				total += len(p)
			}
			require.LessOrEqual(t, total, len(any)-in.Len()-frameHead)
			again, err := readFrame(bytes.NewReader(frame(parts...)), most*2)
			require.NoError(t, err)
			require.Equal(t, parts, again)
		}
		written := append(frame(first, second), any...)
		parts, err := readFrame(bytes.NewReader(written), len(written))
		require.NoError(t, err)
		require.Len(t, parts, 2)
		require.True(t, bytes.Equal(first, parts[0]) && bytes.Equal(second, parts[1]))
	})
}

// A worker asked anything but what it knows ends, and does not answer at random.
func FuzzServe(f *testing.F) {
	f.Add(append(frame([]byte{askFilter}, []byte(".x")), frame([]byte{askRun}, []byte(`{"x":1}`), []byte(`{`))...))
	f.Add(frame([]byte{'?'}, []byte("x")))
	f.Add(frame([]byte{askTransform}, []byte(".[")))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		_ = serve(bytes.NewReader(in), &out)
		p := &Program{}
		for out.Len() > 0 {
			answer, err := readFrame(&out, maxAnswer)
			require.NoError(t, err)
			_, err = p.result(answer)
			require.NoError(t, err)
		}
	})
}
