// Package signing makes the keys and signatures of Standard Webhooks 1.0.0: a secret
// that both sides know (v1), and an ed25519 key of which the receiver knows the public
// half (v1a). Its errors never show a key.
package signing

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// SecretPrefix begins a secret.
const SecretPrefix = "whsec_"

const (
	minSecretBytes = 24
	maxSecretBytes = 64
)

// NewSecret makes a signing secret: whsec_ and 32 random bytes in standard
// base64, for strict decoders refuse the URL alphabet.
func NewSecret() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: it ends the process instead
	return SecretPrefix + base64.StdEncoding.EncodeToString(key[:])
}

// Shown is what of a secret may be shown.
func Shown(secret string) string { return secret[:min(len(secret), 12)] }

// ParseSecret decodes a secret, with or without its prefix. Its error begins with the
// field and says what to write instead.
func ParseSecret(secret string) ([]byte, error) {
	if secret == "" {
		return nil, errors.New("secret: can't be empty: rotate the secret to make one")
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, SecretPrefix))
	if err != nil {
		key, err = base64.RawStdEncoding.DecodeString(strings.TrimPrefix(secret, SecretPrefix))
	}
	if err != nil {
		return nil, errors.New("secret: is not standard base64 after whsec_: leave it out to have one made")
	}
	if len(key) < minSecretBytes || len(key) > maxSecretBytes {
		return nil, fmt.Errorf("secret: has %d bytes: Standard Webhooks asks for %d to %d; leave it out to have one made",
			len(key), minSecretBytes, maxSecretBytes)
	}
	return key, nil
}

// Secret makes the v1 signature. It is safe for concurrent use.
type Secret struct{ key []byte }

// OpenSecret makes a secret ready to sign. Errors as [ParseSecret].
func OpenSecret(secret string) (*Secret, error) {
	key, err := ParseSecret(secret)
	if err != nil {
		return nil, err
	}
	return &Secret{key}, nil
}

// Append adds `v1,<base64 of HMAC-SHA256(id.timestamp.body)>`.
func (s *Secret) Append(dst []byte, id, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return base64.StdEncoding.AppendEncode(append(dst, "v1,"...), mac.Sum(nil))
}
