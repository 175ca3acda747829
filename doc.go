// Package hogstream is a Kafka-backed stream processor for customer-lifecycle
// events: it takes product events and contact changes in over HTTP, derives
// contacts from them, and delivers what happened to destinations, in order per
// contact.
package hogstream
