package stream

import (
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
)

// clientMetrics are a client's own metrics, labelled with its role; a second
// client of the role at the same time is `<role>-2`, and so on, for one name can
// be registered only once.
func clientMetrics(reg prometheus.Registerer, role string) []kgo.Hook {
	name := takeName(reg, role)
	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"client": name.text}, reg)
	// Hooks run in order: the name is given back when the metrics are gone.
	return []kgo.Hook{kprom.NewMetrics("hogstream_kafka", kprom.Registerer(labelled)), name}
}

// clientName is a name in use until its client is closed.
type clientName struct {
	reg  prometheus.Registerer
	text string
}

var names = struct {
	sync.Mutex
	taken map[clientName]bool
}{taken: make(map[clientName]bool)}

func takeName(reg prometheus.Registerer, role string) *clientName {
	names.Lock()
	defer names.Unlock()
	name := clientName{reg: reg, text: role}
	for n := 2; names.taken[name]; n++ {
		name.text = fmt.Sprintf("%s-%d", role, n)
	}
	names.taken[name] = true
	return &name
}

var _ kgo.HookClientClosed = (*clientName)(nil)

// OnClientClosed implements kgo's hook.
func (n *clientName) OnClientClosed(*kgo.Client) {
	names.Lock()
	defer names.Unlock()
	delete(names.taken, *n)
}
