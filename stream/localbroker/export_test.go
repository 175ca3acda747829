package localbroker

import "github.com/twmb/franz-go/pkg/kfake"

// Cluster is the running kfake.
func (b *Broker) Cluster() *kfake.Cluster { return b.cluster }

// WritingOut has the broker say what it would have written out.
func (cfg Config) WritingOut(say func(path string)) Config {
	cfg.writeOut = say
	return cfg
}
