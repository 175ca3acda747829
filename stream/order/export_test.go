package order

import "time"

// WithSpread sets how far apart the records of one transaction may have been appended.
func (o Options) WithSpread(d time.Duration) Options {
	o.spread = d
	return o
}
