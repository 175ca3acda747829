package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hogstream/hogstream/sinks/signing"
)

type listenCmd struct {
	Host    string        `help:"Address to listen on." default:"127.0.0.1"`
	Port    int           `help:"Port to listen on; 0 for a free one." default:"9000"`
	KeyFile string        `help:"File with the secret (whsec_…) or public key (whpk_…) that deliveries are verified with; made when it is not there; default listen-secret in the data directory." placeholder:"FILE"`
	DataDir string        `help:"Data directory of the developer's instance." env:"HOGSTREAM_DATA_DIR" default:".hogstream"`
	Fail    float64       `help:"Part of the deliveries that are answered 500, from 0 to 1: see them retried." default:"0"`
	Status  int           `help:"Answer all deliveries with this status." default:"204"`
	Delay   time.Duration `help:"Wait before each answer." default:"0s"`
}

// Help is shown by --help.
func (c *listenCmd) Help() string {
	return "A receiver for trying things out: it verifies each delivery, says whether it saw it before, and prints it. It answers 400 to what does not verify."
}

// maxDelivery bounds what is read of a request; records are far smaller.
const maxDelivery = 16 << 20

// Run receives until Ctrl-C.
func (c *listenCmd) Run(ctx context.Context, out *output) error {
	switch {
	case c.Fail < 0 || c.Fail > 1:
		return fmt.Errorf("--fail is %v: give a part from 0 to 1, such as 0.1", c.Fail)
	case c.Status < 200 || c.Status > 599:
		return fmt.Errorf("--status is %d: give one from 200 to 599", c.Status)
	}
	if c.KeyFile == "" {
		c.KeyFile = filepath.Join(c.DataDir, "listen-secret")
	}
	key, err := receiverKey(c.KeyFile)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	if err != nil {
		return fmt.Errorf("%w: choose another port with --port", err)
	}
	r := &receiver{cmd: c, key: key, out: out, now: time.Now, seen: map[string]int{}}
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	url := "http://" + listener.Addr().String() + "/"
	fmt.Fprintf(stderr, "Listening on %s. Deliver to it, in another terminal:\n\n  %s destinations add %s%s --secret-file %s\n\n", url, programName(), url, dataDirFlag(c.DataDir), c.KeyFile)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = server.Shutdown(stopCtx)
	fmt.Fprintf(stderr, "\n%s\n", r.tally())
	return err
}

// dataDirFlag has another command find the same instance, when that is not the one it takes
// by itself.
func dataDirFlag(dir string) string {
	own, err := filepath.Abs(defaultDataDir)
	if path, failed := filepath.Abs(dir); dir == "" || err == nil && failed == nil && path == own {
		return ""
	}
	return " --data-dir " + dir
}

// programName is what this program was called as; under go run it has no name that could be called.
func programName() string {
	if name := os.Args[0]; !strings.Contains(name, string(filepath.Separator)+"go-build") {
		return name
	}
	return "go run ./cmd/hogstream"
}

// receiverKey reads the key that deliveries are verified with, or makes a secret and keeps it.
func receiverKey(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("--key-file: %w", err)
	}
	secret := signing.NewSecret()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(secret+"\n"), 0o600)); err != nil {
		return "", fmt.Errorf("--key-file: %w", err)
	}
	return secret, nil
}

// receiver takes deliveries, verifies and prints them.
type receiver struct {
	cmd *listenCmd
	key string
	now func() time.Time

	mu       sync.Mutex // output and tallies: one delivery after the other
	out      *output
	seen     map[string]int // deliveries by their id
	accepted int
	refused  int
	failed   int
}

// received is a delivery as it is printed.
type received struct {
	At       string          `json:"at"`
	ID       string          `json:"id"`
	Status   int             `json:"status"`
	Verified bool            `json:"verified"`
	Problem  string          `json:"problem,omitempty"`
	Before   int             `json:"before,omitempty"` // how often this id came before
	Replay   string          `json:"replay,omitempty"`
	Body     json.RawMessage `json:"body"`
}

// ServeHTTP implements [http.Handler].
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxDelivery))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "send a POST", http.StatusMethodNotAllowed)
		return
	}
	if r.cmd.Delay > 0 {
		select {
		case <-time.After(r.cmd.Delay):
		case <-req.Context().Done():
			return
		}
	}
	d := received{At: r.now().Format("15:04:05.000"), ID: req.Header.Get(signing.HeaderID), Replay: req.Header.Get("Hogstream-Replay"), Body: body}
	err = signing.Verify(r.key, req.Header, body, r.now())
	d.Verified, d.Status = err == nil, r.cmd.Status
	switch {
	case err != nil:
		d.Problem, d.Status = err.Error(), http.StatusBadRequest
	case rand.Float64() < r.cmd.Fail:
		d.Problem, d.Status = "--fail", http.StatusInternalServerError
	}
	r.print(d)
	if d.Status == http.StatusNoContent {
		w.WriteHeader(d.Status)
		return
	}
	http.Error(w, d.Problem, d.Status)
}

// print counts a delivery and prints it.
func (r *receiver) print(d received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.Verified { // what anybody may have sent is no delivery
		d.Before = r.seen[d.ID]
		r.seen[d.ID]++
	}
	switch {
	case !d.Verified:
		r.refused++
	case d.Status >= 300:
		r.failed++
	default:
		r.accepted++
	}
	if !json.Valid(d.Body) {
		d.Body, _ = json.Marshal(string(d.Body))
	}
	_ = r.out.line(d, d.text())
}

// text is one delivery for a person: what it is, about whom, and what was answered.
func (d *received) text() string {
	var envelope struct {
		Type string `json:"type"`
		Data json.RawMessage
	}
	_ = json.Unmarshal(d.Body, &envelope) // what is no envelope is shown whole
	notes := []string{"verified"}
	if !d.Verified {
		notes = []string{"NOT VERIFIED: " + d.Problem}
	}
	if d.Before > 0 {
		notes = append(notes, fmt.Sprintf("again, for the %s time", ordinal(d.Before+1)))
	}
	if d.Replay != "" {
		notes = append(notes, "replay "+d.Replay)
	}
	var data bytes.Buffer
	if json.Compact(&data, envelope.Data) != nil || len(envelope.Data) == 0 {
		data.Reset()
		data.Write(d.Body)
	}
	return fmt.Sprintf("%s  %d  %-18s %s (%s)\n    %s", d.At, d.Status, cmp.Or(envelope.Type, "?"), d.ID, strings.Join(notes, "; "), data.String())
}

func ordinal(n int) string {
	switch {
	case n%100/10 == 1:
	case n%10 == 1:
		return fmt.Sprintf("%dst", n)
	case n%10 == 2:
		return fmt.Sprintf("%dnd", n)
	case n%10 == 3:
		return fmt.Sprintf("%drd", n)
	}
	return fmt.Sprintf("%dth", n)
}

func (r *receiver) tally() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%d deliveries taken (%d different records), %d failed on request, %d did not verify", r.accepted, len(r.seen), r.failed, r.refused)
}
