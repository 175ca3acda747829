package hogstream_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
)

// settings are the variables of Config with their defaults.
func settings(t reflect.Type) map[string]string {
	found := map[string]string{}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Type.Kind() == reflect.Struct {
			for name, def := range settings(f.Type) {
				found[name] = def
			}
		}
		if name, _, _ := strings.Cut(f.Tag.Get("env"), ","); name != "" { // what follows are former names
			found[name] = f.Tag.Get("default")
		}
	}
	return found
}

func TestEverySettingIsDocumentedWithItsDefault(t *testing.T) {
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|([^|]*)\\|").FindAllStringSubmatch(read(t, "docs/operate.md"), -1) {
		documented[row[1]] = strings.Trim(row[2], "` ")
	}
	assert.Equal(t, settings(reflect.TypeFor[hogstream.Config]()), documented)
}

func TestDocumentsNameFunctionsAndTestsThatExist(t *testing.T) {
	tests := map[string]bool{}
	names := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w+)\(`)
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			for _, m := range names.FindAllStringSubmatch(read(t, path), -1) {
				tests[m[1]] = true
			}
		}
		return err
	}))
	for _, doc := range documents(t) {
		text := read(t, doc)
		for _, m := range regexp.MustCompile("`([a-z/]+\\.go):(\\w+)`").FindAllStringSubmatch(text, -1) {
			function := regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + m[2] + `\(`)
			assert.Regexp(t, function, read(t, m[1]), "%s names %s:%s", doc, m[1], m[2])
		}
		for _, m := range regexp.MustCompile("`((?:Test|Fuzz|Example)[A-Z]\\w+)`").FindAllStringSubmatch(text, -1) {
			assert.True(t, tests[m[1]], "%s names %s, which is no test", doc, m[1])
		}
	}
}

func documents(t *testing.T) []string {
	docs, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	return append(docs, "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
