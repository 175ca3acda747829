package derive

// rule is a set of the rules that carry the order of a contact, each a bit; tests
// switch them off to show what breaks without.
type rule uint16

const (
	ruleHold     rule = 1 << iota // a higher number waits for those before it
	ruleMarks                     // the take-over looks at the marks of contacts that ended
	ruleMarkHand                  // the take-over of a mark hands over what Postgres has
	ruleLast                      // a loser hands over when its last number is applied
	ruleWait                      // contact.merged waits for the hand-over
	ruleOwnMark                   // a contact that ended leaves a mark of the processor's own
	ruleOnce                      // a second hand-over of one loser is ignored
	ruleEqual                     // a contact is filled only when it stands where Postgres has it
)

func (r rule) has(x rule) bool { return r&x != 0 }
