package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

type doctorCmd struct{ infraFlags }

// finding is a line of the doctor's.
type finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	Note string `json:"note,omitempty"`
	Fix  string `json:"fix,omitempty"`
	// Todo is what is still to be made on a new deployment, which is no fault.
	Todo bool `json:"todo,omitempty"`
}

// toDo is a finding of what a new deployment does not have yet.
func toDo(what, note string) finding { return finding{What: what, OK: true, Note: note, Todo: true} }

// Run checks one thing after the other and fails when one is not ok.
func (c *doctorCmd) Run(ctx context.Context, out *output) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	findings := examine(ctx, cfg)
	healthy := true
	for _, f := range findings {
		healthy = healthy && f.OK
	}
	err = out.value(map[string]any{"ok": healthy, "findings": findings}, func(w io.Writer) {
		for _, f := range findings {
			if f.Todo {
				fmt.Fprintf(w, "todo  %-10s %s\n", f.What, f.Note)
				continue
			}
			if f.OK {
				fmt.Fprintf(w, "ok    %-10s %s\n", f.What, f.Note)
				continue
			}
			fmt.Fprintf(w, "FIX   %-10s %s\n                 %s\n", f.What, f.Note, f.Fix)
		}
	})
	if err == nil && !healthy {
		err = errors.New("not everything is well")
	}
	return err
}

func examine(ctx context.Context, cfg hogstream.Config) []finding {
	findings := append(settingsFindings(cfg), kafkaFinding(ctx, cfg), topicsFinding(ctx, cfg), registryFinding(ctx, cfg))
	return append(findings, databaseFindings(ctx, cfg)...)
}

// ill is a finding that needs a fix.
func ill(what string, err error, fix string) finding {
	return finding{What: what, Note: inShort(err.Error()), Fix: fix}
}

// inShort is the beginning of a text on one line: what answers in the place of a
// registry may send a whole page.
func inShort(text string) string {
	const most = 300
	short := []rune(strings.Join(strings.Fields(text), " "))
	if len(short) > most {
		short = append(short[:most], '…')
	}
	return string(short)
}

// settingsFindings are what `serve` would refuse to start with.
func settingsFindings(cfg hogstream.Config) (findings []finding) {
	err := cfg.ValidateServing()
	if err == nil {
		return []finding{{What: "settings", OK: true, Note: "as serve takes them"}}
	}
	for text := range strings.SplitSeq(err.Error(), "\n") {
		findings = append(findings, ill("settings", errors.New(text), "mend the setting: serve does not start with it"))
	}
	return findings
}

func kafkaFinding(ctx context.Context, cfg hogstream.Config) finding {
	fix := "set KAFKA_BROKERS (and KAFKA_TLS, KAFKA_SASL_… when the brokers ask for them) and see that the brokers run"
	if len(cfg.Kafka.Brokers) == 0 {
		return ill("kafka", errors.New("KAFKA_BROKERS is not set"), fix)
	}
	admin, err := stream.OpenAdmin(cfg.StreamConfig(), zap.NewNop())
	if err != nil {
		return ill("kafka", err, fix)
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	start := time.Now()
	if err := admin.Ping(ctx); err != nil {
		return ill("kafka", err, fix)
	}
	return finding{What: "kafka", OK: true, Note: fmt.Sprintf("%v answer in %s", cfg.Kafka.Brokers, time.Since(start).Round(time.Millisecond))}
}

func topicsFinding(ctx context.Context, cfg hogstream.Config) finding {
	fix := "run `hogstream topics create`; what cannot be changed in place it names with the command"
	if len(cfg.Kafka.Brokers) == 0 {
		return ill("topics", errors.New("not checked without Kafka"), "set KAFKA_BROKERS")
	}
	admin, err := stream.OpenAdmin(cfg.StreamConfig(), zap.NewNop())
	if err != nil {
		return ill("topics", err, fix)
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	infos, err := admin.DescribeTopics(ctx)
	if err != nil {
		return ill("topics", err, "mend kafka first")
	}
	if !slices.ContainsFunc(infos, func(t stream.TopicInfo) bool { return t.Exists }) {
		return toDo("topics", fmt.Sprintf("none under prefix %s yet: the first `hogstream serve` makes them, or `hogstream topics create`", cfg.Kafka.Prefix))
	}
	for _, t := range infos {
		if !t.Exists {
			return ill("topics", fmt.Errorf("%s is missing", t.Name), fix)
		}
		for _, p := range t.Problems {
			return ill("topics", fmt.Errorf("%s: %s", p.Name, p.Problem), p.Fix)
		}
	}
	note := fmt.Sprintf("%d, as they must be", len(infos))
	if ignores, err := admin.IsRedpanda(ctx); err != nil {
		return ill("topics", err, "mend kafka first")
	} else if ignores && cfg.Kafka.MinInSync > 0 {
		note += "; Redpanda ignores min.insync.replicas (KAFKA_MIN_INSYNC): a majority of the replicas acknowledges"
	}
	return finding{What: "topics", OK: true, Note: note}
}

func registryFinding(ctx context.Context, cfg hogstream.Config) finding {
	fix := "set SCHEMA_REGISTRY_URL (and SCHEMA_REGISTRY_USERNAME, …_PASSWORD, …_TLS_CA) and see that the registry runs"
	if cfg.Registry.URL == "" {
		return ill("registry", errors.New("SCHEMA_REGISTRY_URL is not set"), fix)
	}
	reg, err := schemas.NewRegistry(schemas.RegistryConfig{URLs: []string{cfg.Registry.URL}, TLSCAFile: cfg.Registry.TLSCA, User: cfg.Registry.Username, Password: cfg.Registry.Password, Prefix: cfg.Kafka.Prefix})
	if err != nil {
		return ill("registry", err, fix)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := reg.Ping(ctx); err != nil {
		return ill("registry", err, fix)
	}
	return finding{What: "registry", OK: true, Note: withoutPassword(cfg.Registry.URL)}
}

// withoutPassword is a URL as it may be shown.
func withoutPassword(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "a URL that cannot be read"
	}
	return u.Redacted()
}

func databaseFindings(ctx context.Context, cfg hogstream.Config) []finding {
	fix := "set DATABASE_URL and see that Postgres runs and lets this user in"
	if cfg.Database.URL == "" {
		return []finding{ill("postgres", errors.New("DATABASE_URL is not set"), fix)}
	}
	db, err := storage.Open(ctx, storage.Config{URL: cfg.Database.URL, MaxConns: 2})
	if err != nil {
		return []finding{ill("postgres", err, fix)}
	}
	defer db.Close()
	findings := []finding{{What: "postgres", OK: true, Note: db.URL()}}
	if status, err := db.SchemaStatus(ctx); err == nil && status.Applied == 0 {
		findings = append(findings, toDo("schema", "the database is empty yet: run `hogstream migrate` before the first `hogstream serve`"))
	} else if err := db.RequireSchema(ctx); err != nil {
		findings = append(findings, ill("schema", err, "run `hogstream migrate`"))
	} else {
		findings = append(findings, finding{What: "schema", OK: true, Note: "up to date"}, definitionsFinding(ctx, cfg, db), askedFinding(ctx, db))
		if len(cfg.Kafka.Brokers) > 0 {
			findings = append(findings, formatsFinding(ctx, cfg, db))
			findings = append(findings, derivedFindings(ctx, cfg, db)...)
		}
	}
	return append(findings, clockFinding(ctx, db))
}

// definitionsFinding compares the files that the settings name with what is in use.
func definitionsFinding(ctx context.Context, cfg hogstream.Config, db *storage.DB) finding {
	const what = "definitions"
	set, err := definition.Current(ctx, db)
	if err != nil {
		return ill(what, err, "mend postgres first")
	}
	if len(set.Failing) > 0 {
		f := set.Failing[0]
		return ill(what, fmt.Errorf("%s has faults since %s: %s", f.File, f.Since.Local().Format(time.DateTime), f.Faults), "mend the file and `hogstream apply`; "+inUseOf(set, &f)+" meanwhile")
	}
	note := fmt.Sprintf("version %d with %s", set.Version, countsInWords(set.Counts()))
	if cfg.Definitions.Dir == "" {
		return finding{What: what, OK: true, Note: note}
	}
	files, err := load("", &cfg)
	if err != nil {
		return ill(what, err, "set DEFINITIONS_DIR to where the definitions are")
	}
	if faults := files.Faults(); len(faults) > 0 {
		return ill(what, faults, "mend the files (`hogstream check`)")
	}
	if changes, _ := definition.Compare(set, files, cfg.DefinitionOptions()); len(changes) > 0 {
		return ill(what, fmt.Errorf("%s differs from %s: %s", cfg.Definitions.Dir, note, changes[0]), "`hogstream apply`, or bring the files up to date")
	}
	return finding{What: what, OK: true, Note: note + ", as " + cfg.Definitions.Dir + " says"}
}

// askedFinding says whether the destinations that enrichments and journeys ask are there.
func askedFinding(ctx context.Context, db *storage.DB) finding {
	const what = "destinations that are asked"
	set, err := definition.Current(ctx, db)
	if err != nil {
		return ill(what, err, "mend postgres first")
	}
	unasked, err := set.Unasked(ctx, db)
	if err != nil {
		return ill(what, err, "mend postgres first")
	}
	for _, u := range unasked {
		return ill(what, errors.New(u.String()), "`hogstream destinations add URL --name "+u.Destination+" --event outbox`, or `destinations set`; what an enrichment asked meanwhile is asked again by itself, runs of a journey by `hogstream journeys retry`")
	}
	return finding{What: what, OK: true, Note: "each that an enrichment or a journey asks can be asked"}
}

// formatsFinding compares the formats that this binary knows with those that are written.
func formatsFinding(ctx context.Context, cfg hogstream.Config, db *storage.DB) finding {
	admin, err := stream.OpenAdmin(cfg.StreamConfig(), zap.NewNop())
	if err != nil {
		return ill("formats", err, "mend kafka first")
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var notes []string
	for _, p := range processors.All() {
		formats, err := loop.ListFormats(ctx, admin, db, p.Name, p.Format)
		if err != nil {
			return ill("formats", err, "mend kafka and postgres first")
		}
		note, err := judgeFormats(p, formats)
		if err != nil {
			return ill("formats", err, "use the release that wrote them, or a later one (docs/upgrade.md)")
		}
		notes = append(notes, note)
	}
	return finding{What: "formats", OK: true, Note: strings.Join(notes, "; ")}
}

// judgeFormats says in which format a processor writes, and what holds back a higher one;
// an error for one that this binary does not know.
func judgeFormats(p processors.Processor, f loop.Formats) (note string, err error) {
	lowest := p.Format
	for _, format := range slices.Sorted(maps.Keys(f.Partitions)) {
		if format > p.Format {
			return "", fmt.Errorf("%s is in format %d on partitions %s, and this binary knows up to %d", p.Name, format, numberRanges(f.Partitions[format]), p.Format)
		}
		lowest = min(lowest, format)
	}
	note = fmt.Sprintf("%s %d", p.Name, lowest)
	switch {
	case lowest == p.Format:
	case len(f.Holding) > 0:
		note += fmt.Sprintf(", and %d when no instance of an older release runs: now %s", p.Format, strings.Join(f.Holding, ", "))
	default:
		note += fmt.Sprintf(", and %d when processors run", p.Format)
	}
	return note, nil
}

// clockFinding compares this machine's clock with the database's: leases and
// rate limits are kept on the latter.
func clockFinding(ctx context.Context, db *storage.DB) finding {
	before := time.Now()
	theirs, err := db.Clock(ctx)
	if err != nil {
		return ill("clock", err, "mend postgres first")
	}
	after := time.Now()
	skew := theirs.Sub(before.Add(after.Sub(before) / 2)).Abs()
	if skew > 2*time.Second {
		return ill("clock", fmt.Errorf("this machine and Postgres differ by %s", skew.Round(time.Millisecond)), "let NTP set both clocks")
	}
	return finding{What: "clock", OK: true, Note: fmt.Sprintf("within %s of Postgres", max(skew, after.Sub(before)).Round(time.Millisecond))}
}
