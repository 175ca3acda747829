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
	for _, schema := range SchemaFiles() {
		if *update {
			require.NoError(t, os.WriteFile(schema.Name, schema.made(), 0o600))
			continue
		}
		require.Equal(t, string(schema.made()), string(schema.Text), schema.Name)
	}
}
