package main

import (
	"bytes"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// said is what a call prints, and its error.
func said(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var c cli
	var printed bytes.Buffer
	parser, err := newParser(t.Context(), &c, &printed)
	require.NoError(t, err)
	at, err := parser.Parse(withNegatives(args))
	if err != nil {
		return printed.String(), withHelp(err)
	}
	err = at.Run(&output{JSON: c.JSON, W: &printed}, parser)
	return printed.String(), err
}

func TestHelpShowsWhatIsACommandsOwnFirstAndTheConnectionAsAGroup(t *testing.T) {
	text, err := said(t, "help", "destinations", "add")
	require.NoError(t, err)
	for _, part := range []string{"Usage: hogstream destinations add", "--filter", "\nEvery command", "--json", "\nConnection", "--url"} {
		at := strings.Index(text, part)
		require.GreaterOrEqual(t, at, 0, "%q is missing, or stands before what was looked for last", part)
		text = text[at:]
	}
	text, err = said(t, "help")
	require.NoError(t, err)
	require.Contains(t, text, "destinations add")
	require.NotContains(t, text, "complete -")
	text, err = said(t, "help", "topics", "tail")
	require.NoError(t, err)
	require.Less(t, strings.Index(text, "--follow"), strings.Index(text, "--data-dir"))
}

func TestAMistypedCommandIsAnsweredWithTheOneThatWasMeant(t *testing.T) {
	for call, want := range map[string]string{
		"topcs ls":            `did you mean "topics"? (see hogstream help)`,
		"destination ls":      `did you mean "destinations"? (see hogstream help)`,
		"topics descrbe":      `did you mean "describe"? (see hogstream help topics)`,
		"topics tail --fllow": `did you mean "--follow"? (see hogstream help topics tail)`,
		"frobnicate":          "unexpected argument frobnicate (see hogstream help)",
		"help topcs":          `did you mean "topics"?`,
	} {
		_, err := said(t, strings.Fields(call)...)
		require.ErrorContains(t, err, want, call)
	}
}

func TestVersionSaysWhatTheBinaryWasBuiltOf(t *testing.T) {
	text, err := said(t, "version")
	require.NoError(t, err)
	require.Regexp(t, `^hogstream \S+\n(commit .*\n)?go       go1\.\d+`, text)
	text, err = said(t, "version", "--json")
	require.NoError(t, err)
	require.Contains(t, text, `"go": "go1.`)
	b := buildOf(&debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-01T00:00:00Z"}, {Key: "vcs.modified", Value: "true"}}})
	require.Equal(t, []any{"abc", "2026-01-01T00:00:00Z", true}, []any{b.Commit, b.Committed, b.Modified})
}

func TestAShellIsToldWhatMayFollow(t *testing.T) {
	for line, want := range map[string][]string{
		"destin":                              {"destinations"},
		"destinations re":                     {"redeliver", "resume"},
		"destinations deliveries --outcome r": {"refused", "rejected", "retry"},
		"destinations deliveries --fol":       {"--follow"},
		"replay --back":                       {"--backfill"},
		"completion ":                         {"bash", "fish", "zsh"},
		"--json version --j":                  {"--json"},
		"topics tail --from ":                 {""},
	} {
		text, err := said(t, append([]string{"complete", "--"}, strings.Split(line, " ")...)...)
		require.NoError(t, err)
		require.Equal(t, strings.Join(want, "\n"), strings.TrimSuffix(text, "\n"), line)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, err := said(t, "completion", shell)
		require.NoError(t, err)
		require.Contains(t, script, "complete --", shell)
	}
}
