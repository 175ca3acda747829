package stream

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hogstream/hogstream/schemas"
)

// enclosed is a record within a signal: the State of schemas.SignalRecord.
type enclosed struct {
	Topic schemas.Topic `json:"topic"`
	Value []byte        `json:"value"`
	// Redriven says that it was given up before: it is applied though it has been seen.
	Redriven bool `json:"redriven,omitempty"`
}

// Enclose makes the signal that carries a record to one processor alone, in the order of a
// contact: on the topic where it stands many would read it again. redriven says that it was
// given up before.
func Enclose(r *Record, processor, contact string, redriven bool) (*schemas.Signal, error) {
	text, err := json.Marshal(enclosed{Topic: r.Topic, Value: r.Value, Redriven: redriven})
	if err != nil {
		return nil, fmt.Errorf("enclose record %s: %w", r.ID, err)
	}
	state := string(text)
	return &schemas.Signal{
		ID: schemas.Derive(r.ID, "record:"+processor, 0), Type: schemas.SignalRecord, For: processor,
		ContactID: contact, OccurredAt: r.OccurredAt, State: &state,
	}, nil
}

// Enclosed is the record that a signal carries: its topic and value; and whether it was
// given up before.
func Enclosed(s *schemas.Signal) (r *Record, redriven bool, err error) {
	if s.State == nil {
		return nil, false, errors.New("a signal that encloses no record")
	}
	var e enclosed
	if err := json.Unmarshal([]byte(*s.State), &e); err != nil {
		return nil, false, fmt.Errorf("enclosed record: %w", err)
	}
	return &Record{Topic: e.Topic, Value: e.Value}, e.Redriven, nil
}
