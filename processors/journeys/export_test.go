package journeys

// EncodeState is the state of a contact as the processor keeps it.
func EncodeState(s State) ([]byte, error) { return codec{}.Encode(s) }
