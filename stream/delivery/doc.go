// Package delivery delivers records to destinations. Each destination is a cursor over
// the log: its records go through lanes, one at a time for each contact, and results are
// flushed to Postgres together with the cursor.
//
// It promises: deliveries in order for each contact, also across retries; at least once,
// with a stable id; nothing is passed over silently: what is not delivered is parked,
// becomes a dead letter, or stops the cursor visibly; two processes never deliver the
// same partition at once; one contact or destination that fails does not hold up the
// others; memory is bounded.
//
// Where is what, along the way of a record:
//
//	owner.go, lease.go     which partition numbers this process delivers
//	reconcile.go           where tracks, a destination on a partition, begin and end
//	feed.go, lanes.go      from the log into the lanes of contacts
//	next.go                which record of a destination goes next
//	limit.go, circuit.go   when nothing may
//	inflight.go            the attempt
//	consequence.go         what follows from it: the table, pure
//	settle.go              carries that out
//	retry.go, parking.go   what waits, in memory and in Postgres; loader.go brings it back
//	cursor.go, flush.go    how far a destination is, and when that is written
//	receipts.go            what whoever asked is told, before that
//	ending.go, strays.go   what ends without an attempt: it stands still, or is nobody's
package delivery
