package delivery

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Failures without an answer: each text of one begins with its class. What follows it
// (an address, a certificate, what a program choked on) stands in the delivery log and in
// dead letters alone.
const (
	FailureTimeout   = "timeout"
	FailureCancelled = "attempt was cancelled"
	FailureDNS       = "dns"
	FailureTLS       = "tls"
	FailureRefused   = "connection refused"
	FailureLost      = "connection lost"
	FailureNetwork   = "network"
	FailureBlocked   = "blocked by the guard on connections"
	FailureSettings  = "settings of the destination"
	FailureRegistry  = "registry"
)

var (
	failureClasses = []string{
		FailureTimeout, FailureCancelled, FailureDNS, FailureTLS, FailureRefused, FailureLost, FailureNetwork, FailureBlocked, FailureSettings, FailureRegistry,
		"filter or transform", "filter", "transform", "decode",
	}
	statusClass = regexp.MustCompile(`^HTTP \d{3}\b`)
	kafkaClass  = regexp.MustCompile(`^[A-Z][A-Z_]{5,}\b`)
)

// FailureClass is what may be told of a failure to everyone: never a value of a record, an
// address, or a word of the receiver's, for vendors quote what they were sent. It takes the
// text of an [Outcome] and the status of the answer, 0 without one, or a class.
func FailureClass(text string, status int) string {
	switch {
	case status >= 200 && status <= 299: // a part of the records was refused
		return fmt.Sprintf("HTTP %d: records refused", status)
	case status != 0:
		return fmt.Sprintf("HTTP %d", status)
	case text == "":
		return ""
	}
	isClass := func(class string) bool {
		rest, found := strings.CutPrefix(text, class)
		return found && (rest == "" || rest[0] == ':' || rest[0] == ' ')
	}
	if i := slices.IndexFunc(failureClasses, isClass); i >= 0 {
		return failureClasses[i]
	}
	if class := statusClass.FindString(text); class != "" {
		return class
	}
	if class := kafkaClass.FindString(text); class != "" {
		return class
	}
	return "failed"
}

// Class is the [FailureClass] of an outcome.
func (o *Outcome) Class() string { return FailureClass(o.Err, o.Status) }
