package signing

import (
	"crypto/ed25519"
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Tolerance is how far a request's time may be from the receiver's, as the libraries of
// Standard Webhooks have it.
const Tolerance = 5 * time.Minute

// The headers of a signed request.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// Verify checks a request as a receiver does: key is a secret (whsec_…) or a public key
// (whpk_…), body the bytes as they came, now the receiver's time. The error says what does
// not hold, and never shows a key.
func Verify(key string, header http.Header, body []byte, now time.Time) error {
	id, timestamp := header.Get(HeaderID), header.Get(HeaderTimestamp)
	for _, name := range []string{HeaderID, HeaderTimestamp, HeaderSignature} {
		if header.Get(name) == "" {
			return fmt.Errorf("the header %s is missing", strings.ToLower(name))
		}
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return fmt.Errorf("%s is %q: seconds since 1970 are expected", strings.ToLower(HeaderTimestamp), timestamp)
	}
	if age := now.Sub(time.Unix(seconds, 0)); age.Abs() > Tolerance {
		return fmt.Errorf("%s is %s away from now: at most %s are taken", strings.ToLower(HeaderTimestamp), age.Abs().Round(time.Second), Tolerance)
	}
	matches, version, err := matcher(key, id, timestamp, body)
	if err != nil {
		return err
	}
	for _, signature := range strings.Fields(header.Get(HeaderSignature)) {
		if v, text, _ := strings.Cut(signature, ","); v == version {
			if raw, err := base64.StdEncoding.DecodeString(text); err == nil && matches(raw) {
				return nil
			}
		}
	}
	return fmt.Errorf("no %s signature of %s fits the key and the body", version, strings.ToLower(HeaderSignature))
}

// matcher compares signatures of the version that a key is for.
func matcher(key, id, timestamp string, body []byte) (matches func([]byte) bool, version string, err error) {
	if text, is := strings.CutPrefix(key, PublicKeyPrefix); is {
		public, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(public) != ed25519.PublicKeySize {
			return nil, "", errors.New("the public key is not whpk_ and the base64 of 32 bytes")
		}
		message := append([]byte(id+"."+timestamp+"."), body...)
		return func(signature []byte) bool { return ed25519.Verify(public, message, signature) }, "v1a", nil
	}
	secret, err := OpenSecret(key)
	if err != nil { // its fix is for who makes a destination
		return nil, "", fmt.Errorf("the key is neither a secret (whsec_ and the standard base64 of %d to %d bytes) nor a public key (whpk_…)", minSecretBytes, maxSecretBytes)
	}
	_, text, _ := strings.Cut(string(secret.Append(nil, id, timestamp, body)), ",")
	want, _ := base64.StdEncoding.DecodeString(text)
	return func(signature []byte) bool { return hmac.Equal(signature, want) }, "v1", nil
}
