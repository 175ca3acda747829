package hogstream_test

import (
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// The examples are packages of this module, compiled and run by tests of their own.
func TestTheExamplesForContributorsAreTheFilesThatAreCompiled(t *testing.T) {
	shown := map[string]bool{}
	for _, block := range regexp.MustCompile("(?s)```go\n// (\\S+)\n(.*?)```\n").FindAllStringSubmatch(read(t, "CONTRIBUTING.md"), -1) {
		require.Equal(t, read(t, block[1]), block[2], "CONTRIBUTING.md shows another %s than is compiled", block[1])
		shown[block[1]] = true
	}
	files, err := filepath.Glob("examples/newcomer/*/*.go")
	require.NoError(t, err)
	for _, file := range files {
		if matched, _ := filepath.Match("*_test.go", filepath.Base(file)); !matched {
			require.True(t, shown[file], "CONTRIBUTING.md does not show %s", file)
		}
	}
	require.NotEmpty(t, shown)
}

func TestTheIndexOfTheDocumentsNamesAllOfThem(t *testing.T) {
	docs, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	index := read(t, "docs/README.md")
	for _, doc := range docs {
		if name := filepath.Base(doc); name != "README.md" {
			require.Contains(t, index, "("+name, "docs/README.md does not name %s", name)
		}
	}
}
