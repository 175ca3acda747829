package explain

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhyAJourneyOfAScheduleSaysWhenItComesNext(t *testing.T) {
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	skipped := []JourneyEntry{{Skipped: &JourneySkip{"late", at, "r"}}}
	for want, a := range map[string]JourneyAnswer{
		"nothing of this kind ever came: no record that could have begun the journey":                 {},
		"its time has not come yet; it comes next at 2026-03-02T09:00:00Z":                            {Next: at},
		"record r did not enrol at 2026-03-02T09:00:00Z: late":                                        {Entries: skipped},
		"record r did not enrol at 2026-03-02T09:00:00Z: late; it comes next at 2026-03-03T09:00:00Z": {Entries: skipped, Next: at.AddDate(0, 0, 1)},
		"1 of its runs live; it comes next at 2026-03-03T09:00:00Z":                                   {Entries: []JourneyEntry{{Count: 1, Last: at}}, Runs: []JourneyRun{{ID: "x"}}, Next: at.AddDate(0, 0, 1)},
	} {
		require.Equal(t, want, a.text())
	}
}
