package destinations

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/storage"
)

func TestTheSecretsOfAnOwnKindAreNotSentToAnotherReceiver(t *testing.T) {
	crm := &sinks.Kind{
		Name: "crm",
		Receivers: func(d *storage.Destination) []string {
			var cfg struct{ Endpoint string }
			_ = json.Unmarshal(d.Config, &cfg)
			return []string{cfg.Endpoint}
		},
	}
	at := func(endpoint string) *storage.Destination {
		return &storage.Destination{Kind: "crm", Config: json.RawMessage(`{"endpoint":"` + endpoint + `","token":"s3cret"}`)}
	}
	require.NoError(t, refuseMove(crm, at("https://crm.example/a"), at("https://crm.example/b"), []string{"config.token"}))
	err := refuseMove(crm, at("https://crm.example/a"), at("https://evil.example/a"), []string{"config.token"})
	require.ErrorContains(t, err, "given for another receiver than evil.example:443")
}
