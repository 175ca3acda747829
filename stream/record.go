package stream

// Clone is a copy that shares no bytes with what the record was read with.
func (r *Record) Clone() *Record {
	c := *r
	bytes := make([]byte, 0, len(r.Key)+len(r.Value))
	bytes = append(append(bytes, r.Key...), r.Value...)
	c.Key = bytes[:len(r.Key):len(r.Key)]
	if r.Value != nil {
		c.Value = bytes[len(r.Key):]
	}
	return &c
}

// recordOverhead is what a record costs in memory beside its bytes.
const recordOverhead = 256

// Size is what the record takes of memory, in bytes.
func (r *Record) Size() int { return len(r.Key) + len(r.Value) + recordOverhead }
