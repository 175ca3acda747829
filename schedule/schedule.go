// Package schedule says when: times of day in a time zone, days of the week and of the
// month, windows in which something may be sent, and what repeats.
//
// It is values and pure functions: no function looks at a clock or calls anybody, and all
// are safe for concurrent use. Everything is computed on calendar dates, never by adding
// 24 hours to an instant, so it is exact where clocks change:
//
//   - A time that a clock never shows, because it is put forward over it, is moved forward
//     by as much as the clock is: 02:30 becomes 03:30. Nothing is skipped.
//   - A time that a clock shows twice, because it is put back, is the first of the two.
//     Nothing happens twice.
//   - On a date that a zone never had, the same rule leads to the date after it.
//
// Instants are compared as they are given, to the nanosecond. What is computed is exact to
// the second in which a zone changes its clock, and in the zone that was asked for.
package schedule
