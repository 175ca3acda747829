package storage

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// KeySize is the length of a key of a [Box] in bytes.
const KeySize = 32

// ErrSecretKey is what [Box.Open] returns (wrapped) for a secret sealed under a
// key it does not have.
var ErrSecretKey = errors.New("sealed under a key that is not configured: add it to HOGSTREAM_ENCRYPTION_KEY, behind a comma")

// sealVersion is the first field of every sealed secret; another scheme gets
// another one.
const sealVersion = "v1"

// Box seals secrets for storage with AES-256-GCM. It is immutable and safe for
// concurrent use.
//
// A sealed secret is ASCII: `v1:<key id>:<base64 of nonce and ciphertext>`. The
// key id (the first 4 bytes of the key's SHA-256) tells which key opens it, so a
// key is rotated by making the new one current and keeping the old one as
// previous until nothing [Box.Stale] is left.
type Box struct {
	current string
	aeads   map[string]cipher.AEAD
}

// NewBox makes a Box that seals under key and opens what key or one of the
// previous keys sealed. Each is [KeySize] bytes; see [ParseKey].
func NewBox(key []byte, previous ...[]byte) (*Box, error) {
	b := &Box{current: keyID(key), aeads: map[string]cipher.AEAD{}}
	for i, k := range append([][]byte{key}, previous...) {
		if len(k) != KeySize {
			return nil, fmt.Errorf("secret key %d of %d: %w", i+1, len(previous)+1, wrongLength(len(k)))
		}
		block, err := aes.NewCipher(k)
		if err != nil {
			return nil, fmt.Errorf("secret key %d: %w", i+1, err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("secret key %d: %w", i+1, err)
		}
		b.aeads[keyID(k)] = aead
	}
	return b, nil
}

// Seal encrypts a secret for one owner (the id of its destination): sealed bytes
// moved to another owner's row do not open there. The same secret seals to
// different bytes each time.
func (b *Box) Seal(secret []byte, owner string) []byte {
	sealed := b.aeads[b.current].Seal(nil, nil, secret, associated(b.current, owner))
	return []byte(sealVersion + ":" + b.current + ":" + base64.RawStdEncoding.EncodeToString(sealed))
}

// Open decrypts what Seal made for the same owner. It fails on anything else
// without telling more than which key is concerned.
func (b *Box) Open(sealed []byte, owner string) ([]byte, error) {
	id, text, err := splitSealed(sealed)
	if err != nil {
		return nil, fmt.Errorf("open secret of %s: %w", owner, err)
	}
	aead, known := b.aeads[id]
	if !known {
		return nil, fmt.Errorf("open secret of %s: key %s: %w", owner, id, ErrSecretKey)
	}
	// Strict: unused bits of the last character are zero, or somebody changed it.
	raw, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("open secret of %s: %w", owner, err)
	}
	secret, err := aead.Open(nil, nil, raw, associated(id, owner))
	if err != nil {
		return nil, fmt.Errorf("open secret of %s: altered, or sealed for another owner: %w", owner, err)
	}
	return secret, nil
}

// Stale reports whether a sealed secret should be sealed again: it stands under
// another key than the current one.
func (b *Box) Stale(sealed []byte) bool {
	id, _, err := splitSealed(sealed)
	return err != nil || id != b.current
}

func splitSealed(sealed []byte) (id, text string, err error) {
	parts := strings.Split(string(sealed), ":")
	if len(parts) != 3 || parts[0] != sealVersion {
		return "", "", errors.New("not a sealed secret")
	}
	return parts[1], parts[2], nil
}

// associated binds the ciphertext to scheme, key and owner.
func associated(keyID, owner string) []byte {
	return []byte(sealVersion + ":" + keyID + ":" + owner)
}

func keyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}

// ParseKey reads a key as configured: base64 (standard or URL alphabet, padded
// or not) of [KeySize] random bytes. Its errors never repeat the text.
func ParseKey(text string) ([]byte, error) {
	plain := strings.TrimRight(strings.TrimSpace(text), "=")
	if plain == "" {
		return nil, errors.New("secret key is empty: make one with `openssl rand -base64 32`")
	}
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(plain, "-_") {
		encoding = base64.RawURLEncoding
	}
	key, err := encoding.DecodeString(plain)
	if err != nil {
		return nil, errors.New("secret key is not base64: make one with `openssl rand -base64 32`")
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("secret key: %w", wrongLength(len(key)))
	}
	return key, nil
}

func wrongLength(n int) error {
	return fmt.Errorf("%d bytes, must be %d: make one with `openssl rand -base64 32`", n, KeySize)
}

// GenerateKey returns a new key in the form that [ParseKey] reads.
func GenerateKey() string {
	key := make([]byte, KeySize)
	_, _ = rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key)
}
