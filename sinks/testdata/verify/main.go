// Command verify checks requests of kind webhook with the public library svix: it
// reads [{"secret","headers","body"}] and writes, for each request, what the library
// says of it. A module of its own, so that the library is no dependency of ours.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"

	svix "github.com/svix/svix-webhooks/go"
)

type request struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"`
}

func main() {
	var requests []request
	if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		log.Fatal(err)
	}
	answers := make([]map[string]string, len(requests))
	for i, r := range requests {
		answers[i] = map[string]string{"svix": said(r)}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		log.Fatal(err)
	}
}

func said(r request) string {
	wh, err := svix.NewWebhook(r.Secret)
	if err != nil {
		return err.Error()
	}
	header := http.Header{}
	for name, value := range r.Headers {
		header.Set(name, value)
	}
	if err := wh.Verify(r.Body, header); err != nil {
		return err.Error()
	}
	return "ok"
}
