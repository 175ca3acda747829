package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// shopDir is a directory of the shop's definitions with a test that fails.
func shopDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "definitions")
	require.NoError(t, makeDefinitions(dir))
	wrong := "cases:\n- name: one payment is not enough\n  steps:\n  - event: payment_done\n  - expect: {not: [buyers]}\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "buckets", "buyers_test.yaml"), []byte(wrong), 0o600))
	return dir
}

func TestTestRunsTheCasesBesideDefinitionsAndFailsWhenOneDoes(t *testing.T) {
	dir := shopDir(t)
	text, err := said(t, "test", dir)
	require.EqualError(t, err, "1 case of 6 failed")
	require.Contains(t, text, "FAIL  buckets/buyers_test.yaml: one payment is not enough\n      "+filepath.Join(dir, "buckets", "buyers_test.yaml")+
		":5:5: someone at 2026-01-01T00:00:00Z (0s after the case began): expected no member of buyers; is one since 2026-01-01T00:00:00Z\n          ✓ payment_done happened")
	require.Contains(t, text, "ok    buckets/keen_test.yaml: ten looks in seven days make keen (")
	require.Contains(t, text, "\n5 passed, 1 failed\n")

	text, err = said(t, "test", dir, "--run", "keen_test.*ten looks")
	require.NoError(t, err)
	require.Contains(t, text, "\n1 passed, 0 failed\n")
	_, err = said(t, "test", dir, "--run", "nothing like it")
	require.EqualError(t, err, `--run: no case of 6 matches "nothing like it"`)

	text, err = said(t, "test", dir, "--run", "payment", "--json")
	require.Error(t, err)
	var out tested
	require.NoError(t, json.NewDecoder(bytes.NewBufferString(text)).Decode(&out))
	require.Equal(t, 1, out.Failed)
	for _, c := range out.Cases {
		require.Equal(t, c.File != "buckets/buyers_test.yaml", c.OK)
		if !c.OK {
			require.True(t, c.Failures[0].Why.Holds)
			require.Equal(t, "buyers", c.Failures[0].Bucket)
		}
	}
}

func TestTestAndCheckSayWhatIsWrongWithTests(t *testing.T) {
	dir := shopDir(t)
	wrong := filepath.Join(dir, "buckets", "buyers_test.yaml")
	require.NoError(t, os.WriteFile(wrong, []byte("cases:\n- name: x\n  steps:\n  - evnt: a\n"), 0o600))
	fault := wrong + `:4:5: cases[0].steps[0].evnt: "evnt" is not known: did you mean "event"?`
	text, err := said(t, "check", dir)
	require.EqualError(t, err, "1 fault in the definitions")
	require.Contains(t, text, fault)
	_, err = said(t, "test", dir)
	require.ErrorContains(t, err, fault)
	require.ErrorContains(t, err, "nothing was run")
	for _, kind := range []string{"buckets", "journeys"} {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, kind)))
	}
	text, err = said(t, "test", dir)
	require.NoError(t, err)
	require.Contains(t, text, "no tests")
}

func TestADevelopersInstanceSaysWhichTestsFail(t *testing.T) {
	c := devCmd{}
	c.Definitions.Dir, c.Data.TimeZone = shopDir(t), "UTC"
	var out bytes.Buffer
	require.NoError(t, c.tellTested(&out))
	require.Contains(t, out.String(), "FAIL  buckets/buyers_test.yaml: one payment is not enough\n")
	require.Contains(t, out.String(), "  tests    5 passed, 1 failed\n")
	require.NotContains(t, out.String(), "ok ")
}
