package storage

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrListCursor is returned for a cursor that the list did not make.
var ErrListCursor = errors.New("not a cursor of this list")

// writeCursor is the place where a page ends, as a text to be handed out.
func writeCursor(place any) (string, error) {
	raw, err := json.Marshal(place)
	if err != nil {
		return "", fmt.Errorf("make a cursor: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

// readCursor reads what writeCursor made.
func readCursor(cursor string, place any) error {
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || json.Unmarshal(raw, place) != nil {
		return ErrListCursor
	}
	return nil
}
