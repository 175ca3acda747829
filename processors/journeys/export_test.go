package journeys

import "github.com/hogstream/hogstream/storage"

// EncodeState is the state of a contact as the processor keeps it.
func EncodeState(s State) ([]byte, error) { return codec{}.Encode(s) }

// Asking is the logic with the destinations that there are.
func Asking(l *Logic, targets []storage.CallTarget) *Logic { return l.asking(targets) }
