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
		next(w, "run their tests, and put them in use", "test "+c.Dir+" && "+programName()+" apply "+c.Dir)
	})
}

// writeDefinitions writes the shop's definitions, with their tests, where none of that name
// are, and the schemas of this release. It returns what it wrote.
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
	schemas, err := writeSchemas(dir)
	return append(written, schemas...), err
}

// writeSchemas writes the schemas of this release, unless they are there: the files name
// them to editors, which need no network so.
func writeSchemas(dir string) (written []string, err error) {
	for _, schema := range definition.SchemaFiles() {
		path := filepath.Join(dir, schema.Name)
		if there, err := os.ReadFile(path); err == nil && string(there) == string(schema.Text) {
			continue
		}
		if err := writeFile(path, schema.Text); err != nil {
			return written, err
		}
		written = append(written, path)
	}
	return written, nil
}

func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// makeDefinitions is for a developer's instance: definitions to begin with where there is
// no such directory, and the schemas of this release where they were written before.
func makeDefinitions(dir string) error {
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = writeDefinitions(dir)
		return err
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, definition.SchemaFiles()[0].Name)); err == nil {
		_, err = writeSchemas(dir)
		return err
	}
	return nil
}
