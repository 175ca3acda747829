package definition

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

// Releases before there were other kinds wrote sets of buckets so, and compare their hash.
func TestASetOfBucketsIsStoredAsReleasesBeforeStoredIt(t *testing.T) {
	off := false
	list := []entry{
		newEntry(Bucket{ID: "a", Name: "A <&>", Enabled: true, Kind: KindManual, File: "buckets/a.yaml"}, &off),
		newEntry(Bucket{ID: "b", Name: "B", Kind: KindManual}, nil),
	}
	list[0].Revision, list[1].Revision = 3, 7
	text, hash := encode(list)
	require.Equal(t, `{"buckets":[{"bucket":{"id":"a","name":"A <&>","enabled":true,"kind":"manual"},"revision":3,"switched":false,"file":"buckets/a.yaml"},`+
		`{"bucket":{"id":"b","name":"B","enabled":false,"kind":"manual"},"revision":7,"built":true}]}`, text)
	sum := sha256.Sum256([]byte(`{"buckets":[{"bucket":{"id":"a","name":"A <&>","enabled":true,"kind":"manual"},"revision":0,"switched":false},` +
		`{"bucket":{"id":"b","name":"B","enabled":false,"kind":"manual"},"revision":0,"built":true}]}`))
	require.Equal(t, hex.EncodeToString(sum[:]), hash)
	read, err := decode(text)
	require.NoError(t, err)
	require.Equal(t, list, read)

	text, _ = encode(nil)
	require.Equal(t, `{"buckets":null}`, text)
}
