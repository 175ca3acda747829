package schemas_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

func TestOfAPanicNothingIsToldButItsKind(t *testing.T) {
	told := func(doing func()) (text string) {
		defer func() { text = schemas.PanicText(recover()) }()
		doing()
		return ""
	}
	var none []int
	var value any = "ada@example.com"
	for want, doing := range map[string]func(){
		"runtime error: index out of range [3] with length 0":   func() { none[len("ada")]++ },
		"interface conversion: interface {} is string, not int": func() { _ = value.(int) },
		"a value of type string":                                func() { panic(value) },
		"a value of type *errors.errorString":                   func() { panic(errors.New("ada@example.com")) },
	} {
		require.Equal(t, want, told(doing))
	}
}
