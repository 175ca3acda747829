package sinks

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hogstream/hogstream/storage"
)

// The asymmetric signature of Standard Webhooks, v1a: who verifies needs no secret,
// only the public key. A destination has a key of its own, made here or given; the
// private one never leaves.
const (
	privateKeyPrefix = "whsk_"
	publicKeyPrefix  = "whpk_"
)

// newSigningKey makes a private key: whsk_ and its 64 bytes (seed and public key) in
// standard base64.
func newSigningKey() string {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // cannot be: the system's randomness does not fail
	}
	return privateKeyPrefix + base64.StdEncoding.EncodeToString(key)
}

// signingKey decodes a private key, of 64 bytes or its seed of 32. Errors never show it.
func signingKey(encoded string) (ed25519.PrivateKey, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(encoded, privateKeyPrefix))
	switch {
	case err != nil:
	case len(raw) == ed25519.PrivateKeySize:
		return ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize]), nil
	case len(raw) == ed25519.SeedSize:
		return ed25519.NewKeyFromSeed(raw), nil
	}
	return nil, errors.New("config.ed25519: the stored key cannot be used: rotate the secret to make one")
}

// adopt puts keys in place that were given, instead of those that were made; "" leaves
// what is there.
func (c catalog) adopt(d *storage.Destination, secret, signing string) error {
	if secret != "" {
		kind, err := c.find(d.Kind)
		switch {
		case err != nil:
			return invalid(err)
		case !kind.Signed:
			return &InvalidError{"secret", fmt.Sprintf("a destination of kind %s signs nothing: leave it out", d.Kind)}
		case strings.HasPrefix(secret, privateKeyPrefix), strings.HasPrefix(secret, publicKeyPrefix):
			return &InvalidError{"secret", "is an ed25519 key: write the private one (whsk_…) as signingKey, with config.ed25519"}
		}
		if _, err := secretKey(secret); err != nil {
			return invalid(err)
		}
		d.Secret = secretPrefix + strings.TrimPrefix(secret, secretPrefix)
	}
	if signing == "" {
		return nil
	}
	if !signsEd25519(d) {
		return &InvalidError{"signingKey", "is used by webhooks with config.ed25519: set that to true, or leave the key out"}
	}
	key, err := importKey(signing)
	if err != nil {
		return &InvalidError{"signingKey", err.Error()}
	}
	d.SigningKey = privateKeyPrefix + base64.StdEncoding.EncodeToString(key)
	return nil
}

// importKey reads a private key that was made elsewhere. Errors say what to write
// instead and never show it.
func importKey(encoded string) (ed25519.PrivateKey, error) {
	const fix = "write whsk_ and the base64 of its 64 bytes (seed and public key) or of the seed's 32, or leave it out to have one made"
	rest, is := strings.CutPrefix(encoded, privateKeyPrefix)
	switch {
	case strings.HasPrefix(encoded, publicKeyPrefix):
		return nil, errors.New("is a public key: " + fix)
	case !is:
		return nil, errors.New("does not begin with whsk_: " + fix)
	}
	raw, err := base64.StdEncoding.DecodeString(rest)
	switch {
	case err != nil:
		return nil, errors.New("is not standard base64 after whsk_: " + fix)
	case len(raw) != ed25519.PrivateKeySize && len(raw) != ed25519.SeedSize:
		return nil, fmt.Errorf("has %d bytes: %s", len(raw), fix)
	}
	key := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if len(raw) == ed25519.PrivateKeySize && !bytes.Equal(raw, key) {
		return nil, errors.New("holds a public key that is not that of its seed: " + fix)
	}
	return key, nil
}

// publicKey is whpk_ and the public key of a private one; "" for none.
func publicKey(encoded string) string {
	key, err := signingKey(encoded)
	if encoded == "" || err != nil {
		return ""
	}
	return publicKeyPrefix + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

// signsEd25519 reports whether the settings ask for the asymmetric signature.
func signsEd25519(d *storage.Destination) bool {
	var cfg struct {
		Ed25519 bool `json:"ed25519"`
	}
	return d.Kind == webhookKind.Name && len(d.Config) > 0 && json.Unmarshal(d.Config, &cfg) == nil && cfg.Ed25519
}

// equip gives a destination the keys that its settings ask for, and takes those that
// they do not. It returns the secret if it has made one.
func (c catalog) equip(d *storage.Destination) (made string) {
	kind, err := c.find(d.Kind)
	switch {
	case err != nil:
	case !kind.Signed:
		d.Secret, d.PreviousSecret, d.PreviousSecretUntil = "", "", nil
	case d.Secret == "":
		made = NewSecret()
		d.Secret = made
	}
	switch {
	case !signsEd25519(d):
		d.SigningKey, d.PreviousSigningKey = "", ""
	case d.SigningKey == "":
		d.SigningKey = newSigningKey()
	}
	return made
}

// asymmetric signs with a private key. It is safe for concurrent use.
type asymmetric struct{ key ed25519.PrivateKey }

// append adds `v1a,<base64 of the ed25519 signature of id.timestamp.body>`.
func (s *asymmetric) append(dst []byte, id, timestamp string, body []byte) []byte {
	m := append([]byte(id+"."+timestamp+"."), body...) // ed25519 wants it in one piece
	dst = append(dst, "v1a,"...)
	return base64.StdEncoding.AppendEncode(dst, ed25519.Sign(s.key, m))
}
