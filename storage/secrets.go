package storage

import (
	"crypto/aes"
	"crypto/cipher"
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
const sealVersion = "v2"

// rowVersion is that of secrets that are bound to their row alone: still read, and
// sealed anew.
const rowVersion = "v1"

// Cell is where a sealed secret stands. It opens nowhere else: neither in another row
// nor in another column of its own.
type Cell struct{ Table, Column, Row string }

// String names the cell in errors.
func (c Cell) String() string { return c.Table + "." + c.Column + " of " + c.Row }

// Box seals secrets for storage with AES-256-GCM. It is immutable and safe for
// concurrent use.
//
// A sealed secret is ASCII: `v2:<key id>:<base64 of nonce and ciphertext>`. The
// key id (the first 4 bytes of the key's SHA-256) tells which key opens it, so a
// key is rotated by making the new one current and keeping the old one as
// previous until nothing [Box.Stale] is left.
type Box struct {
	current string
	aeads   map[string]cipher.AEAD
}

// NewBox makes a Box that seals under key and opens what key or one of the
// previous keys sealed. Each is [KeySize] bytes.
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

// Seal encrypts a secret for the cell that it will stand in: sealed bytes moved to
// another one do not open there. The same secret seals to different bytes each time.
func (b *Box) Seal(secret []byte, at Cell) []byte {
	sealed := b.aeads[b.current].Seal(nil, nil, secret, associated(sealVersion, b.current, at))
	return []byte(sealVersion + ":" + b.current + ":" + base64.RawStdEncoding.EncodeToString(sealed))
}

// Open decrypts what Seal made for the same cell. It fails on anything else without
// telling more than which key is concerned.
func (b *Box) Open(sealed []byte, at Cell) ([]byte, error) {
	version, id, text, err := splitSealed(sealed)
	if err != nil {
		return nil, fmt.Errorf("open secret %s: %w", at, err)
	}
	aead, known := b.aeads[id]
	if !known {
		return nil, fmt.Errorf("open secret %s: key %s: %w", at, id, ErrSecretKey)
	}
	// Strict: unused bits of the last character are zero, or somebody changed it.
	raw, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("open secret %s: %w", at, err)
	}
	secret, err := aead.Open(nil, nil, raw, associated(version, id, at))
	if err != nil {
		return nil, fmt.Errorf("open secret %s: altered, or sealed for another place: %w", at, err)
	}
	return secret, nil
}

// Stale reports whether a sealed secret should be sealed again: it stands under
// another key than the current one, or is bound to its row alone.
func (b *Box) Stale(sealed []byte) bool {
	version, id, _, err := splitSealed(sealed)
	return err != nil || id != b.current || version != sealVersion
}

func splitSealed(sealed []byte) (version, id, text string, err error) {
	parts := strings.Split(string(sealed), ":")
	if len(parts) != 3 || parts[0] != sealVersion && parts[0] != rowVersion {
		return "", "", "", errors.New("not a sealed secret")
	}
	return parts[0], parts[1], parts[2], nil
}

// associated binds the ciphertext to scheme, key and place. Names of tables and columns
// hold no colon, so no two cells have the same.
func associated(version, keyID string, at Cell) []byte {
	if version == rowVersion {
		return []byte(version + ":" + keyID + ":" + at.Row)
	}
	return []byte(version + ":" + keyID + ":" + at.Table + ":" + at.Column + ":" + at.Row)
}

func keyID(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:4])
}

func wrongLength(n int) error {
	return fmt.Errorf("%d bytes, must be %d: make one with `openssl rand -base64 32`", n, KeySize)
}
