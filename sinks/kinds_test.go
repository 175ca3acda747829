package sinks

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
)

func TestTheSecretsOfAnOwnKindAreNotSentToAnotherReceiver(t *testing.T) {
	kinds, err := builtIn.with([]Kind{{
		Name: "crm", Records: 1, Bytes: 1024,
		Open: func(*storage.Destination, *transport.Guard) (Sink, error) { return nil, nil },
		Receivers: func(d *storage.Destination) []string {
			var cfg struct{ Endpoint string }
			_ = json.Unmarshal(d.Config, &cfg)
			return []string{cfg.Endpoint}
		},
	}})
	require.NoError(t, err)
	at := func(endpoint string) *storage.Destination {
		return &storage.Destination{Kind: "crm", Config: json.RawMessage(`{"endpoint":"` + endpoint + `","token":"s3cret"}`)}
	}
	require.NoError(t, kinds.refuseMove(at("https://crm.example/a"), at("https://crm.example/b"), []string{"config.token"}))
	err = kinds.refuseMove(at("https://crm.example/a"), at("https://evil.example/a"), []string{"config.token"})
	require.ErrorContains(t, err, "given for another receiver than evil.example:443")
}
