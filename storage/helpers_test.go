package storage_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// pgxSimple allows several statements in one string.
const pgxSimple = pgx.QueryExecModeSimpleProtocol

func exec(t *testing.T, db *storage.DB, sql string) {
	t.Helper()
	_, err := storagetest.SQL(db).Exec(t.Context(), sql, pgxSimple)
	require.NoError(t, err, sql)
}

func withSearchPath(t *testing.T, address, path string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	query := u.Query()
	query.Set("search_path", path)
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // libpq does not read + as a space
	return u.String()
}
