package stream_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// broker is a broker over TLS that lets in whom allows likes: by the mechanism and
// the first message of the client.
func broker(t *testing.T, mechanism string, allows func(message []byte) bool) stream.Config {
	t.Helper()
	cert, ca := certificate(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	var greeted atomic.Bool
	cluster.ControlKey(int16(kmsg.SASLHandshake), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked := request.(*kmsg.SASLHandshakeRequest)
		answer := asked.ResponseKind().(*kmsg.SASLHandshakeResponse)
		answer.SupportedMechanisms = []string{mechanism}
		if asked.Mechanism != mechanism {
			answer.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		}
		return answer, nil, true
	})
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked := request.(*kmsg.SASLAuthenticateRequest)
		answer := asked.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		if allows(asked.SASLAuthBytes) {
			greeted.Store(true)
			if mechanism == "AWS_MSK_IAM" {
				answer.SASLAuthBytes = []byte("{}") // RFC 7628 knows no answer to a token that is taken
			}
		} else {
			answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
		}
		return answer, nil, true
	})
	t.Cleanup(func() { require.True(t, greeted.Load() || t.Failed(), "nobody logged in") })
	return stream.Config{Brokers: cluster.ListenAddrs(), TLSEnabled: true, TLSCAFile: ca}
}

func ping(t *testing.T, config stream.Config) error {
	t.Helper()
	admin, err := stream.OpenAdmin(config, nil)
	require.NoError(t, err)
	defer admin.Close()
	ctx, cancel := context.WithTimeout(context.Background(), streamtest.Patience)
	defer cancel()
	return admin.Ping(ctx)
}

func TestATokenOfTheClientCredentialsGrantLogsIn(t *testing.T) {
	var grants atomic.Int64
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grants.Add(1)
		id, secret, _ := r.BasicAuth()
		w.Header().Set("Content-Type", "application/json")
		if r.PostFormValue("grant_type") != "client_credentials" || id != "hog" || secret != "s3cret" || r.PostFormValue("scope") != "kafka all" {
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_client", "error_description": "not " + secret}) // a test's server
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "tok", "token_type": "Bearer", "expires_in": 3600}) // a test's server
	}))
	defer tokens.Close()
	config := broker(t, "OAUTHBEARER", func(message []byte) bool {
		return string(message) == "n,,\x01auth=Bearer tok\x01identityPoolId=pool-2\x01logicalCluster=lkc-1\x01\x01"
	})
	config.Login = stream.Login{
		Mechanism: "OAUTHBEARER", Username: "hog", Password: "s3cret", TokenURL: tokens.URL, Scopes: []string{"kafka", "all"},
		Extensions: map[string]string{"logicalCluster": "lkc-1", "identityPoolId": "pool-2"},
	}
	require.NoError(t, ping(t, config))
	require.EqualValues(t, 1, grants.Load(), "a token serves all connections of a client")

	config.Login.Password = "wrong-s3cret"
	err := ping(t, config)
	require.ErrorContains(t, err, "invalid_client")
	require.NotContains(t, err.Error(), "s3cret", "what the server quotes stays out of logs")
}

func TestAnAccessKeyOfAWSSignsTheLogin(t *testing.T) {
	signed := func(key, token string) func([]byte) bool {
		return func(message []byte) bool {
			var m map[string]string
			return json.Unmarshal(message, &m) == nil && m["action"] == "kafka-cluster:Connect" &&
				strings.HasPrefix(m["x-amz-credential"], key+"/") && m["x-amz-security-token"] == token && m["x-amz-signature"] != ""
		}
	}
	// The region is part of what is signed; it is read from the broker's name.
	t.Setenv("AWS_REGION", "eu-central-1")

	config := broker(t, "AWS_MSK_IAM", signed("AKMINE", ""))
	config.Login = stream.Login{Mechanism: "AWS_MSK_IAM", Username: "AKMINE", Password: "secret"}
	require.NoError(t, ping(t, config))

	// Without keys of our own, those that the AWS SDK finds, here in its environment.
	t.Setenv("AWS_ACCESS_KEY_ID", "AKROLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_SESSION_TOKEN", "session")
	config = broker(t, "AWS_MSK_IAM", signed("AKROLE", "session"))
	config.Login = stream.Login{Mechanism: "AWS_MSK_IAM"}
	require.NoError(t, ping(t, config))
}

func TestALoginThatCannotWorkIsRefusedWithItsReason(t *testing.T) {
	for reason, login := range map[string]stream.Login{
		"no Username":               {Mechanism: "PLAIN"},
		"without a mechanism":       {Username: "hog"},
		"TokenURL":                  {Mechanism: "OAUTHBEARER", Username: "hog", TokenURL: "auth.example.com"},
		"OAUTHBEARER alone":         {Mechanism: "PLAIN", Username: "hog", TokenURL: "https://auth.example.com"},
		"or neither":                {Mechanism: "AWS_MSK_IAM", Username: "AK"},
		"over TLS alone":            {Mechanism: "AWS_MSK_IAM"},
		"OAUTHBEARER or AWS_MSK_IA": {Mechanism: "KERBEROS", Username: "hog"},
	} {
		err := stream.Config{Brokers: []string{"localhost:9092"}, Login: login}.Validate()
		require.ErrorContains(t, err, "Login: ")
		require.ErrorContains(t, err, reason)
	}
}

func TestRedpandaIsToldByTheIdOfItsCluster(t *testing.T) {
	for id, want := range map[string]bool{"redpanda.be267958-279d-49cd-ae86-98fc7ed2de48": true, "MkU3OEVBNTcwNTJENDM2Qk": false} {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID(id))
		require.NoError(t, err)
		admin, err := stream.OpenAdmin(stream.Config{Brokers: cluster.ListenAddrs()}, nil)
		require.NoError(t, err)
		got, err := admin.IsRedpanda(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, got, id)
		admin.Close()
		cluster.Close()
	}
}
