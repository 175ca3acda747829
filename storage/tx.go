package storage

import "github.com/jackc/pgx/v5"

// Tx is an open transaction. Other rooms pass it along to functions of this
// package; only this package runs statements on it.
type Tx struct{ pgx.Tx }
