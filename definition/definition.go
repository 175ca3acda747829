// Package definition is what a deployment has defined. What kinds of definitions there are
// says one table, and of each kind one value.
//
// It promises the other packages:
//
//   - There is one set of definitions in use, the same for all instances, in Postgres. Each
//     set that was ever in use has a version; [Current] reads the newest.
//   - A definition is written in a file or built in Go; both make one value with one
//     canonical form, which does not depend on the order of keys, comments or names of files.
//   - What is wrong with a file is said with its line, its path and the fix, all of it at once.
//     One bad definition never stops another: the last good form of it stays in use.
//   - [Apply] makes the next version in one transaction, whoever else does so at the same time.
//
// Nothing here knows a contact: conditions are predicate's, members the buckets processor's.
package definition
