// Package reader reads ranges of the log: one reader for all cursors of a process, with
// a bounded cache; scans and single records for previews and look-ups; and the tail that
// the command line follows.
//
// It promises: what is read is committed, is of the log that was asked for (by the
// topic's id), and is read once for all who stand at the same place; memory is bounded.
package reader
