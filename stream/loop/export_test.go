package loop

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/stream"
)

// What the loop's tests reach into.

// ErrCrash ends a worker at once, tidying nothing.
var ErrCrash = errCrash

// Steps.
const (
	StepUnstable  = stepUnstable
	StepFetched   = stepFetched
	StepSeeded    = stepSeeded
	StepApplying  = stepApplying
	StepAhead     = stepAhead
	StepApplied   = stepApplied
	StepBegun     = stepBegun
	StepSent      = stepSent
	StepCommitted = stepCommitted
	StepTidied    = stepTidied
)

// Rule is one of the six in ARCHITECTURE.md.
type Rule = rule

// Rules.
const (
	RuleStable = ruleStable
	RuleFence  = ruleFence
	RuleExpect = ruleExpect
	RuleSeed   = ruleSeed
	RuleResume = ruleResume
	RuleVerify = ruleVerify
)

// Hook calls at at each step.
func (c *Config) Hook(at func(step string, partitions []int32) error) { c.hooks.at = at }

// Without switches rules off.
func (c *Config) Without(off Rule) { c.hooks.off = off }

// Unordered takes the records of several topics as they are fetched.
func (c *Config) Unordered() { c.hooks.unordered = true }

// Timing are the durations that only tests change.
type Timing = timing

// Timing returns them, to be set.
func (c *Config) Timing() *Timing { return &c.timing }

// Fetched is how many records the first worker has fetched and not taken in.
func (l *Loop) Fetched() int {
	in := l.workers[0].intake
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.fetched)
}

// EncodePending and DecodePending are pending outputs as progress rows keep them.
func EncodePending(outputs []Output) []byte {
	all := make([]*Output, len(outputs))
	for i := range outputs {
		all[i] = &outputs[i]
	}
	return encodePending(all)
}

// DecodePending returns the records of pending outputs.
func DecodePending(cfg stream.Config, pending []byte) ([]*kgo.Record, error) {
	return decodePending(cfg, pending)
}
