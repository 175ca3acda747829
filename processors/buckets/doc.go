// Package buckets derives who is a member of which bucket, from what is known of a
// contact, record by record and exact to the microsecond.
package buckets
