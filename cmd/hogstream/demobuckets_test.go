package main

import (
	_ "embed"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/examples/shop"
	"github.com/hogstream/hogstream/storage/storagetest"
)

//go:embed testdata/shop-buckets.sql
var shopBuckets string

// TestEveryTransitionOfTheShopsBucketsIsThatOfAnSQLComputationOverTheSameClicks compares
// the rehearsal with SQL that shares no code with it.
func TestEveryTransitionOfTheShopsBucketsIsThatOfAnSQLComputationOverTheSameClicks(t *testing.T) {
	events, err := shop.Events()
	require.NoError(t, err)
	r, err := rehearseShop(events)
	require.NoError(t, err)
	got := make([]string, len(r.moved))
	for i, m := range r.moved {
		got[i] = line(m.bucket, m.userID, m.what, m.at)
	}
	slices.Sort(got)
	want := computeTransitions(t, events)
	slices.Sort(want)
	require.Equal(t, want, got)

	require.Equal(t, []bucketMoves{
		{Bucket: "buyers", Entered: 653, Members: 653},
		{Bucket: "cart-abandoned", Entered: 2436, Left: 2392, Members: 44},
		{Bucket: "keen", Entered: 136, Left: 124, Members: 12},
		{Bucket: "went-quiet", Entered: 3148, Left: 923, Members: 2225},
	}, countMoves(r.set, r.moved))
}

func line(bucket, user, what string, at time.Time) string {
	return fmt.Sprintf("%s %s %s %s", bucket, user, at.UTC().Format("2006-01-02T15:04:05.000000"), what)
}

// computeTransitions has Postgres compute who entered and left when.
func computeTransitions(t *testing.T, events []shop.Event) []string {
	sql := storagetest.SQL(storagetest.New(t))
	ctx := t.Context()
	_, err := sql.Exec(ctx, `CREATE TABLE clicks (n integer PRIMARY KEY, user_id text, name text, at timestamptz)`)
	require.NoError(t, err)
	n := make([]int32, len(events))
	users, names, times := make([]string, len(events)), make([]string, len(events)), make([]time.Time, len(events))
	for i, e := range events {
		n[i], users[i], names[i], times[i] = int32(i), e.UserID, e.Name, e.Time
	}
	_, err = sql.Exec(ctx, `INSERT INTO clicks SELECT * FROM unnest($1::integer[], $2::text[], $3::text[], $4::timestamptz[])`, n, users, names, times)
	require.NoError(t, err)
	rows, err := sql.Query(ctx, shopBuckets)
	require.NoError(t, err)
	defer rows.Close()
	var want []string
	for rows.Next() {
		var bucket, user, what string
		var at time.Time
		require.NoError(t, rows.Scan(&bucket, &user, &what, &at))
		want = append(want, line(bucket, user, what, at))
	}
	require.NoError(t, rows.Err())
	return want
}
