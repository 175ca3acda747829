package sinks

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/signing"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// signedRequest is a request as a receiver got it, for the programs of
// testdata/verify.
type signedRequest struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"`

	valid bool
}

// signedRequests are requests that were sent, as they arrived: all types of the
// catalog, in a rotation, and with an ed25519 signature among the others; and some
// that are not to be accepted.
func signedRequests(t *testing.T) []signedRequest {
	var arrived []signedRequest
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		headers := map[string]string{}
		for name := range r.Header {
			if strings.HasPrefix(name, "Webhook-") {
				headers[strings.ToLower(name)] = r.Header.Get(name)
			}
		}
		arrived = append(arrived, signedRequest{Headers: headers, Body: body})
	}))
	defer srv.Close()
	until := time.Now().Add(time.Hour)
	dest := &storage.Destination{
		ID: "d1", Name: "test", Kind: "webhook", URL: srv.URL, Revision: 1, Config: json.RawMessage(`{"ed25519":true}`),
		Secret: signing.NewSecret(), PreviousSecret: signing.NewSecret(), PreviousSecretUntil: &until,
		SigningKey: signing.NewKey(), PreviousSigningKey: signing.NewKey(),
	}
	d := newDeliverer(t, Config{AllowLoopback: true})
	records := sinktest.Records()
	unusual := sinktest.Event()
	unusual.Properties = `{"ü": "\u00e9 € 😀 \u2028", "n": 1e400, "s": " "}`
	records = append(records, sinktest.Record(unusual, 99))
	for _, r := range records {
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{r}, Attempt: 1})
		require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)
	}
	require.Len(t, arrived, len(schemas.Catalog())+1)
	var requests []signedRequest
	for _, r := range arrived {
		for _, secret := range []string{dest.Secret, dest.PreviousSecret} {
			r.Secret, r.valid = secret, true
			requests = append(requests, r)
		}
	}
	wrong := arrived[0]
	wrong.Secret = signing.NewSecret()
	tampered := arrived[0]
	tampered.Secret, tampered.Body = dest.Secret, append(slices.Clone(tampered.Body), ' ')
	return append(requests, wrong, tampered)
}

// verifyWith runs a program of testdata/verify and checks what each of its libraries
// says of the requests.
func verifyWith(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	requests := signedRequests(t)
	input, err := json.Marshal(requests)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(input), os.Stderr
	output, err := cmd.Output()
	require.NoError(t, err)
	var answers []map[string]string
	require.NoError(t, json.Unmarshal(output, &answers))
	require.Len(t, answers, len(requests))
	for i, r := range requests {
		require.NotEmpty(t, answers[i])
		for library, said := range answers[i] {
			require.Equal(t, r.valid, said == "ok", "%s says %q of %v %s", library, said, r.Headers, r.Body)
		}
	}
}

// skipLoudly skips what needs the network once, or fails it where that is demanded.
func skipLoudly(t *testing.T, why string, output []byte) {
	t.Helper()
	if os.Getenv("HOGSTREAM_PUBLIC_LIBRARIES") == "required" {
		t.Fatalf("%s\n%s", why, output)
	}
	t.Skipf("SKIPPED, nothing is known of the public library: %s\n%.500s", why, output)
}

// prepared runs a command that fetches what is missing, without waiting for long.
func prepared(t *testing.T, dir, what, program string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		skipLoudly(t, program+" is not installed", nil)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	if output, err := cmd.CombinedOutput(); err != nil {
		skipLoudly(t, what+" could not be fetched: "+err.Error(), output)
	}
}

func TestPublicLibrariesOfNodeAcceptTheSignatures(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		skipLoudly(t, "node is not installed", nil)
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "verify.mjs"} {
		content, err := os.ReadFile(filepath.Join("testdata/verify", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	prepared(t, dir, "standardwebhooks and svix", "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1", "--fetch-timeout=20000")
	verifyWith(t, dir, "node", "verify.mjs")
}

func TestThePublicSvixLibraryOfGoAcceptsTheSignatures(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("testdata", "verify")
	binary := filepath.Join(t.TempDir(), "verify")
	prepared(t, dir, "svix", "go", "build", "-mod=readonly", "-o", binary, ".")
	verifyWith(t, dir, binary)
}
