package sinks

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
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

// signer makes the v1 signature of Standard Webhooks. It is safe for concurrent
// use. The states of HMAC are kept, since preparing one costs as much as signing
// a short message.
type signer struct{ macs sync.Pool }

// signing is what one signature needs at a time.
type signing struct {
	mac  hash.Hash
	head [96]byte
	sum  [sha256.Size]byte
}

func newSigner(secret string) (*signer, error) {
	key, err := secretKey(secret)
	if err != nil {
		return nil, err
	}
	return &signer{macs: sync.Pool{New: func() any { return &signing{mac: hmac.New(sha256.New, key)} }}}, nil
}

// append adds `v1,<base64 of HMAC-SHA256(id.timestamp.body)>`.
func (s *signer) append(dst []byte, id, timestamp string, body []byte) []byte {
	sg := s.macs.Get().(*signing)
	defer s.macs.Put(sg)
	sg.mac.Reset()
	head := append(sg.head[:0], id...)
	head = append(head, '.')
	head = append(head, timestamp...)
	head = append(head, '.')
	sg.mac.Write(head)
	sg.mac.Write(body)
	dst = append(dst, "v1,"...)
	return base64.StdEncoding.AppendEncode(dst, sg.mac.Sum(sg.sum[:0]))
}

// unixSeconds is the timestamp that is signed: that of the attempt.
func unixSeconds(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
