package hogstream_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A call of a logger is told by its name and by the zap fields that it is given, or by
// the logger's own name.
func TestEveryLogMessageIsRoomDotEvent(t *testing.T) {
	event := regexp.MustCompile(`^[a-z]+(\.[a-z0-9_]+)+$`)
	levels := []string{"Debug", "Info", "Warn", "Error", "DPanic", "Panic", "Fatal", "DebugContext", "InfoContext", "WarnContext", "ErrorContext"}
	seen := 0
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains(levels, method.Sel.Name) || !isLogger(method.X) && !hasFields(call) {
				return true
			}
			for _, arg := range call.Args {
				text, ok := arg.(*ast.BasicLit)
				if !ok || text.Kind != token.STRING {
					continue
				}
				message, err := strconv.Unquote(text.Value)
				require.NoError(t, err)
				seen++
				assert.Regexp(t, event, message, fset.Position(text.Pos()))
			}
			return true
		})
		return nil
	}))
	require.Greater(t, seen, 50, "the walk finds the calls")
}

// isLogger says that an expression ends in what loggers are called here.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "log" || x.Name == "logger"
	case *ast.SelectorExpr:
		return slices.Contains([]string{"log", "Log", "logger", "Logger"}, x.Sel.Name)
	case *ast.CallExpr: // log.With(…), log.Ctx(ctx)
		f, ok := x.Fun.(*ast.SelectorExpr)
		return ok && isLogger(f.X)
	}
	return false
}

// hasFields says that a call is given zap fields.
func hasFields(call *ast.CallExpr) bool {
	return slices.ContainsFunc(call.Args, func(arg ast.Expr) bool {
		field, ok := arg.(*ast.CallExpr)
		if !ok {
			return false
		}
		f, ok := field.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := f.X.(*ast.Ident)
		return ok && pkg.Name == "zap"
	})
}
