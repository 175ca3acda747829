package journeys_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// What docs/journeys.md shows can be read.
func TestWhatTheDocumentsShowCanBeRead(t *testing.T) {
	text, err := os.ReadFile("../docs/journeys.md")
	require.NoError(t, err)
	blocks := yamlBlock.FindAllStringSubmatch(string(text), -1)
	require.Len(t, blocks, 4)
	for _, block := range blocks {
		written := block[1]
		switch {
		case strings.HasPrefix(written, "on:"):
			_, err := reactions(t, strings.TrimPrefix(written, "on:"))
			require.NoError(t, err)
			continue
		case strings.HasPrefix(written, "- "):
			written = steps("steps:\n" + written)
		case strings.HasPrefix(written, "exitOn:"):
			written = steps(written + "steps: [{wait: 1d}]")
		}
		_, err := journeys.ParseYAML("journeys.md", []byte(written))
		require.NoError(t, err)
	}
	inTable := regexp.MustCompile("(?m)^\\| `((?:wait|waitUntil|split|set|bucket|email|exit): [^`…]*)`")
	rows := inTable.FindAllStringSubmatch(string(text), -1)
	require.GreaterOrEqual(t, len(rows), 6)
	for _, row := range rows {
		share := strings.Replace(row[1], "do: […]", "do: [{exit: x}]", 1)
		_, err := journeys.ParseYAML("journeys.md", []byte(steps("steps:\n  - "+share)))
		require.NoError(t, err, row[1])
	}
}
