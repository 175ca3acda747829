// Command hogstream is the whole of Hogstream in one binary: a developer's
// instance without dependencies (dev), the production roles (serve), and the
// tools to look at and steer a running one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // time zones of conditions are known where the machine has no files of them

	"github.com/alecthomas/kong"

	"github.com/hogstream/hogstream"
)

// cli is the command line: commands, flags and environment in one struct.
type cli struct {
	JSON        bool             `help:"Print JSON instead of text for people." short:"j" group:"Every command"`
	VersionFlag kong.VersionFlag `name:"version" help:"Print the version." short:"v" group:"Every command"`

	Dev          devCmd          `cmd:"" help:"Run everything in this process: broker, registry, Postgres, all roles."`
	Serve        serveCmd        `cmd:"" help:"Run roles against your Kafka, schema registry and Postgres."`
	Demo         demoCmd         `cmd:"" help:"Stream a shop's clickstream through everything and check what comes out."`
	Migrate      migrateCmd      `cmd:"" help:"Bring the database schema up to date."`
	Init         initCmd         `cmd:"" help:"Write definitions to begin with: buckets for the example shop."`
	Check        checkCmd        `cmd:"" help:"Check definitions without asking a server; fails when one has a fault."`
	Plan         planCmd         `cmd:"" help:"Say what apply would change, and who would enter and leave buckets; exits with 2 when there is a change."`
	Test         testCmd         `cmd:"" help:"Run the tests beside definitions, in virtual time and without a server; fails when one does."`
	Apply        applyCmd        `cmd:"" help:"Put definitions in use, for all instances."`
	History      historyCmd      `cmd:"" help:"List the versions of the definitions: when, by whom, what changed."`
	Diff         diffCmd         `cmd:"" help:"Show how two versions of the definitions differ."`
	Rollback     rollbackCmd     `cmd:"" help:"Put a version of the definitions in use again."`
	Doctor       doctorCmd       `cmd:"" help:"Check Kafka, registry, Postgres, schema and clock; say what to mend."`
	Topics       topicsCmd       `cmd:"" help:"Look at topics and the records on them."`
	Processors   processorsCmd   `cmd:"" help:"See how far processors are; mend one that stopped."`
	Events       eventsCmd       `cmd:"" help:"Send events."`
	Contacts     contactsCmd     `cmd:"" help:"Look at contacts; create, change and erase them."`
	Buckets      bucketsCmd      `cmd:"" help:"Look at buckets and their members; put contacts into manual ones."`
	Journeys     journeysCmd     `cmd:"" help:"Look at journeys and their runs; enrol, cancel, retry, pause."`
	Enrich       enrichCmd       `cmd:"" help:"Look at enrichments: what is asked about contacts, and what comes of it."`
	Trace        traceCmd        `cmd:"" help:"Say what led to a record, and what it caused."`
	Destinations destinationsCmd `cmd:"" help:"Manage where records are delivered to."`
	Listen       listenCmd       `cmd:"" help:"Receive deliveries here, verify and print them."`
	Sign         signCmd         `cmd:"" help:"Sign a body as a delivery is signed."`
	Verify       verifyCmd       `cmd:"" help:"Check the signature of a request that was received."`
	Replay       replayCmd       `cmd:"" help:"Send destinations again what is on the log: rewind or backfill."`
	Parked       parkedCmd       `cmd:"" help:"Look at contacts whose records wait because one failed; retry or skip them."`
	Deadletters  deadlettersCmd  `cmd:"" help:"Look at what was given up, and send it on its way again."`
	Audit        auditCmd        `cmd:"" help:"See who changed what."`
	Keys         keysCmd         `cmd:"" help:"Manage API keys."`
	Help         helpCmd         `cmd:"" help:"Show what a command does and takes."`
	Version      versionCmd      `cmd:"" help:"Say what this binary was built of."`
	Completion   completionCmd   `cmd:"" help:"Print a script that has a shell complete commands."`
	Complete     completeCmd     `cmd:"" hidden:""`
	Bench        benchCmd        `cmd:"" help:"Measure throughput and latency against plain code; write docs/BENCHMARKS.md."`
}

// Batches make much garbage at once and keep little: collecting less often costs some memory
// and saves CPU. A process that is everything at once, the broker too, has the most of both, and
// shares its cores with all that waits: with 150 for it, too, 100,000 timers of one second took 25.8 s
// and made the 99th percentile of what was live 2.1 times as long; so 20.1 s and 1.5 (bench timers,
// on two cores).
const (
	usualGCPercent = 150
	devGCPercent   = 250
)

// setGCPercent sets it unless another than the one before is in force: GOGC still decides.
func setGCPercent(percent, before int) {
	if now := debug.SetGCPercent(percent); now != before {
		debug.SetGCPercent(now)
	}
}

func main() {
	hogstream.IgnoreEmptyVariables()
	setGCPercent(usualGCPercent, 100)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second Ctrl-C ends the process at once.
	go func() { <-ctx.Done(); stop() }()
	os.Exit(run(ctx, os.Args[1:]))
}

// interrupted is the exit code of a command that was ended before it was done.
const interrupted = 130

// run parses args and runs the command; it returns the exit code: 0, 1 for a
// failure, 2 for a wrong call, 130 when ctx ended it before it was done, or what the
// command says.
func run(ctx context.Context, args []string) int {
	var c cli
	parser, err := newParser(ctx, &c, os.Stdout)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	kctx, err := parser.Parse(withNegatives(args))
	if err != nil {
		fail(&c, withHelp(err))
		return wrongCall(err)
	}
	var own exitError
	err = kctx.Run(&output{JSON: c.JSON, W: &terminal{to: os.Stdout}}, parser)
	switch {
	case err == nil:
		return 0
	case isInterrupted(ctx, err):
		return interrupted // the person knows
	case errors.As(err, &own):
		return int(own)
	}
	fail(&c, err)
	return 1
}

// wrongCall is the exit code of a call that cannot be read: 2, but of plan, where that says
// that there are changes.
func wrongCall(err error) int {
	var call *kong.ParseError
	if errors.As(err, &call) && call.Context != nil {
		for _, p := range call.Context.Path {
			if p.Command != nil && p.Command.Name == "plan" {
				return 1
			}
		}
	}
	return 2
}

var negative = regexp.MustCompile(`^-\d`)

// withNegatives joins a flag and a negative value after it, which looks like another flag:
// --from -10 is --from=-10. No flag is a digit.
func withNegatives(args []string) []string {
	var joined []string
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			return append(joined, args[i:]...)
		}
		if i+1 < len(args) && strings.HasPrefix(args[i], "--") && !strings.Contains(args[i], "=") && negative.MatchString(args[i+1]) {
			joined = append(joined, args[i]+"="+args[i+1])
			i++
			continue
		}
		joined = append(joined, args[i])
	}
	return joined
}

// isInterrupted says whether err is that ctx, which a signal ends, has ended.
func isInterrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)))
}

// untilStopped is the error of a command that runs until a signal stops it: that is
// none, also while it starts.
func untilStopped(ctx context.Context, err error) error {
	if isInterrupted(ctx, err) {
		return nil
	}
	return err
}

func fail(c *cli, err error) {
	if c.JSON {
		_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"error": err.Error()})
		return
	}
	fmt.Fprintf(stderr, "hogstream: %v\n", err)
}
