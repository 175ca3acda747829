package schemas

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIDsThatProgramsSendByMistakeAreKnown(t *testing.T) {
	for _, word := range []string{"anonymous", "guest", "distinctid", "distinct_id", "id", "not_authenticated", "email", "undefined", "true", "false"} {
		for _, id := range []string{word, strings.ToUpper(word), " " + word + "\t", `"` + word + `"`, `'` + word + `'`, `"'` + word + `'"`} {
			require.NotEmpty(t, MistakenID(id), id)
		}
	}
	for _, id := range []string{"[object Object]", "NaN", "None", "none", "null", "0", `"null"`, `'0'`, "", " \n", `""`, `' '`, strings.Repeat("x", 401), strings.Repeat("é", 401)} {
		require.NotEmpty(t, MistakenID(id), "%.20q", id)
	}
	for _, id := range []string{"NONE", "NULL", "nan", "00", "1", "user", "u-1", `"`, "'", `"u-1"`, `null'`, "undefined-1", "guest@example.com", strings.Repeat("é", 255)} {
		require.Empty(t, MistakenID(id), "%.20q", id)
	}
}

func TestAnInputWithoutAUsableIDIsKeyedByItsOwn(t *testing.T) {
	in := Input{ID: idA, UserID: ptr("undefined"), Email: ptr("a@example.com"), AnonymousID: ptr("a-1")}
	require.Equal(t, "e:a@example.com", in.Key())
	in.Email = nil
	require.Equal(t, "a:a-1", in.Key())
	in.AnonymousID = ptr("null")
	require.Equal(t, "i:"+idA, in.Key(), "they are spread, as they are nobody's")
}
