package explain_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// Of a contact whom the processor has not taken over it is not said that nothing ever came.
func TestWhyNobodyBeganSaysThatTheProcessorHasNot(t *testing.T) {
	db := storagetest.New(t)
	contact := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(t.Context(),
		`INSERT INTO contacts (id, external_id, properties, version, first_seen_at, last_seen_at, created_at, updated_at) VALUES ($1, 'u1', '{}', 1, now(), now(), now(), now())`,
		contact)
	require.NoError(t, err)
	x := explain.New(db, nil, schemas.NewCodec(), predicate.DefaultLimits(), time.UTC)
	answer, err := x.Journey(t.Context(), "cart", contact)
	require.NoError(t, err)
	require.Equal(t, "its processor has not begun with this contact yet: what came so far begins nothing", answer.Text)
	_, err = x.Journey(t.Context(), "cart", "u2")
	require.ErrorIs(t, err, explain.ErrNoContact)
}
