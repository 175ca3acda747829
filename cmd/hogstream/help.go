package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/processors"
)

// newParser reads the command line into c. Help and versions go to stdout.
func newParser(ctx context.Context, c *cli, stdout io.Writer) (*kong.Kong, error) {
	parser, err := kong.New(c,
		kong.Name("hogstream"),
		kong.Description("A Kafka-backed stream processor for customer-lifecycle events."),
		kong.Vars{
			"version":    hogstream.Version,
			"processors": strings.Join(processors.Names(), ","), "aprocessor": strings.Join(processors.Names(), " or "),
		},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(stdout, stderr),
		hogstream.Booleans(),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return nil, err
	}
	parser.Model.HelpFlag.Group = &kong.Group{Key: everyCommand, Title: everyCommand}
	return parser, nil
}

// everyCommand is the group of the flags that every command has: those of its own are
// shown first.
const everyCommand = "Every command"

// withHelp is an error of the command line with the help to read.
func withHelp(err error) error {
	command := ""
	var call *kong.ParseError
	if errors.As(err, &call) && call.Context != nil {
		for _, p := range call.Context.Path {
			if p.Command != nil {
				command = " " + p.Command.Path()
			}
		}
	}
	return fmt.Errorf("%w (see hogstream help%s)", err, command)
}

type helpCmd struct {
	Command []string `arg:"" optional:"" help:"A command, for example: destinations add."`
}

// Run shows what --help of the command does.
func (c *helpCmd) Run(parser *kong.Kong) error {
	at, err := kong.Trace(parser, c.Command)
	if err != nil {
		return err
	}
	if at.Error != nil {
		return at.Error
	}
	return at.PrintUsage(false)
}

// build is what the binary was built of.
type build struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	Committed string `json:"committedAt,omitempty"`
	Modified  bool   `json:"modified,omitempty"` // the working tree had changes
	Go        string `json:"go"`
	Platform  string `json:"platform"`
}

func buildOf(info *debug.BuildInfo) build {
	b := build{Version: hogstream.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info == nil {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Committed = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

type versionCmd struct{}

// Run prints what this binary is.
func (c *versionCmd) Run(out *output) error {
	info, _ := debug.ReadBuildInfo()
	b := buildOf(info)
	return out.value(b, func(w io.Writer) {
		fmt.Fprintf(w, "hogstream %s\n", b.Version)
		switch {
		case b.Modified:
			fmt.Fprintf(w, "commit   %s, with changes\n", b.Commit)
		case b.Commit != "":
			fmt.Fprintf(w, "commit   %s of %s\n", b.Commit, b.Committed)
		}
		fmt.Fprintf(w, "go       %s, %s\n", b.Go, b.Platform)
	})
}

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Each asks the binary itself for what may follow, so that it needs no renewal.
var completions = map[string]string{
	"bash": `_hogstream() {
    local IFS=$'\n'
    COMPREPLY=($("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _hogstream hogstream
`,
	"zsh": `#compdef hogstream
_hogstream() {
    local -a found
    found=("${(@f)$("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[*]}" ]]; then compadd -a found; else _files; fi
}
compdef _hogstream hogstream
`,
	"fish": `complete -c hogstream -a '(hogstream complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`,
}

// Help says where the script goes.
func (c *completionCmd) Help() string {
	return "bash: eval \"$(hogstream completion bash)\" in ~/.bashrc. zsh: the same with zsh in ~/.zshrc, after compinit.\n" +
		"fish: hogstream completion fish > ~/.config/fish/completions/hogstream.fish"
}

// Run prints the script that a shell reads.
func (c *completionCmd) Run(out *output) error {
	_, err := io.WriteString(out.W, completions[c.Shell])
	return err
}

type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

// Run prints what may stand in the place of the last word, a line each.
func (c *completeCmd) Run(parser *kong.Kong, out *output) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	for _, candidate := range candidates(parser.Model.Node, words) {
		fmt.Fprintln(out.W, candidate)
	}
	return nil
}

// candidates are what the last word may be, after the words before it.
func candidates(node *kong.Node, words []string) []string {
	var wants *kong.Flag // whose value is the next word
	arguments := 0
	before, last := words[:len(words)-1], words[len(words)-1]
	for _, word := range before {
		switch {
		case wants != nil:
			wants = nil
		case strings.HasPrefix(word, "-"):
			wants = flagOf(node, word)
		default:
			if child := childOf(node, word); child != nil {
				node, arguments = child, 0
			} else {
				arguments++
			}
		}
	}
	var found []string
	switch {
	case wants != nil:
		found = enumOf(wants.Value)
	case strings.HasPrefix(last, "-"):
		if node.DefaultCmd != nil {
			node = node.DefaultCmd
		}
		for _, level := range node.AllFlags(true) {
			for _, flag := range level {
				found = append(found, "--"+flag.Name)
			}
		}
	default:
		for _, child := range node.Children {
			if child.Type == kong.CommandNode && !child.Hidden {
				found = append(found, child.Name)
			}
		}
		if arguments < len(node.Positional) {
			found = append(found, enumOf(node.Positional[arguments])...)
		}
	}
	slices.Sort(found)
	return slices.DeleteFunc(slices.Compact(found), func(s string) bool { return !strings.HasPrefix(s, last) })
}

func childOf(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == name && child.Type == kong.CommandNode {
			return child
		}
	}
	return nil
}

// flagOf is the flag that a word names and whose value follows, nil for others.
func flagOf(node *kong.Node, word string) *kong.Flag {
	name := strings.TrimLeft(word, "-")
	for _, level := range node.AllFlags(false) {
		for _, flag := range level {
			if (flag.Name == name || string(flag.Short) == name) && !flag.IsBool() && !flag.IsCounter() {
				return flag
			}
		}
	}
	return nil
}

func enumOf(value *kong.Value) []string {
	return slices.DeleteFunc(value.EnumSlice(), func(s string) bool { return s == "" })
}
