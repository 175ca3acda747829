package delivery_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/stream/delivery"
)

func TestTheClassOfAFailureHoldsNothingButWordsOfOurs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text   string
		status int
		want   string
	}{
		{"", 0, ""},
		{"HTTP 400: no such user ada@example.com", 400, "HTTP 400"},
		{"HTTP 400: no such user ada@example.com", 0, "HTTP 400"},
		{"", 503, "HTTP 503"},
		{"ada@example.com is no email", 207, "HTTP 207: records refused"},
		{"HTTP 207: records refused", 0, "HTTP 207"},
		{"timeout after 15s", 0, "timeout"},
		{"dns: lookup crm.internal on 10.0.0.2:53: no such host", 0, "dns"},
		{"connection refused: dial tcp 10.0.0.1:443: connect: connection refused", 0, "connection refused"},
		{"tls: failed to verify certificate: x509: valid for a.internal", 0, "tls"},
		{"filter: cannot add: string (\"ada\") and number (1)", 0, "filter"},
		{"filtered ada", 0, "failed"},
		{"dial tcp 10.0.0.1:443: i/o timeout", 0, "failed"},
		{"TOPIC_AUTHORIZATION_FAILED: Not authorized.", 0, "TOPIC_AUTHORIZATION_FAILED"},
	} {
		got := delivery.FailureClass(c.text, c.status)
		require.Equal(t, c.want, got, c.text)
		require.NotContains(t, got, "ada")
	}
}
