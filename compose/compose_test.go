// Package compose_test checks what cannot be started on a machine without a
// docker engine: that the compose file is valid, that Hogstream knows every
// setting it is passed, and that the files it mounts agree with the code.
package compose_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
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

func TestSecretsAreMadeOnceAndAreSuchAsHogstreamTakes(t *testing.T) {
	dir := t.TempDir()
	script, err := os.ReadFile("env.sh")
	require.NoError(t, err)
	path := filepath.Join(dir, "env.sh")
	require.NoError(t, os.WriteFile(path, script, 0o600))
	read := func() string {
		out, err := exec.CommandContext(t.Context(), "bash", path).CombinedOutput()
		require.NoError(t, err, string(out))
		made, err := os.ReadFile(filepath.Join(dir, ".env"))
		require.NoError(t, err)
		return string(made)
	}
	made := read()
	require.Equal(t, made, read(), "a second run must not replace the keys that data is sealed with")
	key := regexp.MustCompile(`(?m)^HOGSTREAM_ENCRYPTION_KEY=(.*)$`).FindStringSubmatch(made)
	require.NotNil(t, key)
	config := hogstream.Config{EncryptionKey: key[1]}
	_, err = config.Keys()
	require.NoError(t, err)
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
	names := regexp.MustCompile(`hogstream_[a-z_]+`).FindAllString(string(raw), -1)
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
