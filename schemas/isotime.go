package schemas

import "time"

// ISOTime is a time as APIs write it: UTC with milliseconds and Z.
type ISOTime struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (t ISOTime) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000Z"`), nil
}

// ISOTimeOf is nil for no time.
func ISOTimeOf(t *time.Time) *ISOTime {
	if t == nil {
		return nil
	}
	return &ISOTime{*t}
}
