package schemas

import (
	"fmt"
	"runtime"
)

// PanicText is what may be logged of a recovered value: the text of the runtime's own
// errors, and of anything else its type, for what code panics with may be a value of
// a record. The stack says where it was.
func PanicText(recovered any) string {
	if err, ok := recovered.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("a value of type %T", recovered)
}
