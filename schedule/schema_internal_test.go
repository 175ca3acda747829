package schedule

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write files that are made from the code")

// `go test ./schedule -run Schema -update` writes it anew.
func TestThePublishedSchemaIsWhatTheCodeMakes(t *testing.T) {
	if *update {
		require.NoError(t, os.WriteFile("schedule.schema.json", newSchema(), 0o600))
		return
	}
	require.Equal(t, string(newSchema()), string(Schema))
}
