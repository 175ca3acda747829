package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/sinks/signing"
)

// signFlags name a body and the key.
type signFlags struct {
	KeyFile string `help:"A file with the secret (whsec_…), or the private or public key (whsk_…, whpk_…)." required:"" placeholder:"FILE"`
	File    string `arg:"" help:"File with the body, byte for byte; - for standard input." default:"-"`
}

func (f *signFlags) read() (key string, body []byte, err error) {
	if err := onceStdin(f.KeyFile, f.File); err != nil {
		return "", nil, errors.New("--key-file and the body: only one can be read from standard input")
	}
	text, err := readFile(f.KeyFile)
	if err != nil {
		return "", nil, fmt.Errorf("--key-file: %w", err)
	}
	body, err = readFile(f.File)
	return strings.TrimSpace(string(text)), body, err
}

type signCmd struct {
	signFlags
	ID        string `help:"The Webhook-Id; a new one when not given." placeholder:"msg_…"`
	Timestamp int64  `help:"The Webhook-Timestamp, seconds since 1970; now when not given." placeholder:"SECONDS"`
}

// signed are the headers of a signed body.
type signed struct {
	ID        string `json:"webhook-id"`
	Timestamp string `json:"webhook-timestamp"`
	Signature string `json:"webhook-signature"`
}

// Run prints the headers under which a receiver takes the body as Hogstream's.
func (c *signCmd) Run(_ context.Context, out *output) error {
	key, body, err := c.read()
	if err != nil {
		return err
	}
	s := signed{ID: c.ID, Timestamp: strconv.FormatInt(c.Timestamp, 10)}
	if s.ID == "" {
		s.ID = "msg_" + uuid.Must(uuid.NewV7()).String()
	}
	if c.Timestamp == 0 {
		s.Timestamp = strconv.FormatInt(time.Now().Unix(), 10)
	}
	signer, err := openSigner(key)
	if err != nil {
		return fmt.Errorf("--key-file: %w", err)
	}
	s.Signature = string(signer.Append(nil, s.ID, s.Timestamp, body))
	return out.value(s, func(w io.Writer) {
		fmt.Fprintf(w, "webhook-id: %s\nwebhook-timestamp: %s\nwebhook-signature: %s\n", s.ID, s.Timestamp, s.Signature)
	})
}

type signer interface {
	Append(dst []byte, id, timestamp string, body []byte) []byte
}

func openSigner(key string) (signer, error) {
	if !strings.HasPrefix(key, signing.PrivateKeyPrefix) {
		return signing.OpenSecret(key)
	}
	stored, err := signing.ImportKey(key)
	if err != nil {
		return nil, err
	}
	return signing.OpenKey(stored)
}

type verifyCmd struct {
	signFlags
	ID        string        `help:"The Webhook-Id of the request." required:"" placeholder:"msg_…"`
	Timestamp string        `help:"Its Webhook-Timestamp." required:"" placeholder:"SECONDS"`
	Signature string        `help:"Its Webhook-Signature." required:"" placeholder:"v1,…"`
	Age       time.Duration `help:"Take the request as if it had come this long after it was signed; now when not given." placeholder:"DURATION"`
}

// Run says whether a request that was received is Hogstream's.
func (c *verifyCmd) Run(_ context.Context, out *output) error {
	key, body, err := c.read()
	if err != nil {
		return err
	}
	now := time.Now()
	if seconds, err := strconv.ParseInt(c.Timestamp, 10, 64); err == nil && c.Age != 0 {
		now = time.Unix(seconds, 0).Add(c.Age)
	}
	header := http.Header{}
	header.Set(signing.HeaderID, c.ID)
	header.Set(signing.HeaderTimestamp, c.Timestamp)
	header.Set(signing.HeaderSignature, c.Signature)
	if err := signing.Verify(key, header, body, now); err != nil {
		return err
	}
	return out.value(map[string]bool{"verified": true}, func(w io.Writer) { fmt.Fprintln(w, "verified") })
}
