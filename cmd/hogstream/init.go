package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/examples/shop"
)

// defaultDefinitions is where definitions are when nobody says otherwise.
const defaultDefinitions = "definitions"

type initCmd struct {
	Dir string `arg:"" optional:"" help:"Where to: ./definitions when not given." default:"definitions"`
}

// Run writes definitions to begin with. What is there stays as it is.
func (c *initCmd) Run(out *output) error {
	written, err := writeDefinitions(c.Dir)
	if err != nil {
		return err
	}
	return out.value(map[string]any{"dir": c.Dir, "written": written}, func(w io.Writer) {
		for _, path := range written {
			fmt.Fprintf(w, "wrote %s\n", path)
		}
		if len(written) == 0 {
			fmt.Fprintf(w, "nothing to do: %s has them all\n", c.Dir)
		}
		next(w, "check them, and put them in use", "check "+c.Dir+" && "+programName()+" apply "+c.Dir)
	})
}

// schemaFile is the JSON Schema of a bucket in a directory of definitions: the files name
// it to editors, which need no network so.
const schemaFile = "bucket.schema.json"

// writeDefinitions writes the shop's definitions where none of that name are, and the
// schema of this release. It returns what it wrote.
func writeDefinitions(dir string) (written []string, err error) {
	err = fs.WalkDir(shop.Definitions(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(shop.Definitions(), name)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		written = append(written, path)
		return writeFile(path, text)
	})
	if err != nil {
		return nil, err
	}
	fresh, err := writeSchema(dir)
	if fresh {
		written = append(written, filepath.Join(dir, schemaFile))
	}
	return written, err
}

// writeSchema writes the schema of this release, unless it is there.
func writeSchema(dir string) (fresh bool, err error) {
	path := filepath.Join(dir, schemaFile)
	if there, err := os.ReadFile(path); err == nil && string(there) == string(definition.Schema) {
		return false, nil
	}
	return true, writeFile(path, definition.Schema)
}

func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// makeDefinitions is for a developer's instance: definitions to begin with where there is
// no such directory, and the schema of this release where it was written before.
func makeDefinitions(dir string) error {
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = writeDefinitions(dir)
		return err
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, schemaFile)); err == nil {
		_, err = writeSchema(dir)
		return err
	}
	return nil
}
