package storage

import "github.com/hogstream/hogstream/storage/internal/raw"

// queries has what may be called inside and outside of a transaction. DB and Tx embed it.
type queries struct{ sql raw.Querier }

// Raw lets a test run SQL of its own, through storagetest. Nothing but a package below
// storage can make its argument.
func (q queries) Raw(raw.Key) raw.Querier { return q.sql }

// Tx is a transaction that [DB.InTx] or [DB.InBatch] opened and will end. It
// belongs to one goroutine. What must be in a transaction is a method of it; its
// statements are written in this package alone.
type Tx struct{ queries }
