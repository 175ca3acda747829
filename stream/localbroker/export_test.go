package localbroker

import "github.com/twmb/franz-go/pkg/kfake"

// Cluster is the running kfake.
func (b *Broker) Cluster() *kfake.Cluster { return b.cluster }
