package deploy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/traffic"
)

const root = "../.."

// compose reads docker-compose.yml as docker compose does: against the schema,
// with every reference between services resolved.
func compose(t *testing.T) *types.Project {
	t.Helper()
	file := filepath.Join(root, "docker-compose.yml")
	details := types.ConfigDetails{WorkingDir: root, ConfigFiles: []types.ConfigFile{{Filename: file}}}
	project, err := loader.LoadWithContext(t.Context(), details)
	if err != nil {
		t.Fatalf("reading docker-compose.yml: %v", err)
	}
	return project
}

// upstream are the images that others publish.
var upstream = regexp.MustCompile(`^(apache/kafka:\d+\.\d+\.\d+|prom/prometheus:v3\.\d+\.\d+|grafana/grafana:12\.\d+\.\d+)$`)

func TestComposeHasTheWholePath(t *testing.T) {
	p := compose(t)
	want := []string{"bridge", "emulator", "grafana", "kafka", "producer", "prometheus", "topic"}
	if got := p.ServiceNames(); !slices.Equal(got, want) {
		t.Errorf("services: got %v, want %v", got, want)
	}
	for name, want := range map[string]bool{"kafka": true, "bridge": true, "emulator": false, "producer": false} {
		if h := p.Services[name].HealthCheck; h == nil || h.Disable == want {
			t.Errorf("health check of service %s: got %+v, want %v; the image's asks a bridge", name, h, want)
		}
	}
	published := map[string]string{}
	// 8084 is the install API, where the integration page has it.
	signals := []string{"3000", "8080", "8081", "8082", "8083"}
	for name, s := range p.Services {
		if s.Image != "bridge" && !upstream.MatchString(s.Image) {
			t.Errorf("image of service %s: got %s, want the bridge or a pinned version of one that is known to be there", name, s.Image)
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
				t.Errorf("service %s mounts %s: %v, read-only %v", name, v.Source, err, v.ReadOnly)
			}
		}
		// Without a policy docker would look for the image in a registry.
		if want := map[bool]string{true: "build", false: "never"}[s.Build != nil]; s.Image == "bridge" && s.PullPolicy != want {
			t.Errorf("pull_policy of service %s: got %q, want %s", name, s.PullPolicy, want)
		}
		for _, port := range s.Ports {
			if other, taken := published[port.Published]; taken {
				t.Errorf("services %s and %s both publish port %s", name, other, port.Published)
			}
			published[port.Published] = name
			if slices.Contains(signals, port.Published) {
				t.Errorf("service %s publishes port %s, which Signal's own services use", name, port.Published)
			}
			if port.HostIP != "127.0.0.1" {
				t.Errorf("service %s publishes port %s on %q; nothing here asks for a password, publish on 127.0.0.1", name, port.Published, port.HostIP)
			}
		}
	}
}

// The tests and the compose file speak of the same Kafka.
func TestComposeRunsTheKafkaThatIsTested(t *testing.T) {
	p := compose(t)
	for _, name := range []string{"kafka", "topic"} {
		if got, want := p.Services[name].Image, "apache/kafka:"+kafkatest.DefaultVersion; got != want {
			t.Errorf("image of service %s: got %s, want %s", name, got, want)
		}
	}
}

// Unknown and misspelt variables and keys are errors of the configuration. Each of the
// integrations finds its topics and its table.
func TestComposeConfiguresTheBridge(t *testing.T) {
	p := compose(t)
	mounted := t.TempDir()
	for _, v := range p.Services["bridge"].Volumes {
		files, err := filepath.Glob(filepath.Join(v.Source, "*"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s holds no files: %v", v.Source, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(mounted, v.Target, filepath.Base(file))
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, []byte(strings.ReplaceAll(string(text), "/etc/bridge/", mounted+"/etc/bridge/")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	var env []string
	for name, value := range p.Services["bridge"].Environment {
		if value == nil {
			t.Errorf("%s has no value", name)
			continue
		}
		env = append(env, name+"="+strings.ReplaceAll(*value, "/etc/bridge/", mounted+"/etc/bridge/"))
	}
	d, err := config.LoadDeployment(config.Options{File: os.DevNull, Env: env})
	if err != nil {
		t.Fatalf("the bridge refuses its environment:\n%v", err)
	}
	bridge, tables := build(t), read(t, "deploy/compose/tables.sql")
	var names []string
	for _, i := range d.Integrations {
		names = append(names, i.Name)
		for _, topic := range i.Config.Kafka.Topics {
			if !slices.Contains(p.Services["topic"].Entrypoint, "--topic="+topic) {
				t.Errorf("%s reads topic %s, which service topic does not create", i.Name, topic)
			}
			if !slices.Contains(p.Services["producer"].Command, topic) {
				t.Errorf("%s reads topic %s, to which service producer does not write", i.Name, topic)
			}
		}
		ddl := exec.CommandContext(t.Context(), bridge, "ddl", "--integration", i.Name)
		ddl.Env, ddl.Dir = env, t.TempDir()
		out, err := ddl.CombinedOutput()
		if err != nil {
			t.Fatalf("bridge ddl --integration %s: %v\n%s", i.Name, err, out)
		}
		_, table, _ := strings.Cut(string(out), "CREATE TABLE")
		if table, _, _ = strings.Cut(table, ";"); table == "" || !strings.Contains(tables, table) {
			t.Errorf("deploy/compose/tables.sql lacks the table of %s:\n%s", i.Name, table)
		}
	}
	if b := d.Base; !b.Admin.Enabled || b.Admin.Open() || len(b.Store.Keys) != 1 || p.Services["emulator"].Ports[2].Published != "8084" {
		t.Errorf("got admin %+v and store %+v, want the install API on port 8084, with tokens and a key", b.Admin, b.Store)
	}
	if tokens, want := read(t, "deploy/compose/admin/tokens"), fmt.Sprintf("page admin sha256:%x\n", sha256.Sum256([]byte("YOUR_TOKEN"))); tokens != want {
		t.Errorf("deploy/compose/admin/tokens: got %q, want %q, the token of the integration page", tokens, want)
	}
	retail := exec.CommandContext(t.Context(), bridge, "ddl", "--optional", "--set", "mapping.variant=retail", "--set", "zerobus.table=datafly.events.retail")
	retail.Env, retail.Dir = env, t.TempDir()
	out, err := retail.CombinedOutput()
	_, create, _ := strings.Cut(string(out), "CREATE TABLE")
	if create, _, _ = strings.Cut(create, ";"); err != nil || create == "" || !strings.Contains(tables, create) {
		t.Errorf("deploy/compose/tables.sql lacks the table of retail: %v\n%s", err, out)
	}
	if want := []string{"default", "orders"}; !slices.Equal(names, want) {
		t.Errorf("got the integrations %v, want %v", names, want)
	}
	drain := d.Base.Delivery.Drain
	if grace := p.Services["bridge"].StopGracePeriod; grace == nil || time.Duration(*grace) <= drain {
		t.Errorf("stop_grace_period is %v; docker would kill the bridge within delivery.drain, %v", grace, drain)
	}
}

// A filter that no event of the producer passes would leave its table empty.
func TestComposeFillsTheTableOfOrders(t *testing.T) {
	var events bytes.Buffer
	generator := traffic.New(traffic.Config{})
	for range 1000 {
		var event traffic.Event
		generator.Next(&event)
		events.Write(append(event.Value, '\n'))
	}
	cmd := exec.CommandContext(t.Context(), build(t), "map", "--blueprint", filepath.Join(root, "deploy/compose/blueprints/orders.yaml"))
	cmd.Stdin = &events
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bridge map: %v", err)
	}
	if !bytes.Contains(out, []byte(`"revenue":"`)) {
		t.Errorf("got no row with a revenue from 1000 events of the producer:\n%.1000s", out)
	}
}

// What Prometheus asks and what Grafana asks is there to answer.
func TestComposeWatchesTheBridge(t *testing.T) {
	p := compose(t)
	var prometheus struct {
		RuleFiles []string `yaml:"rule_files"`
		Scrape    []struct {
			Job    string `yaml:"job_name"`
			Static []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	parse(t, "deploy/compose/prometheus.yml", &prometheus)
	for _, rules := range prometheus.RuleFiles {
		if !slices.ContainsFunc(p.Services["prometheus"].Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == rules }) {
			t.Errorf("prometheus.yml reads %s, which is not mounted", rules)
		}
	}
	targets := prometheus.Scrape[0].Static[0].Targets
	aliases := p.Services["emulator"].Networks["default"].Aliases
	if want := []string{"bridge:9400"}; !slices.Equal(targets, want) || !slices.Contains(aliases, "bridge") {
		t.Errorf("prometheus.yml asks %v, want %v, a name of the network the bridge shares, %v", targets, want, aliases)
	}

	var sources struct {
		Sources []struct {
			UID string `yaml:"uid"`
			URL string `yaml:"url"`
		} `yaml:"datasources"`
	}
	parse(t, "deploy/compose/grafana/datasources/prometheus.yaml", &sources)
	if got := sources.Sources[0]; got.UID != "prometheus" || got.URL != "http://prometheus:9090" {
		t.Errorf("Grafana's data source: got %+v, want prometheus at http://prometheus:9090", got)
	}
	var boards struct {
		Providers []struct {
			Options struct {
				Path string `yaml:"path"`
			} `yaml:"options"`
		} `yaml:"providers"`
	}
	parse(t, "deploy/compose/grafana/dashboards/bridge.yaml", &boards)
	path := boards.Providers[0].Options.Path
	for _, v := range p.Services["grafana"].Volumes {
		if v.Target != path {
			continue
		}
		if found, err := filepath.Glob(filepath.Join(v.Source, "*.json")); err != nil || len(found) == 0 {
			t.Errorf("%s holds no dashboard: %v", v.Source, err)
		}
		return
	}
	t.Errorf("Grafana looks for dashboards in %s, where nothing is mounted", path)
}

func parse(t *testing.T, name string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, name)), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// Every command line is tried on the command itself: with --help a known command
// with known flags prints its help and a wrong one fails.
func TestComposeCommandsExist(t *testing.T) {
	bridge := build(t)
	p := compose(t)
	lines := map[string][]string{
		"emulator": p.Services["emulator"].Command,
		"bridge":   p.Services["bridge"].Command,
		"producer": p.Services["producer"].Command,
	}
	check := regexp.MustCompile(`(?s)HEALTHCHECK .*?CMD (\[.*?\])`).FindStringSubmatch(read(t, "Dockerfile"))
	var test []string
	if check == nil || json.Unmarshal([]byte(check[1]), &test) != nil || len(test) < 2 || test[0] != "/bridge" {
		t.Fatalf("the image's health check is %q; run /bridge status", check)
	}
	lines["health check"] = test[1:]
	for name, args := range lines {
		out, err := run(t, bridge, args...)
		if err != nil {
			t.Errorf("%s: bridge %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		if !strings.Contains(out, "bridge "+args[0]+" ") {
			t.Errorf("%s: bridge has no command %s", name, args[0])
		}
	}
	if out, err := run(t, bridge, "run", "--no-such-flag"); err == nil {
		t.Errorf("an unknown flag passes, so this test proves nothing:\n%s", out)
	}
}

func run(t *testing.T, bridge string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a busy machine
	defer cancel()
	cmd := exec.CommandContext(ctx, bridge, append(slices.Clone(args), "--help")...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// build compiles the command without the race detector; the cache makes the
// second time cheap.
func build(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	bin := filepath.Join(t.TempDir(), "bridge")
	if err := buildtest.Build(ctx, bin); err != nil {
		t.Fatal(err)
	}
	return bin
}
