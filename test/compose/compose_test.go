//go:build engines

package compose_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/test/engine"
)

// Each break is a file for docker compose that changes one service, the check that must
// find it, and what its error must contain.
var breaks = []struct {
	name, service, change, want string
	check                       func(stack) error
}{
	{
		"the bridge reads another topic", "bridge", `environment: {BRIDGE_KAFKA_TOPICS: datafly-event}`,
		"topic datafly-event: it does not exist yet", stack.flowing,
	},
	{
		"a writable root", "producer", `read_only: false`,
		"the root of producer is writable", stack.confined,
	},
	{
		"capabilities kept", "producer", `cap_drop: !reset []`,
		"producer may get capabilities", stack.confined,
	},
	{
		"rows written to the root", "producer", `command: [emulator, --listen, ":8090", --jsonl, /rows.jsonl]`,
		"read-only file system", stack.up,
	},
	{
		"no rules", "prometheus", "volumes: !override [\"./deploy/compose/prometheus.yml:/etc/prometheus/prometheus.yml:ro\", \"prometheus:/prometheus\"]",
		"prometheus has 0 rules", stack.evaluating,
	},
}

func TestCompose(t *testing.T) {
	s := newStack(t)
	s.images(t)
	check := func(name string, check func() (string, error)) {
		t.Helper()
		engine.Check(t, name, check)
	}
	holds := func(check func(stack) error, figure string) func() (string, error) {
		return func() (string, error) { return figure, soon(func() error { return check(s) }) }
	}

	check("docker-compose.yml is valid", func() (string, error) {
		_, err := s.compose("config", "--quiet")
		return "Grafana is left out: its image cannot be had", err
	})
	check("up builds and starts", func() (string, error) {
		began := time.Now()
		_, err := s.compose("up", "--build", "--detach")
		return fmt.Sprintf("in %v", time.Since(began).Round(time.Second)), err
	})
	if t.Failed() {
		return
	}
	check("services are healthy, running or completed", holds(stack.up, "6 services"))
	check("rows arrive in both tables", holds(stack.flowing, ""))
	check("bridge status", func() (string, error) {
		out, err := s.compose("exec", "--no-TTY", "bridge", "/bridge", "status")
		word, _, _ := strings.Cut(out, " ")
		return word, err
	})
	check("root, user and capabilities", holds(stack.confined, "read-only, 65532, none"))
	check("the console answers", func() (string, error) { _, err := s.get("8084", "/"); return "", err })
	check("an integration is installed", func() (string, error) { return "retail, and its table fills", s.install() })
	check("Prometheus scrapes", holds(stack.scraping, "up is 1"))
	check("rules are evaluated", holds(stack.evaluating, "all healthy"))
	check("the dashboard has data", holds(stack.shown, "each panel that is never empty"))

	check("a revoked grant fires BridgeSinkBlocked", s.alert)
	engine.Break(t, "a revoked grant", "sink_blocked", found("sink_blocked", s.flowing))
	check("it resolves after the grant", s.resolve)
	check("a restart continues at the commits", s.restart)
	check("nothing is lost", s.complete) // before a restarted producer repeats message ids

	for _, b := range breaks {
		broken := s.broken(t, fmt.Sprintf("services:\n  %s:\n    %s\n", b.service, b.change))
		if _, err := broken.compose("up", "--detach", "--no-build", "--no-deps", b.service); err != nil {
			t.Fatal(err)
		}
		engine.Break(t, b.name, b.want, found(b.want, func() error { return b.check(broken) }))
		if _, err := s.compose("up", "--detach", "--no-build", "--no-deps", b.service); err != nil {
			t.Fatal(err)
		}
	}
	check("all is well again", holds(func(s stack) error { return firstError(s.up(), s.flowing(), s.evaluating()) }, ""))

	check("stop", s.stop)
	check("down --volumes leaves nothing", s.down)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// up checks that every service is in the state it should be in.
func (s stack) up() error {
	out, err := s.compose("config", "--services")
	if err != nil {
		return err
	}
	all, err := s.containers()
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(out) {
		c, want := all[name], "running"
		switch name {
		case "kafka", "bridge":
			want = "running healthy"
		case "topic":
			want = "exited"
		}
		if got := strings.TrimSpace(c.State + " " + c.Health); got != want || c.ExitCode != 0 {
			logs, _ := s.compose("logs", "--no-log-prefix", "--tail", "5", name)
			return fmt.Errorf("service %s is %q with exit code %d, want %s; its log ends: %s", name, got, c.ExitCode, want, logs)
		}
	}
	return nil
}

// rows is how many rows a table of the emulated workspace has had.
func (s stack) rows(table string) (int, error) {
	text, err := s.get("8090", "/emulator/tables/datafly.events."+table+"/count")
	var count struct{ Rows int }
	if err == nil {
		err = json.Unmarshal([]byte(text), &count)
	}
	return count.Rows, err
}

// flowing checks that both tables grow.
func (s stack) flowing() error { return s.growing("stream", "orders") }

func (s stack) growing(tables ...string) error {
	for _, table := range tables {
		before, err := s.rows(table)
		if err != nil {
			return err
		}
		grown := func() bool { now, err := s.rows(table); return err != nil || now > before }
		if !await.Within(10*time.Second, grown) {
			return fmt.Errorf("no new row in datafly.events.%s beyond %d; the bridge is %s", table, before, s.readiness())
		}
	}
	return nil
}

// readiness is what the bridge answers to whether it is ready.
func (s stack) readiness() string {
	answer, err := s.get("9400", "/readyz")
	if err != nil {
		answer = "not: " + err.Error()
	}
	return strings.ReplaceAll(strings.TrimSpace(answer), "\n", "; ")
}

// confined checks how the kernel confines the services of the bridge's image.
func (s stack) confined() error {
	all, err := s.containers()
	if err != nil {
		return err
	}
	kafka, err := docker.Docker(s.ctx, "inspect", "--format", "{{.Config.Image}}", all["kafka"].ID)
	if err != nil {
		return err
	}
	for _, name := range []string{"emulator", "bridge", "producer"} {
		// The image has no shell, so another one looks at its first process.
		text, err := docker.Docker(s.ctx, "run", "--rm", "--network", "none", "--pid", "container:"+all[name].ID, "--user", "65532",
			"--entrypoint", "cat", kafka, "/proc/1/status", "/proc/1/mounts")
		if err != nil {
			return err
		}
		fields := map[string]string{}
		for line := range strings.Lines(text) {
			words := strings.Fields(line)
			if len(words) > 3 && words[1] == "/" {
				fields["root"] = words[3]
			} else if len(words) > 1 {
				fields[words[0]] = words[1]
			}
		}
		switch {
		case fields["Uid:"] != "65532":
			return fmt.Errorf("%s runs as %s, want 65532", name, fields["Uid:"])
		case !strings.HasPrefix(fields["root"], "ro"):
			return fmt.Errorf("the root of %s is writable: mounted %.2s", name, fields["root"])
		case strings.Trim(fields["CapBnd:"]+fields["CapEff:"], "0") != "":
			return fmt.Errorf("%s may get capabilities: %s", name, fields["CapBnd:"])
		case fields["NoNewPrivs:"] != "1":
			return fmt.Errorf("%s may get new privileges", name)
		}
	}
	return nil
}

// install runs the example of docs/deployment.md, at the port that is published.
func (s stack) install() error {
	page, err := os.ReadFile(filepath.Join(s.root, "docs/deployment.md"))
	if err != nil {
		return err
	}
	_, command, found := strings.Cut(string(page), "\ncurl -X POST http://localhost:8084/")
	command, _, _ = strings.Cut(command, "\n```")
	address, err := s.address("8084")
	if err != nil {
		return err
	}
	if !found {
		return errors.New("docs/deployment.md has no example that calls http://localhost:8084/")
	}
	out, err := exec.CommandContext(s.ctx, "sh", "-c", "curl -sS --max-time 60 -X POST http://"+address+"/"+command).Output()
	var answer struct{ Integration struct{ Slug string } }
	if err == nil {
		err = json.Unmarshal(out, &answer)
	}
	if err != nil {
		return fmt.Errorf("running the example of docs/deployment.md: %w\n%s", err, out)
	}
	if answer.Integration.Slug != "retail" {
		return fmt.Errorf("the example of docs/deployment.md installed nothing: %s", out)
	}
	return soon(func() error { return s.growing("retail") })
}

// sample is one value of an answer of Prometheus.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

func (s stack) query(expr string) ([]sample, error) {
	var data struct{ Result []sample }
	err := s.ask("query", url.Values{"query": {expr}}, &data)
	return data.Result, err
}

// scraping checks that Prometheus reaches the bridge.
func (s stack) scraping() error {
	got, err := s.query("up")
	if err == nil && (len(got) != 1 || got[0].Value[1] != "1") {
		err = fmt.Errorf("up is %v, want 1 for one target", got)
	}
	return err
}

// evaluating checks that Prometheus has each rule of the file and evaluates it.
func (s stack) evaluating() error {
	file, err := os.ReadFile(filepath.Join(s.root, "deploy/prometheus/rules.yaml"))
	if err != nil {
		return err
	}
	want := strings.Count(string(file), "- alert: ") + strings.Count(string(file), "- record: ")
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := s.ask("rules", nil, &data); err != nil {
		return err
	}
	got := 0
	for _, group := range data.Groups {
		got += len(group.Rules)
		for _, rule := range group.Rules {
			if rule.Health != "ok" {
				return fmt.Errorf("rule %s is %s: %s", rule.Name, rule.Health, rule.LastError)
			}
		}
	}
	if got != want || want == 0 {
		return fmt.Errorf("prometheus has %d rules, and deploy/prometheus/rules.yaml has %d", got, want)
	}
	return nil
}

// shown checks that each panel of the dashboard has data that is only empty if no member
// is scraped.
func (s stack) shown() error {
	text, err := os.ReadFile(filepath.Join(s.root, "deploy/grafana/bridge.json"))
	if err != nil {
		return err
	}
	var dashboard struct {
		Panels []struct {
			Title       string
			Targets     []struct{ Expr string }
			FieldConfig struct{ Defaults struct{ NoValue string } }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		return err
	}
	variables := strings.NewReplacer("$__rate_interval", "1m", "$namespace", ".*", "$job", ".*", "$group", ".*", "$instance", ".*", "$integration", ".*", "$topic", ".*")
	asked := 0
	for _, panel := range dashboard.Panels {
		if panel.FieldConfig.Defaults.NoValue != "no member is scraped" {
			continue
		}
		empty := true
		for _, target := range panel.Targets {
			got, err := s.query(variables.Replace(target.Expr))
			if err != nil {
				return fmt.Errorf("panel %s: %w", panel.Title, err)
			}
			empty = empty && len(got) == 0
		}
		if empty {
			return fmt.Errorf("panel %s is empty", panel.Title)
		}
		asked++
	}
	if asked < 25 {
		return fmt.Errorf("the dashboard has %d panels that are never empty, want 25 or more", asked)
	}
	return nil
}

const grant = `{"privilege":"MODIFY","on":"datafly.events.stream"}`

// alerts returns the alerts in a state.
func (s stack) alerts(state string) ([]string, error) {
	var data struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	err := s.ask("alerts", nil, &data)
	var names []string
	for _, a := range data.Alerts {
		if a.State == state {
			names = append(names, a.Labels["alertname"]+" of "+a.Labels["integration"])
		}
	}
	return names, err
}

const blocked = "BridgeSinkBlocked of default"

func (s stack) alert() (string, error) {
	began := time.Now()
	if _, err := s.request("POST", "8090", "/emulator/revoke", grant); err != nil {
		return "", err
	}
	err := soon(func() error {
		names, err := s.alerts("firing")
		if err == nil && !slices.Contains(names, blocked) {
			err = fmt.Errorf("%v fire, want %s", names, blocked)
		}
		return err
	})
	return fmt.Sprintf("after %v; the rule waits 2 minutes", time.Since(began).Round(time.Second)), err
}

func (s stack) resolve() (string, error) {
	began := time.Now()
	if _, err := s.request("POST", "8090", "/emulator/grant", grant); err != nil {
		return "", err
	}
	err := soon(func() error {
		names, err := s.alerts("firing")
		if err == nil && slices.Contains(names, blocked) {
			err = fmt.Errorf("%v fire", names)
		}
		return err
	})
	if err == nil {
		err = soon(s.flowing)
	}
	return fmt.Sprintf("after %v; the bridge tries every 30 s", time.Since(began).Round(time.Second)), err
}

// restart checks that rows follow a restart of the bridge, and are not written again
// from the start.
func (s stack) restart() (string, error) {
	before, err := s.rows("stream")
	if err != nil {
		return "", err
	}
	if _, err := s.compose("restart", "bridge"); err != nil {
		return "", err
	}
	if err := soon(func() error { return firstError(s.up(), s.flowing()) }); err != nil {
		return "", err
	}
	text, err := s.get("8090", "/emulator/tables/datafly.events.stream/duplicates?by=message_id")
	var twice struct {
		Extra int `json:"extra_rows"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &twice)
	}
	if err == nil && twice.Extra > before/2 {
		err = fmt.Errorf("%d of %d rows were written again: offsets were not committed", twice.Extra, before)
	}
	return fmt.Sprintf("%d of %d rows written twice", twice.Extra, before), err
}

// stop checks that the services end in time when they are stopped amid traffic.
func (s stack) stop() (string, error) {
	began := time.Now()
	if _, err := s.compose("stop"); err != nil {
		return "", err
	}
	took := time.Since(began)
	all, err := s.containers()
	if err != nil {
		return "", err
	}
	for name, c := range all {
		// Java ends with 143 after SIGTERM.
		if c.State != "exited" || c.ExitCode != 0 && (name != "kafka" || c.ExitCode != 143) {
			return "", fmt.Errorf("service %s is %s with exit code %d, want 0; 137 is killed after stop_grace_period", name, c.State, c.ExitCode)
		}
	}
	return fmt.Sprintf("exit code 0, in %v", took.Round(100*time.Millisecond)), nil
}

func (s stack) down() (string, error) {
	if _, err := s.compose("down", "--volumes"); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"ps", "--all", "--quiet"},
		{"volume", "ls", "--quiet"},
		{"network", "ls", "--quiet", "--filter", "type=custom"},
	} {
		left, err := docker.Docker(s.ctx, args...)
		if err == nil && left != "" {
			err = fmt.Errorf("docker %s shows what down left: %s", strings.Join(args, " "), left)
		}
		if err != nil {
			return "", err
		}
	}
	return "no container, volume or network", nil
}
