package loop

// loopHooks are what tests reach into the loop with. The zero value does nothing.
type loopHooks struct {
	off rule
	// unordered takes the records of several topics as they are fetched.
	unordered bool
	// at is called at a step; it may block, and an error ends the step with it
	// (errCrash: the worker).
	at func(step string, partitions []int32) error
}

// Steps at which loopHooks.at is called.
const (
	stepUnstable  = "offsets unstable"      // a predecessor's transaction is open
	stepFetched   = "offsets fetched"       // before the rows are read
	stepApplying  = "about to apply"        // before the transaction in Postgres
	stepAhead     = "offsets sent ahead"    // within the transaction, beside the apply
	stepApplied   = "applied"               // after it, before anything is produced
	stepBegun     = "transaction begun"     // and nothing produced in it
	stepSent      = "outputs, offsets sent" // within the transaction, which is still open
	stepCommitted = "transaction ended"     // before the loop notes it
	stepSeeded    = "row inserted"          // first start, before the group has an offset
	stepTidied    = "idle partition tidied" // offsets over markers committed, row marked
)

func (h loopHooks) step(step string, partitions []int32) error {
	if h.at == nil {
		return nil
	}
	return h.at(step, partitions)
}

// rule is a set of the six rules in ARCHITECTURE.md, each a bit; tests switch them
// off to show what breaks without.
type rule uint8

const (
	ruleStable rule = 1 << iota
	ruleFence
	ruleExpect
	ruleSeed
	ruleResume
	ruleVerify
)

func (r rule) has(x rule) bool { return r&x != 0 }
