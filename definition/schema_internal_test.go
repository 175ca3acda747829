package definition

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write files that are made from the code")

// `go test ./definition -run Schema -update` writes it anew.
func TestThePublishedSchemasAreWhatTheCodeMakes(t *testing.T) {
	for name, schema := range map[string]struct{ made, published []byte }{
		"bucket.schema.json": {newSchema(), Schema},
		"test.schema.json":   {newTestSchema(), TestSchema},
	} {
		if *update {
			require.NoError(t, os.WriteFile(name, schema.made, 0o600))
			continue
		}
		require.Equal(t, string(schema.made), string(schema.published), name)
	}
}
