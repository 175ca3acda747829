package e2e_test

import (
	"bytes"
	"encoding/json"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/stream/order"
)

// verifyOrder has the binary prove that the numbers of every contact are all there and in
// order. Where a transaction may be repeated, so may its numbers.
func (w *world) verifyOrder() order.Report {
	w.t.Helper()
	out, failed := w.tryCLI("topics", "check-order")
	var report order.Report
	require.NoError(w.t, json.NewDecoder(bytes.NewReader(out)).Decode(&report), "%v", failed)
	if w.mayRepeat {
		require.Zero(w.t, report.Missing+report.Disorder+report.Lost, report.Findings)
	} else {
		require.NoError(w.t, failed)
		require.NoError(w.t, report.Err())
	}
	require.Zero(w.t, report.Cut, "nothing is cut off")
	require.Equal(w.t, report.Records, report.Numbers+report.Repeated+report.Unnumbered+report.Derived+report.Foreign)
	w.t.Logf("order: %d numbers of %d contacts, %d repeated, %d records from before numbering", report.Numbers, report.Contacts, report.Repeated, report.Unnumbered)
	return report
}
