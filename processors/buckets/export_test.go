package buckets

// Encode and Decode are the processor's.
func Encode(s State) ([]byte, error)    { return codec{}.Encode(s) }
func Decode(data []byte) (State, error) { return codec{}.Decode(data) }

// Observe is told of each evaluation.
func (l *Logic) Observe(evaluated func(bucketID string)) { l.observe = evaluated }

// Due is when the timer of the contact is due, in microseconds; 0 for none.
func (s *State) Due() int64 { return s.due }
