// Package loop runs processors: it takes batches of records, applies each in one
// Postgres transaction and publishes what follows in one Kafka transaction.
//
// It promises: a processor's outputs appear once, in order, and its state changes
// exactly when they do, through crashes, rebalances, stale owners and outages; records
// of one key are handled one at a time, in offset order; a record at fault becomes a
// dead letter and the partition goes on; a partition whose offsets cannot be explained
// stops, and says which two commands mend it.
package loop
