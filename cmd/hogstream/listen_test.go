package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/signing"
)

// listening runs the command until the test ends and returns its URL and what it printed.
func listening(t *testing.T, c listenCmd) (url string, printed func() []received) {
	free, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c.Host, c.Port = "127.0.0.1", free.Addr().(*net.TCPAddr).Port
	require.NoError(t, free.Close())
	ctx, stop := context.WithCancel(t.Context())
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, &output{JSON: true, W: &out}) }()
	url = "http://" + net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) + "/"
	require.Eventually(t, func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusMethodNotAllowed
	}, 30*time.Second, time.Millisecond)
	return url, func() (all []received) {
		stop()
		require.NoError(t, <-done)
		for dec := json.NewDecoder(&out); ; {
			var d received
			err := dec.Decode(&d)
			if errors.Is(err, io.EOF) {
				return all
			}
			require.NoError(t, err)
			all = append(all, d)
		}
	}
}

func deliver(t *testing.T, url, secret, id, body string) int {
	sign, err := signing.OpenSecret(secret)
	require.NoError(t, err)
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header = http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {string(sign.Append(nil, id, timestamp, []byte(body)))}}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

func TestListenVerifiesDeliveriesAndSaysWhichCameBefore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "secret")
	url, printed := listening(t, listenCmd{KeyFile: file, Status: 204})
	made, err := os.ReadFile(file)
	require.NoError(t, err)
	secret := strings.TrimSpace(string(made))
	body := `{"id":"msg_1","type":"contact.created","timestamp":"2026-01-02T03:04:05.000Z","data":{"id":"c"}}`
	require.Equal(t, 204, deliver(t, url, secret, "msg_1", body))
	require.Equal(t, 204, deliver(t, url, secret, "msg_1", body))
	require.Equal(t, 400, deliver(t, url, signing.NewSecret(), "msg_2", "not JSON"))
	require.Equal(t, 204, deliver(t, url, secret, "msg_2", body))

	all := printed()
	require.Len(t, all, 4)
	require.Zero(t, all[3].Before, "what did not verify is no delivery that came before")
	require.True(t, all[0].Verified)
	require.Zero(t, all[0].Before)
	require.JSONEq(t, body, string(all[0].Body))
	require.Equal(t, 1, all[1].Before)
	require.False(t, all[2].Verified)
	require.Contains(t, all[2].Problem, "fits the key and the body")
	require.Equal(t, `"not JSON"`, string(all[2].Body))
	require.Contains(t, all[1].text(), "contact.created    msg_1 (verified; again, for the 2nd time)\n    {\"id\":\"c\"}")
	require.Contains(t, all[2].text(), "NOT VERIFIED")
}

func TestListenFailsAsItIsToldTo(t *testing.T) {
	secret := signing.NewSecret()
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte(secret), 0o600))
	url, printed := listening(t, listenCmd{KeyFile: file, Status: 204, Fail: 1})
	require.Equal(t, 500, deliver(t, url, secret, "msg_1", "{}"))
	require.True(t, printed()[0].Verified)
	url, printed = listening(t, listenCmd{KeyFile: file, Status: 503})
	require.Equal(t, 503, deliver(t, url, secret, "msg_1", "{}"))
	require.Len(t, printed(), 1)

	require.ErrorContains(t, (&listenCmd{Fail: 2, Status: 204}).Run(t.Context(), nil), "--fail is 2")
	require.ErrorContains(t, (&listenCmd{Status: 99}).Run(t.Context(), nil), "--status is 99")
}

func TestWhatIsSignedOnTheCommandLineVerifiesThere(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	body, private := write("body", `{"a":1}`), signing.NewKey()
	secret := write("secret", signing.NewSecret()+"\n")
	for sign, verify := range map[string]string{secret: secret, write("private", private): write("public", signing.PublicKey(private))} {
		var printed bytes.Buffer
		out := &output{JSON: true, W: &printed}
		require.NoError(t, (&signCmd{signFlags: signFlags{KeyFile: sign, File: body}}).Run(t.Context(), out))
		var s signed
		require.NoError(t, json.Unmarshal(printed.Bytes(), &s))
		check := verifyCmd{signFlags: signFlags{KeyFile: verify, File: body}, ID: s.ID, Timestamp: s.Timestamp, Signature: s.Signature}
		require.NoError(t, check.Run(t.Context(), out))
		check.Age = time.Hour
		require.ErrorContains(t, check.Run(t.Context(), out), "away from now")
		check.Age, check.File = 0, write("other", `{"a":2}`)
		require.ErrorContains(t, check.Run(t.Context(), out), "fits the key and the body")
	}
}

func TestOrdinals(t *testing.T) {
	for n, want := range map[int]string{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 21: "21st", 112: "112th", 122: "122nd"} {
		require.Equal(t, want, ordinal(n))
	}
}
