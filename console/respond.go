package console

import (
	"bytes"
	"encoding/json"
	"net/http"
)

// issue is one thing that is wrong with a request, as the data API says it.
type issue struct {
	Expected string   `json:"expected,omitempty"`
	Code     string   `json:"code"`
	Values   []string `json:"values,omitempty"`
	Path     []any    `json:"path"`
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"`
}

type adminFailure struct {
	Error     string `json:"error"`
	Detail    string `json:"detail,omitempty"`
	Fix       string `json:"fix,omitempty"`
	RequestID string `json:"requestId"`
}

// requestID is what the middleware around the room gave the request.
func requestID(w http.ResponseWriter) string { return w.Header().Get("X-Request-Id") }

func fail(w http.ResponseWriter, status int, text, fix string) {
	respond(w, status, adminFailure{Error: text, Fix: fix, RequestID: requestID(w)})
}

// respond writes a value as JSON, in one write.
func respond(w http.ResponseWriter, status int, value any) {
	text, err := marshal(value, "")
	if err != nil { // of our own types
		status, text = http.StatusInternalServerError, []byte(`{"error":"Internal Server Error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // an error means that the client went away
}

// marshal is json.Marshal that leaves <, > and & as they are.
func marshal(value any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// failIssues answers 400 in the envelope that clients know.
func failIssues(w http.ResponseWriter, issues []issue) {
	list, err := marshal(issues, "  ")
	if err != nil {
		list = []byte("[]")
	}
	respond(w, http.StatusBadRequest, issuesBody{Error: issuesText{"ZodError", string(list)}, RequestID: requestID(w)})
}

// issuesBody is that envelope.
type issuesBody struct {
	Success   bool       `json:"success" enum:"false"`
	Error     issuesText `json:"error"`
	RequestID string     `json:"requestId"`
}

type issuesText struct {
	Name    string `json:"name"`
	Message string `json:"message" doc:"A JSON list of issues, each with path, message and fix."`
}

// optional is nil for an empty text.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
