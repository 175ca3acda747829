// Package compose_test checks what cannot be started on a machine without a
// docker engine: that the compose file is valid, that Hogstream knows every
// setting it is passed, and that the files it mounts agree with the code.
package compose_test

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
)

// secrets are what env.sh would have made.
var secrets = types.Mapping{
	"POSTGRES_PASSWORD":        "secret",
	"ADMIN_API_KEY":            "secret",
	"HOGSTREAM_ENCRYPTION_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
}

// load reads the compose file as docker compose does: interpolated, validated
// against the schema of the Compose Specification, normalized and checked for
// references that lead nowhere.
func load(t *testing.T, environment types.Mapping) (*types.Project, error) {
	t.Helper()
	path, err := filepath.Abs("compose.yaml")
	require.NoError(t, err)
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  filepath.Dir(path),
		ConfigFiles: []types.ConfigFile{{Filename: path}},
		Environment: environment.Clone(), // the loader writes into it
	}, func(o *loader.Options) {
		o.Profiles = []string{"*"}
		o.SetProjectName("hogstream", true)
	})
}

func project(t *testing.T) *types.Project {
	t.Helper()
	p, err := load(t, secrets)
	require.NoError(t, err)
	return p
}

func TestTheComposeFileIsValidAndHasAllServices(t *testing.T) {
	var names []string
	for name := range project(t).Services {
		names = append(names, name)
	}
	require.ElementsMatch(t, []string{"redpanda", "kafka-ui", "postgres", "migrate", "hogstream", "prometheus", "grafana"}, names)
}

func TestTheLoaderRefusesWhatTheComposeSchemaDoesNotKnow(t *testing.T) {
	_, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		ConfigFiles: []types.ConfigFile{{Filename: "bad.yaml", Content: []byte("name: x\nservices: {a: {image: b, helthcheck: {}}}")}},
	})
	require.ErrorContains(t, err, "helthcheck", "this test proves that the one above can fail")
}

func TestWithoutItsSecretsItSaysWhatToRun(t *testing.T) {
	for name := range secrets {
		rest := secrets.Clone()
		delete(rest, name)
		_, err := load(t, rest)
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, "make up")
	}
}

func TestEverySettingPassedToHogstreamIsOneThatConfigKnows(t *testing.T) {
	known := variables(reflect.TypeFor[hogstream.Config]())
	require.Contains(t, known, "KAFKA_BROKERS", "the names are read from Config's tags")
	p := project(t)
	for _, service := range []string{"hogstream", "migrate"} {
		for name := range p.Services[service].Environment {
			require.Contains(t, known, name, "service %s passes a setting that nothing reads", service)
		}
	}
}

// variables are the environment variables that a struct and those within it name.
func variables(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		field := t.Field(i)
		if name := field.Tag.Get("env"); name != "" {
			names = append(names, strings.Split(name, ",")...)
		}
		if field.Type.Kind() == reflect.Struct {
			names = append(names, variables(field.Type)...)
		}
	}
	return names
}

func TestTheSettingsLeadToTheOtherServices(t *testing.T) {
	p := project(t)
	e := p.Services["hogstream"].Environment
	require.Equal(t, "redpanda:9092", *e["KAFKA_BROKERS"])
	require.Equal(t, "http://redpanda:8081", *e["SCHEMA_REGISTRY_URL"])
	require.Contains(t, *e["DATABASE_URL"], ":secret@postgres:5432/hogstream")
	ui := p.Services["kafka-ui"].Environment
	require.Equal(t, *e["KAFKA_BROKERS"], *ui["KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS"])
	require.Equal(t, *e["SCHEMA_REGISTRY_URL"], *ui["KAFKA_CLUSTERS_0_SCHEMAREGISTRY"])
}

func TestServicesAreHealthyBeforeWhatNeedsThemStarts(t *testing.T) {
	p := project(t)
	for name, service := range p.Services {
		if name != "migrate" { // runs once and ends
			require.NotNil(t, service.HealthCheck, "service %s has no health check", name)
		}
		for needed, dependency := range service.DependsOn {
			if needed == "migrate" {
				require.Equal(t, types.ServiceConditionCompletedSuccessfully, dependency.Condition)
				continue
			}
			require.Equal(t, types.ServiceConditionHealthy, dependency.Condition, "%s needs %s", name, needed)
		}
	}
}

func TestPortsAreOpenToThisMachineOnly(t *testing.T) {
	for name, service := range project(t).Services {
		for _, port := range service.Ports {
			require.Equal(t, "127.0.0.1", port.HostIP, "service %s, port %s", name, port.Published)
		}
	}
}

func TestWhatIsMountedAndBuiltFromExists(t *testing.T) {
	for name, service := range project(t).Services {
		for _, volume := range service.Volumes {
			if volume.Type == types.VolumeTypeBind {
				require.FileExists(t, first(volume.Source), "service %s", name)
			}
		}
		if service.Build != nil {
			require.FileExists(t, filepath.Join(service.Build.Context, service.Build.Dockerfile))
		}
	}
}

// first is the file itself, or a file in the directory.
func first(path string) string {
	found := path
	_ = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = p
			return filepath.SkipAll
		}
		return err
	})
	return found
}

func TestTheImageIsBuiltWithTheGoOfTheModuleAndRunsAsNobodySpecial(t *testing.T) {
	module, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(module)
	require.NotNil(t, version)
	dockerfile, err := os.ReadFile("Dockerfile")
	require.NoError(t, err)
	require.Contains(t, string(dockerfile), "ARG GO_VERSION="+string(version[1])+"\n")
	require.Regexp(t, `(?m)^USER [1-9]\d*$`, string(dockerfile))
}

func TestTheBrokersLauncherIsGivenPropertiesTheOnlyWayThatItTakesThem(t *testing.T) {
	command := project(t).Services["redpanda"].Command
	var properties []string
	for i, argument := range command {
		require.False(t, strings.HasPrefix(argument, "--set="),
			"%s: the launcher hands it on to the broker, which ends with \"unrecognised option\"", argument)
		if argument == "--set" {
			require.Less(t, i+1, len(command), "--set is followed by key=value")
			require.Regexp(t, `^redpanda\.[a-z_]+=\S+$`, command[i+1])
			properties = append(properties, command[i+1])
		}
	}
	require.Contains(t, properties, "redpanda.auto_create_topics_enabled=false")
}

func TestTheBrokerAcknowledgesOnlyWhatIsOnDisk(t *testing.T) {
	command := project(t).Services["redpanda"].Command
	// Both are part of --mode=dev-container, which the arguments override.
	require.Contains(t, command, "--unsafe-bypass-fsync=false")
	require.Contains(t, command, "redpanda.write_caching_default=false")
}

func TestOneServiceBuildsTheImageThatTwoUse(t *testing.T) {
	p := project(t)
	builders := map[string][]string{}
	for name, service := range p.Services {
		if service.Build != nil {
			builders[service.Image] = append(builders[service.Image], name)
		}
	}
	require.Equal(t, map[string][]string{"hogstream:local": {"hogstream"}}, builders,
		"two services that build one tag at once fail")
	migrate := p.Services["migrate"]
	require.Equal(t, "hogstream:local", migrate.Image)
	require.Equal(t, types.PullPolicyNever, migrate.PullPolicy)
	require.Contains(t, migrate.Tmpfs, "/data", "it keeps nothing")
}

func TestHogstreamIsHealthyWhenItTakesRecords(t *testing.T) {
	check := strings.Join(project(t).Services["hogstream"].HealthCheck.Test, " ")
	require.Contains(t, check, "/v1/health/ready", "/v1/health is 503 when a single partition stands")
}

func TestReceiversOnTheHostAreReachedByNameOnLinuxToo(t *testing.T) {
	require.Equal(t, types.HostsList{"host.docker.internal": {"host-gateway"}}, project(t).Services["hogstream"].ExtraHosts)
}

func TestEachPublishedPortCanBeMoved(t *testing.T) {
	moved := secrets.Clone()
	for i, name := range []string{"HOGSTREAM_PORT", "KAFKA_UI_PORT", "REDPANDA_KAFKA_PORT", "REDPANDA_REGISTRY_PORT", "POSTGRES_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT"} {
		moved[name] = strconv.Itoa(41000 + i)
	}
	p, err := load(t, moved)
	require.NoError(t, err)
	for name, service := range p.Services {
		for _, port := range service.Ports {
			require.Regexp(t, `^4100\d$`, port.Published, "service %s", name)
		}
	}
	require.Contains(t, p.Services["redpanda"].Command, "--advertise-kafka-addr=internal://redpanda:9092,external://localhost:41002")
}

func TestAPortThatIsTakenIsToldWithTheVariableThatMovesIt(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	dir := copied(t, "ports.sh", "compose.yaml")
	// No docker that could be asked, and the other ports where nobody listens.
	environment := append(pathWithout(t, "docker"), "KAFKA_UI_PORT=1", "REDPANDA_KAFKA_PORT=1", "REDPANDA_REGISTRY_PORT=1",
		"POSTGRES_PORT=1", "PROMETHEUS_PORT=1", "GRAFANA_PORT=1")
	out, err := run(t, dir, "ports.sh", append(environment, "HOGSTREAM_PORT="+port))
	require.Error(t, err)
	require.Equal(t, "port "+port+" is taken: stop what listens there, or set HOGSTREAM_PORT to another port\n", out)

	require.NoError(t, os.WriteFile(filepath.Join(dir, ".env"), []byte("HOGSTREAM_PORT="+port+"\n"), 0o600))
	out, err = run(t, dir, "ports.sh", environment)
	require.Error(t, err, "ports may also be set in .env")
	require.Contains(t, out, port)

	out, err = run(t, dir, "ports.sh", append(environment, "HOGSTREAM_PORT=1"))
	require.NoError(t, err, out)
	require.Empty(t, out)
}

func TestSecretsAreMadeOnceAndAreSuchAsHogstreamTakes(t *testing.T) {
	for _, test := range []struct {
		name        string
		environment []string
		before      *string
	}{
		{"with openssl", os.Environ(), nil},
		{"without openssl", pathWithout(t, "openssl"), nil},
		{"an empty file", os.Environ(), new("")},
		{"a file of empty secrets", os.Environ(), new("POSTGRES_PASSWORD=\nADMIN_API_KEY=\nHOGSTREAM_ENCRYPTION_KEY=\n")},
		{"a file without a line's end", os.Environ(), new("LOG_LEVEL=debug")},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := copied(t, "env.sh")
			file := filepath.Join(dir, ".env")
			if test.before != nil {
				require.NoError(t, os.WriteFile(file, []byte(*test.before), 0o600))
			}
			out, err := run(t, dir, "env.sh", test.environment)
			require.NoError(t, err, out)
			require.Contains(t, out, "made")
			made := settings(t, file)
			config := hogstream.Config{EncryptionKey: made["HOGSTREAM_ENCRYPTION_KEY"]}
			_, err = config.Keys()
			require.NoError(t, err)
			require.Regexp(t, `^[0-9a-f]{48}$`, made["ADMIN_API_KEY"])
			require.Regexp(t, `^[0-9a-f]{32}$`, made["POSTGRES_PASSWORD"])
			info, err := os.Stat(file)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

			out, err = run(t, dir, "env.sh", test.environment)
			require.NoError(t, err, out)
			require.Empty(t, out)
			require.Equal(t, made, settings(t, file), "a second run must not replace the keys that data is sealed with")
		})
	}
}

func TestSecretsThatAreThereStayWhenOthersAreMade(t *testing.T) {
	dir := copied(t, "env.sh")
	file := filepath.Join(dir, ".env")
	require.NoError(t, os.WriteFile(file, []byte("POSTGRES_PASSWORD=mine\nLOG_LEVEL=debug\nADMIN_API_KEY="), 0o600))
	out, err := run(t, dir, "env.sh", os.Environ())
	require.NoError(t, err, out)
	made := settings(t, file)
	require.Equal(t, "mine", made["POSTGRES_PASSWORD"])
	require.Equal(t, "debug", made["LOG_LEVEL"])
	require.NotEmpty(t, made["ADMIN_API_KEY"])
	require.NotEmpty(t, made["HOGSTREAM_ENCRYPTION_KEY"])
}

func TestNothingHasADefaultPassword(t *testing.T) {
	p := project(t)
	grafana := p.Services["grafana"].Environment
	require.Equal(t, "true", *grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"])
	require.Equal(t, "true", *grafana["GF_AUTH_DISABLE_LOGIN_FORM"])
	raw, err := os.ReadFile("compose.yaml")
	require.NoError(t, err)
	for name := range secrets {
		require.NotContains(t, string(raw), "${"+name+":-", "a secret has no default")
	}
}

// copied is a directory with copies of files of this one.
func copied(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return dir
}

// run runs a script and returns all that it said.
func run(t *testing.T, dir, script string, environment []string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "bash", filepath.Join(dir, script))
	command.Env = environment
	out, err := command.CombinedOutput()
	return string(out), err
}

// pathWithout is an environment in which one program is not found: its PATH is a
// directory of links to all others.
func pathWithout(t *testing.T, program string) []string {
	t.Helper()
	links := t.TempDir()
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		found, _ := os.ReadDir(dir) // some of them may not exist
		for _, entry := range found {
			if entry.Name() != program {
				_ = os.Symlink(filepath.Join(dir, entry.Name()), filepath.Join(links, entry.Name())) // the first one wins
			}
		}
	}
	command := exec.CommandContext(t.Context(), "bash", "-c", "command -v "+program)
	command.Env = []string{"PATH=" + links}
	require.Error(t, command.Run(), "%s must not be found", program)
	return command.Env
}

// settings are the lines of a .env file.
func settings(t *testing.T, file string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	all := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		require.True(t, ok, "%q", line)
		require.NotContains(t, all, name, "a setting stands there twice")
		all[name] = value
	}
	return all
}

func TestPrometheusScrapesWhereHogstreamTellsItsFigures(t *testing.T) {
	var scrape struct {
		Configs []struct {
			Static []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	raw, err := os.ReadFile("prometheus/prometheus.yml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(raw, &scrape))
	var targets []string
	for _, config := range scrape.Configs {
		for _, static := range config.Static {
			targets = append(targets, static.Targets...)
		}
	}
	require.Contains(t, targets, "hogstream"+*project(t).Services["hogstream"].Environment["METRICS_ADDR"])
}

func TestTheDashboardShowsOnlyFiguresThatExist(t *testing.T) {
	raw, err := os.ReadFile("grafana/dashboards/hogstream.json")
	require.NoError(t, err)
	var dashboard any
	require.NoError(t, json.Unmarshal(raw, &dashboard))
	requireFigures(t, raw)
}

func TestEachAlertIsOnFiguresThatExistAndHasItsPlaceInTheRunbook(t *testing.T) {
	raw, err := os.ReadFile("prometheus/rules.yml")
	require.NoError(t, err)
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert string `yaml:"alert"`
				Expr  string `yaml:"expr"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	require.NoError(t, yaml.Unmarshal(raw, &rules))
	runbook, err := os.ReadFile("../docs/operate.md")
	require.NoError(t, err)
	require.NotEmpty(t, rules.Groups)
	for _, rule := range rules.Groups[0].Rules {
		require.Contains(t, string(runbook), "`"+rule.Alert+"`")
		requireFigures(t, []byte(rule.Expr))
	}
}

// requireFigures requires that each metric that is named in a text is declared in the code.
func requireFigures(t *testing.T, text []byte) {
	t.Helper()
	names := regexp.MustCompile(`hogstream_[a-z_]+`).FindAllString(string(text), -1)
	require.NotEmpty(t, names)
	literals := literals(t)
	for _, name := range names {
		name = strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count")
		require.True(t, declared(literals, name), "no metric %s is declared in the code", name)
	}
}

// declared says whether the name stands in the code, whole or as two or three
// parts, as it does where a prefix, or a namespace and a subsystem, is put
// before each name.
func declared(literals []string, name string) bool {
	if slices.Contains(literals, name) {
		return true
	}
	for i := range len(name) {
		if name[i] != '_' || !slices.Contains(literals, name[i+1:]) {
			continue
		}
		before := name[:i]
		namespace, subsystem, _ := strings.Cut(before, "_")
		if slices.Contains(literals, before+"_") || slices.Contains(literals, before) ||
			slices.Contains(literals, namespace) && slices.Contains(literals, subsystem) {
			return true
		}
	}
	return false
}

// literals are all short strings in the code of the product.
func literals(t *testing.T) []string {
	t.Helper()
	var found []string
	pattern := regexp.MustCompile(`"([a-z_]+)"`)
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		code, err := os.ReadFile(path)
		for _, match := range pattern.FindAllSubmatch(code, -1) {
			found = append(found, string(match[1]))
		}
		return err
	})
	require.NoError(t, err)
	return found
}
