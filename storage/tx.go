package storage

import "github.com/jackc/pgx/v5"

// Tx is a transaction that [DB.InTx] or [DB.InBatch] opened and will end. It
// belongs to one goroutine. Other rooms pass it along to functions of this package; only this
// package runs statements on it.
type Tx struct{ pgx.Tx }
