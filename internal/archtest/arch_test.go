package archtest_test

import (
	"bytes"
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/await"
)

const module = "github.com/datafly/bridge"

// arrows lists every package and the packages of this module that it may import.
// An entry includes the folders below it that have no entry of their own. The
// three packages that do the work never import each other: internal/pipeline
// connects them.
var arrows = map[string][]string{
	module:                          {}, // the documents that bridge help shows
	"consumer":                      {"internal/kafka", "internal/memory", "internal/panics", "internal/setting"},
	"mapping":                       {"internal/delta", "internal/setting", "internal/spelling"},
	"zerobus":                       {"zerobus/zerobuspb", "internal/databricks", "internal/delta", "internal/oauthtoken", "internal/panics", "internal/plaintext", "internal/setting"},
	"zerobus/emulator":              {"zerobus/zerobuspb", "internal/delta"},
	"zerobus/zerobuspb":             {},
	"internal/blueprinttest":        {"mapping", "internal/plaintext", "internal/spelling"},
	"internal/config":               {"consumer", "mapping", "zerobus", "internal/admin/listener", "internal/integrations/store", "internal/ops", "internal/plaintext", "internal/setting", "internal/spelling", "internal/tracing", "internal/webhook"},
	"internal/webhook":              {"internal/ops", "internal/plaintext", "internal/setting"},
	"internal/setting":              {"internal/plaintext", "internal/spelling"},
	"internal/setup":                {"zerobus", "internal/config", "internal/databricks", "internal/pipeline", "internal/plaintext", "internal/setting"},
	"internal/spelling":             {},
	"internal/plaintext":            {},
	"internal/databricks":           {},
	"internal/delta":                {},
	"internal/app":                  {"consumer", "zerobus", "internal/admin", "internal/admin/listener", "internal/config", "internal/console", "internal/integrations/manage", "internal/integrations/store", "internal/integrations", "internal/kafka", "internal/memory", "internal/operations", "internal/setting", "internal/ops", "internal/ops/access", "internal/ops/group", "internal/panics", "internal/pipeline", "internal/plaintext", "internal/reload", "internal/tracing", "internal/webhook"},
	"internal/integrations":         {"internal/config", "internal/panics"},
	"internal/integrations/store":   {"internal/kafka", "internal/panics", "internal/plaintext", "internal/setting"},
	"internal/integrations/catalog": {module, "mapping", "internal/config", "internal/plaintext"},
	"internal/integrations/manage":  {"consumer", "zerobus", "internal/config", "internal/databricks", "internal/integrations/catalog", "internal/integrations/store", "internal/kafka", "internal/pipeline", "internal/plaintext", "internal/setting", "internal/setup"},
	"internal/admin":                {"internal/admin/listener", "internal/integrations/catalog", "internal/integrations/manage", "internal/integrations/store", "internal/ops", "internal/ops/access", "internal/panics", "internal/pipeline", "internal/plaintext", "internal/setup"},
	"internal/admin/listener":       {"internal/setting"},
	"internal/console":              {"internal/ops/access"},
	"internal/reload":               {"internal/plaintext"},
	"internal/pipeline":             {"consumer", "mapping", "zerobus", "internal/config", "internal/databricks", "internal/deadletter", "internal/kafka", "internal/memory", "internal/ops", "internal/panics", "internal/plaintext", "internal/setting", "internal/tracing"},
	"internal/operations":           {"consumer", "internal/blueprinttest", "internal/config", "internal/deadletter", "internal/kafka", "internal/pipeline", "internal/plaintext", "internal/terminal", "mapping", "zerobus"},
	"internal/logwriter":            {},
	"internal/hangup":               {},
	"internal/oauthtoken":           {"internal/plaintext"},
	"internal/ops":                  {"consumer", "zerobus", "internal/memory", "internal/ops/access", "internal/plaintext", "internal/setting"}, // their status types and state constants
	"internal/ops/access":           {"internal/plaintext"},
	"internal/ops/group":            {"consumer", "internal/kafka", "internal/ops"},
	"internal/tracing":              {"consumer"},
	"internal/traffic":              {},
	"internal/deadletter":           {"consumer", "internal/kafka", "internal/plaintext"},
	"internal/kafka":                {"internal/memory", "internal/oauthtoken", "internal/panics", "internal/plaintext", "internal/setting"},
	"internal/kafkatest":            {"internal/buildtest"},
	"internal/buildtest":            {},
	"internal/await":                {},
	"internal/memory":               {},
	"internal/panics":               {},
	"internal/oracle":               {},
	"internal/archtest":             {},
	"internal/terminal":             {"internal/logwriter", "internal/plaintext"},
	"internal/demo":                 {"zerobus", "zerobus/emulator", "internal/app", "internal/config", "internal/deadletter", "internal/integrations/store", "internal/ops", "internal/pipeline", "internal/setting", "internal/terminal", "internal/traffic"},
	"test":                          {"internal/memory"},
	"test/brokers":                  {"internal/buildtest"},
	"test/connectproxy":             {},
	"test/engine":                   {"internal/await"},
	"test/oidc":                     {"internal/buildtest"},
	"test/sdk":                      {"test/connectproxy", "zerobus", "zerobus/emulator"},
	"test/storechaos":               {"internal/integrations/store", "internal/kafka", "internal/kafkatest"},
	"test/chaos":                    {"internal/buildtest", "internal/kafkatest", "internal/oracle", "internal/traffic", "zerobus/emulator"},
	"bench":                         {"internal/buildtest", "internal/config", "internal/kafkatest", "internal/memory", "internal/oracle", "internal/traffic", "zerobus", "zerobus/emulator"},
	"cmd/bridge":                    {"consumer", "mapping", "zerobus", "zerobus/emulator", "internal/app", "internal/blueprinttest", "internal/config", "internal/deadletter", "internal/demo", "internal/hangup", "internal/integrations/manage", "internal/integrations/store", "internal/kafka", "internal/logwriter", "internal/memory", "internal/operations", "internal/ops", "internal/pipeline", "internal/plaintext", "internal/setup", "internal/spelling", "internal/terminal"},
}

// A boundary restricts a package of others, and those below it, to some packages.
type boundary struct {
	imported, reason string
	allowed          []string
}

// boundaries are in order: the first that matches counts.
var boundaries = []boundary{
	{"github.com/twmb/franz-go/pkg/kfake", "an in-process Kafka has no place in the delivery path", []string{"internal/demo", "internal/kafkatest", "bench"}},
	{"github.com/twmb/franz-go", "cmd/bridge and internal/app use consumer and pipeline", []string{"consumer", "internal/deadletter", "internal/integrations/store", "internal/pipeline", "internal/tracing", "internal/demo", "internal/kafka", "internal/kafkatest", "bench", "test/chaos"}},
	{"github.com/spf13/viper", "configuration is read in one place", []string{"internal/config"}},
	{"github.com/spf13/cobra", "the command line is read in one place", []string{"cmd/bridge"}},
	{"github.com/prometheus", "metrics are kept in one place", []string{"internal/ops", "bench"}},
	{"go.opentelemetry.io", "traces are made in one place", []string{"internal/tracing"}},
	{"testing", "test helpers stay out of the program", []string{"internal/kafkatest", "internal/await", "test/engine"}},
	{"net", "mapping does no I/O and starts nothing", []string{"consumer", "internal/kafka", "zerobus", "zerobus/emulator", "cmd/bridge", "internal/admin", "internal/console", "internal/config", "internal/databricks", "internal/demo", "internal/integrations/manage", "internal/oauthtoken", "internal/ops", "internal/ops/access", "internal/ops/group", "internal/setting", "internal/setup", "internal/webhook", "internal/kafkatest", "bench", "test/chaos", "test/connectproxy", "test/oidc", "test/sdk"}},
}

func TestArrows(t *testing.T) {
	for _, v := range violations(packages(t)) {
		t.Error(v)
	}
}

// The rules themselves: each of these imports must be refused.
func TestForbiddenArrowsAreFound(t *testing.T) {
	for _, tc := range []struct{ pkg, imp string }{
		{"consumer", module + "/mapping"},
		{"consumer", module + "/zerobus"},
		{"mapping", module + "/consumer"},
		{"zerobus", module + "/zerobus/emulator"},
		{"zerobus", module + "/mapping"},
		{"zerobus/emulator", module + "/zerobus"},
		{"internal/ops", module + "/mapping"},
		{"internal/setting", module + "/zerobus"},
		{"internal/kafka", module + "/consumer"},
		{"cmd/bridge", module + "/internal/kafkatest"},
		{"consumer", "github.com/twmb/franz-go/pkg/kfake"},
		{"mapping", "github.com/twmb/franz-go/pkg/kgo"},
		{"mapping", "net/http"},
		{"zerobus", "github.com/spf13/viper"},
		{"cmd/bridge", "testing"},
		{"cmd/bridge", "github.com/twmb/franz-go/pkg/kgo"},
		{"consumer", module + "/internal/pipeline"},
		{"internal/pipeline", module + "/internal/app"},
		{"internal/reload", module + "/internal/config"},
		{"internal/app", module + "/mapping"},
		{"internal/app", "github.com/twmb/franz-go/pkg/kgo"},
		{"internal/helpers", "fmt"},
	} {
		if got := violations(map[string][]string{tc.pkg: {tc.imp}}); len(got) != 1 {
			t.Errorf("%s importing %s: got %d violations, want 1: %v", tc.pkg, tc.imp, len(got), got)
		}
	}
	fine := map[string][]string{
		"consumer":          {"context", "github.com/twmb/franz-go/pkg/kgo", module + "/internal/kafka"},
		"zerobus/zerobuspb": {"fmt"},
		"zerobus":           {module + "/zerobus/zerobuspb", "net/http"},
		"cmd/bridge":        {module + "/consumer", module + "/mapping", module + "/zerobus"},
	}
	if got := violations(fine); len(got) != 0 {
		t.Errorf("allowed arrows are refused: %v", got)
	}
}

// mappingFiles are the files of cmd/bridge that may import mapping: those of commands
// that show what a blueprint does. What runs a pipeline does not map.
var mappingFiles = []string{"blueprint.go", "map.go", "schema.go", "suggest.go"}

func TestRuntimeCommandsDoNotMap(t *testing.T) {
	files, err := filepath.Glob("../../cmd/bridge/*.go")
	if err != nil || len(files) < 20 {
		t.Fatalf("got %d files, %v, want those of cmd/bridge", len(files), err)
	}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		name := filepath.Base(path)
		if err != nil || strings.HasSuffix(name, "_test.go") || slices.Contains(mappingFiles, name) {
			continue // what does not compile is for the compiler to report
		}
		for _, spec := range file.Imports {
			if spec.Path.Value == `"`+module+`/mapping"` {
				t.Errorf("cmd/bridge/%s imports mapping; use a function of internal/pipeline; allowed in %s", name, strings.Join(mappingFiles, ", "))
			}
		}
	}
}

// violations returns one line for every import that is not allowed.
func violations(pkgs map[string][]string) []string {
	var out []string
	report := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for pkg, imports := range pkgs {
		from := entryOf(pkg)
		allowed, known := arrows[from]
		if !known {
			report("%s is a new package; add to arrows what it may import", pkg)
			continue
		}
		for _, imp := range imports {
			if to, ours := strings.CutPrefix(imp, module+"/"); ours && entryOf(to) != from && !slices.Contains(allowed, entryOf(to)) {
				report("%s imports %s; give it a func, an interface of its own or plain values instead", pkg, to)
			}
			if b := boundaryOf(imp); b != nil && !slices.Contains(b.allowed, from) {
				report("%s imports %s: %s; allowed in %s", pkg, imp, b.reason, strings.Join(b.allowed, ", "))
			}
		}
	}
	return out
}

// boundaryOf returns the first boundary of a package.
func boundaryOf(imp string) *boundary {
	for i := range boundaries {
		if within(imp, boundaries[i].imported) {
			return &boundaries[i]
		}
	}
	return nil
}

// entryOf returns the longest entry of arrows that pkg is or lies below, or pkg.
func entryOf(pkg string) string {
	found := ""
	for r := range arrows {
		if within(pkg, r) && len(r) > len(found) {
			found = r
		}
	}
	if found == "" {
		return pkg
	}
	return found
}

// within reports whether a package is root or lies below it.
func within(pkg, root string) bool {
	return pkg == root || strings.HasPrefix(pkg, root+"/")
}

// packages returns what each package of the bridge's module, of test and of bench
// imports, tests aside. Code that does not compile is for the compiler to report:
// -e passes over it.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	pkgs := make(map[string][]string)
	for _, dir := range []string{"../..", "../../test", "../../bench"} {
		cmd := exec.CommandContext(ctx, "go", "list", "-e", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list in %s: %v\n%s", dir, err, stderr.Bytes())
		}
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			pkgs[strings.TrimPrefix(fields[0], module+"/")] = fields[1:]
		}
	}
	for _, must := range []string{"consumer", "mapping", "zerobus", "cmd/bridge", "test/chaos", "bench"} {
		if _, ok := pkgs[must]; !ok {
			t.Fatalf("go list does not name %s; got %d packages", must, len(pkgs))
		}
	}
	return pkgs
}

// Programs that only tests and benchmarks need stay out of the bridge's module, and
// their modules use the versions the bridge is built with.
func TestModulesAgree(t *testing.T) {
	product := requirements(t, "../../go.mod")
	for _, heavy := range []string{"github.com/chromedp/chromedp", "github.com/compose-spec/compose-go/v2", "github.com/santhosh-tekuri/jsonschema/v6", "github.com/creack/pty", "golang.org/x/tools"} {
		if product[heavy] != "" {
			t.Errorf("go.mod requires %s, which only tests need; use it in test/", heavy)
		}
	}
	for _, dir := range []string{"test", "bench"} {
		for path, version := range requirements(t, "../../"+dir+"/go.mod") {
			if want := product[path]; want != "" && version != want {
				t.Errorf("%s/go.mod: got %s %s, want %s as the bridge has; run go -C %s mod tidy, or go get it in both", dir, path, version, want, dir)
			}
		}
	}
}

// requirements returns the versions a go.mod file requires.
func requirements(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) (v\S+)`).FindAllStringSubmatch(string(text), -1) {
		versions[m[1]] = m[2]
	}
	if len(versions) < 10 {
		t.Fatalf("%s: got %d requirements, want more", file, len(versions))
	}
	return versions
}
