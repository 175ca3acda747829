package derive

import "sync"

// maxLabels bounds how many ids have figures of their own.
const maxLabels = 200

// Labels bounds the series of a metric that is by an id: those beyond the first 200 are one,
// named other. The zero value is ready; it is safe for concurrent use.
type Labels struct {
	mu    sync.Mutex
	known map[string]bool
}

// Of is the label of an id.
func (l *Labels) Of(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known[id] {
		if len(l.known) >= maxLabels {
			return "other"
		}
		if l.known == nil {
			l.known = map[string]bool{}
		}
		l.known[id] = true
	}
	return id
}
