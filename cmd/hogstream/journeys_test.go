package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFileOfContactsToEnrolHasAnIDOrAnObjectALine(t *testing.T) {
	users, err := readUsers(strings.NewReader("u1\n\n  a b@c  \n{\"userId\":\"u2\",\"properties\":{\"cartId\":12345678901234567890}}\n"))
	require.NoError(t, err)
	require.Equal(t, []enrolUser{{UserID: "u1"}, {UserID: "a b@c"}, {UserID: "u2", Properties: []byte(`{"cartId":12345678901234567890}`)}}, users)
	for _, bad := range []string{`{"userId":""}`, `{"userid":"u1","x":1}`, `{`} {
		_, err := readUsers(strings.NewReader("u1\n" + bad))
		require.ErrorContains(t, err, "line 2", bad)
	}
}
