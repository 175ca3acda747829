package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// What keys begin with.
const (
	PrivateKeyPrefix = "whsk_"
	PublicKeyPrefix  = "whpk_"
)

// NewKey makes a private key: whsk_ and its 64 bytes (seed and public key) in
// standard base64.
func NewKey() string {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // cannot be: the system's randomness does not fail
	}
	return encode(key)
}

func encode(key ed25519.PrivateKey) string {
	return PrivateKeyPrefix + base64.StdEncoding.EncodeToString(key)
}

// parseKey decodes a private key that is stored, of 64 bytes or its seed of 32.
func parseKey(encoded string) (ed25519.PrivateKey, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(encoded, PrivateKeyPrefix))
	switch {
	case err != nil:
	case len(raw) == ed25519.PrivateKeySize:
		return ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize]), nil
	case len(raw) == ed25519.SeedSize:
		return ed25519.NewKeyFromSeed(raw), nil
	}
	return nil, errors.New("config.ed25519: the stored key cannot be used: rotate the secret to make one")
}

// ImportKey is a private key that was made elsewhere, in the form in which keys are
// stored. Its error says what to write instead.
func ImportKey(encoded string) (string, error) {
	const fix = "write whsk_ and the base64 of its 64 bytes (seed and public key) or of the seed's 32, or leave it out to have one made"
	rest, is := strings.CutPrefix(encoded, PrivateKeyPrefix)
	switch {
	case strings.HasPrefix(encoded, PublicKeyPrefix):
		return "", errors.New("is a public key: " + fix)
	case !is:
		return "", errors.New("does not begin with whsk_: " + fix)
	}
	raw, err := base64.StdEncoding.DecodeString(rest)
	switch {
	case err != nil:
		return "", errors.New("is not standard base64 after whsk_: " + fix)
	case len(raw) != ed25519.PrivateKeySize && len(raw) != ed25519.SeedSize:
		return "", fmt.Errorf("has %d bytes: %s", len(raw), fix)
	}
	key := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if len(raw) == ed25519.PrivateKeySize && !bytes.Equal(raw, key) {
		return "", errors.New("holds a public key that is not that of its seed: " + fix)
	}
	return encode(key), nil
}

// PublicKey is whpk_ and the public key of a private one; "" for none.
func PublicKey(encoded string) string {
	key, err := parseKey(encoded)
	if encoded == "" || err != nil {
		return ""
	}
	return PublicKeyPrefix + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

// Key makes the v1a signature. It is safe for concurrent use.
type Key struct{ key ed25519.PrivateKey }

// OpenKey makes a private key that is stored ready to sign.
func OpenKey(encoded string) (*Key, error) {
	key, err := parseKey(encoded)
	if err != nil {
		return nil, err
	}
	return &Key{key}, nil
}

// Append adds `v1a,<base64 of the ed25519 signature of id.timestamp.body>`.
func (s *Key) Append(dst []byte, id, timestamp string, body []byte) []byte {
	m := append([]byte(id+"."+timestamp+"."), body...) // ed25519 wants it in one piece
	dst = append(dst, "v1a,"...)
	return base64.StdEncoding.AppendEncode(dst, ed25519.Sign(s.key, m))
}
