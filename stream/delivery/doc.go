// Package delivery delivers records to destinations. Each destination is a cursor over
// the log: its records go through lanes, one at a time for each contact, and results are
// flushed to Postgres together with the cursor.
//
// It promises: deliveries in order for each contact, also across retries; at least once,
// with a stable id; nothing is passed over silently: what is not delivered is parked,
// becomes a dead letter, or stops the cursor visibly; two processes never deliver the
// same partition at once; one contact or destination that fails does not hold up the
// others; memory is bounded.
package delivery
