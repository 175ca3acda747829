// Package order proves that what contacts says of a contact is complete and in order: the
// numbers (seq) of a contact on topics events and lifecycle.
//
// [Judge] is the judgement alone, over records from anywhere; [Check] reads the two topics
// of a cluster and has them judged, partition by partition, in bounded memory.
package order
