package sinks

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	secretPrefix   = "whsec_"
	minSecretBytes = 24
	maxSecretBytes = 64
)

// NewSecret makes a signing secret: whsec_ and 32 random bytes in standard
// base64, for strict decoders refuse the URL alphabet.
func NewSecret() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: it ends the process instead
	return secretPrefix + base64.StdEncoding.EncodeToString(key[:])
}

// SecretPrefix is what of a secret may be shown.
func SecretPrefix(secret string) string { return secret[:min(len(secret), 12)] }

// secretKey decodes a secret. Errors never show it.
func secretKey(secret string) ([]byte, error) {
	if secret == "" {
		return nil, errors.New("secret: can't be empty: rotate the secret to make one")
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil {
		key, err = base64.RawStdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
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

// signer makes the v1 signature of Standard Webhooks. It is safe for concurrent use.
type signer struct{ key []byte }

func newSigner(secret string) (*signer, error) {
	key, err := secretKey(secret)
	if err != nil {
		return nil, err
	}
	return &signer{key}, nil
}

// append adds `v1,<base64 of HMAC-SHA256(id.timestamp.body)>`.
func (s *signer) append(dst []byte, id, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return base64.StdEncoding.AppendEncode(append(dst, "v1,"...), mac.Sum(nil))
}

// unixSeconds is the timestamp that is signed: that of the attempt.
func unixSeconds(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
