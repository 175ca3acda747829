package derive

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// What a step answers is given in the transaction of its state: not of a batch that comes to
// nothing, and once, also of a record that waited in Postgres, which still says that
// somebody waits.
func TestAnswersAreGivenWithTheStateOnce(t *testing.T) {
	db, codec := storagetest.New(t), schemas.NewCodec()
	frame, err := New(stepper{step: func(s []string, r *Record[[]string], _ time.Time) (Result[[]string], error) {
		out := Result[[]string]{State: append(s, r.Event.Name)}
		if r.Event.Wait {
			out.Answer = &storage.Answer{InputID: schemas.ExitsID(r.Event.ID), JSON: []byte(`{"name":"` + r.Event.Name + `"}`)}
		}
		return out, nil
	}}, codec, nil)
	require.NoError(t, err)
	offset := int64(0)
	apply := func(failure error, events ...*schemas.Event) {
		t.Helper()
		var records []*stream.Record
		for _, e := range events {
			value, err := codec.Encode(e)
			require.NoError(t, err)
			offset++
			records = append(records, &stream.Record{Topic: schemas.TopicEvents, Key: []byte(e.ContactID), Value: value, ID: e.ID, Type: e.Name, Offset: offset, Seq: e.Seq})
		}
		require.ErrorIs(t, db.InBatch(t.Context(), func(tx *storage.Tx) error {
			if err := frame.Apply(t.Context(), tx, loop.NewBatch(codec, time.Now(), records)); err != nil {
				return err
			}
			return failure
		}), failure)
	}
	given := func() (all []string) {
		t.Helper()
		rows, err := storagetest.SQL(db).Query(t.Context(), `SELECT answer ->> 'name' FROM answers ORDER BY 1`)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var name string
			require.NoError(t, rows.Scan(&name))
			all = append(all, name)
		}
		return all
	}
	one, two, three := event("one", 1, 0), event("two", 2, 0), event("three", 3, 0)
	one.Wait, three.Wait = true, true
	apply(errKilled, one)
	require.Empty(t, given())
	apply(nil, one)
	require.Equal(t, []string{"one"}, given())
	apply(nil, three)
	require.Equal(t, []string{"one"}, given(), "it waits for the second")
	apply(nil, two, one)
	require.Equal(t, []string{"one", "three"}, given())
}
