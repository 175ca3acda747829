package definition_test

import (
	"fmt"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	d "github.com/hogstream/hogstream/definition"
)

// BenchmarkCheck is of 1,000 files, each with a bucket that asks for another.
func BenchmarkCheck(b *testing.B) {
	const files = 1000
	dir := fstest.MapFS{"buckets/0.yaml": {Data: []byte("id: b0\nname: By hand\nenabled: true\nkind: manual\n")}}
	for i := 1; i < files; i++ {
		dir[fmt.Sprintf("buckets/%d.yaml", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, `id: b%d
name: Bucket %d
enabled: true
criteria:
  type: composite
  operator: and
  conditions:
    - {type: event, eventName: event.%d, check: count, operator: gte, value: 3, within: %dd}
    - {type: property, property: plan, operator: in, value: [pro, team]}
    - {type: bucket, bucketId: b%d}
`, i, i, i%50, i%7+1, i-1)}
	}
	for b.Loop() {
		read, err := d.LoadFS(dir, "definitions", options())
		require.NoError(b, err)
		require.Empty(b, read.Faults())
		require.Len(b, read.Buckets, files)
	}
}
