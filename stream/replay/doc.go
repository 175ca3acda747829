// Package replay sends again what is on the log: rewinds and backfills of destinations,
// each previewed first, and dead letters, which are listed, sent again or discarded.
//
// It promises: what a rewind forward would leave out is counted, asked for, and kept as
// dead letters; ids stay the same; nobody who was erased is sent again.
package replay
