// Package journeys is what happens to a contact step by step: a mail, a wait of two days, a
// look at what they did meanwhile, another mail. It is the language in which journeys are
// written, and the machine that runs them.
//
// It promises the other packages:
//
//   - A journey written in YAML, in JSON or built in Go is one value ([Journey]) with one
//     canonical form and one version. What is wrong with a written one is said with file,
//     line, path and, for a mistyped word, what was probably meant.
//   - [Compile] makes a flat graph of it ([Program]). A run belongs to the program that it
//     began with, for as long as it lives.
//   - [Machine.Step] says what follows from a record for one contact: a new state, what is to
//     be published, and when time alone will go on. It is a pure function: no clock, no I/O,
//     and the same goes in and comes out, to the byte.
//   - What a step wants done leaves as a message with an id that follows from the run and the
//     step, so that the same is never done twice.
//   - A run waits as some bytes in the state of its contact and one instant. It is bounded:
//     what is kept of a record is what the journey reads of it.
//
// A program and a machine are immutable and safe for concurrent use; a [State] is not.
package journeys

import "time"

// Names that stand on the wire and never change.
const (
	// Name is the processor that is told what came of a call.
	Name = "journeys"
	// Buckets is the processor that is told who belongs into a manual bucket.
	Buckets = "buckets"
	// MemberCommand is what it is told.
	MemberCommand = "member"
)

// Bounds of what a journey may ask for and a contact may have.
const (
	// MaxTimeout is how long a waitFor may take at most: events are kept as long.
	MaxTimeout = 720 * time.Hour
	// MaxSteps is how many steps a journey has at most, those within others counted.
	MaxSteps = 500
	// MaxDepth is how deep steps may stand within others.
	MaxDepth = 16

	maxID = 200
	// maxText is how long the canonical form may be, so that it can be read again.
	maxText = 200 << 10
	// maxKept is how many bytes are kept of a record, or of an answer.
	maxKept = 4 << 10
	// maxSeen is how many events are kept for a lookback.
	maxSeen = 100
	// maxKeys is how many keys of one journey are remembered of a contact, beside those of
	// runs that live.
	maxKeys = 100
	// maxFailed is how many failed runs of a contact are kept to be tried again.
	maxFailed = 8
	// maxRuns is how many live runs a contact may have.
	maxRuns = 200
)
