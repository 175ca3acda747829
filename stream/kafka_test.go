package stream_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// certificate makes a certificate of 127.0.0.1 that is its own authority, and a
// file with it.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func TestClientsAuthenticateOverTLSWithEachMechanism(t *testing.T) {
	cert, ca := certificate(t)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(mechanism, "hog", "secret"),
				kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
			require.NoError(t, err)
			defer cluster.Close()
			config := stream.Config{
				Brokers: cluster.ListenAddrs(), TLSEnabled: true, TLSCAFile: ca,
				Login: stream.Login{Mechanism: mechanism, Username: "hog", Password: "secret"},
			}
			ctx, cancel := context.WithTimeout(context.Background(), streamtest.Patience)
			defer cancel()
			require.NoError(t, stream.EnsureTopics(ctx, config, nil))
			l, err := stream.OpenLog(ctx, config, schemas.NewCodec(), nil, nil)
			require.NoError(t, err)
			require.NoError(t, l.Append(ctx, streamtest.Input("a", 1)))
			require.NoError(t, l.Close(ctx))

			config.Login.Password = "wrong"
			a, err := stream.OpenAdmin(config, nil)
			require.NoError(t, err)
			defer a.Close()
			require.Error(t, a.Ping(ctx))
		})
	}
}

func TestSeveralClientsOfOneRoleShareARegisterer(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	e := streamtest.New(t, streamtest.WithConfig(func(c *stream.Config) { c.ClientMetrics = reg }))
	for range 3 { // names are given back
		a, err := stream.OpenAdmin(e.Config, nil)
		require.NoError(t, err)
		b, err := stream.OpenAdmin(e.Config, nil)
		require.NoError(t, err)
		require.NoError(t, a.Ping(e.Context()))
		require.NoError(t, b.Ping(e.Context()))
		families, err := reg.Gather()
		require.NoError(t, err)
		var clients []string
		for _, m := range families[0].Metric {
			for _, l := range m.Label {
				if l.GetName() == "client" {
					clients = append(clients, l.GetValue())
				}
			}
		}
		require.Subset(t, []string{"admin", "admin-2", "test"}, clients)
		a.Close()
		b.Close()
	}
}

func TestKeysGoToThePartitionsThatJavaChooses(t *testing.T) {
	// From Kafka's own test of murmur2, org.apache.kafka.common.utils.UtilsTest.
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
	} {
		require.Equal(t, (hash&0x7fffffff)%12, stream.PartitionOf([]byte(key), 12), key)
	}
}

func TestOnlyWhatWaitingMayMendIsUnavailable(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, err := range []error{
		refused, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{IsNotFound: true}}, io.EOF, kerr.NotController, kerr.CoordinatorLoadInProgress,
		context.DeadlineExceeded,
	} {
		require.True(t, stream.IsUnavailable(fmt.Errorf("ensure topics: %w", err)), "%v", err)
	}
	for _, err := range []error{
		nil, kerr.SaslAuthenticationFailed, kerr.TopicAuthorizationFailed, kerr.InvalidReplicationFactor, &stream.TopicsError{},
		&net.OpError{Op: "remote error", Err: tls.AlertError(42)}, x509.UnknownAuthorityError{}, context.Canceled,
	} {
		require.False(t, stream.IsUnavailable(err), "%v", err)
	}
}
