package archtest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/security.md names the test behind each of its answers; every fuzz target
// stands there, and has a corpus beside it.
func TestSecurityDocumentNamesTestsThereAre(t *testing.T) {
	root := filepath.Join("..", "..")
	doc, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	defined := map[string]string{} // test -> folder
	tagged := map[string]bool{}    // tests that are built on request only
	for file, text := range texts(t, "*_test.go") {
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(text, -1) {
			defined[m[1]] = filepath.Dir(file)
			tagged[m[1]] = strings.HasPrefix(text, "//go:build ")
		}
	}
	if len(defined) < 300 {
		t.Fatalf("got %d tests in the repository, want hundreds", len(defined))
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`").FindAllStringSubmatch(string(doc), -1) {
		named[m[1]] = true
		if defined[m[1]] == "" {
			t.Errorf("docs/security.md names %s, which is no test", m[1])
		}
	}
	for name, dir := range defined {
		if !strings.HasPrefix(name, "Fuzz") {
			continue
		}
		if !named[name] {
			t.Errorf("%s in %s: docs/security.md does not say what it reads", name, dir)
		}
		if corpus, _ := filepath.Glob(filepath.Join(root, dir, "testdata", "fuzz", name, "*")); !tagged[name] && len(corpus) == 0 || len(corpus) > 60 {
			t.Errorf("%s in %s has a corpus of %d files, want 1 to 60 in testdata/fuzz", name, dir, len(corpus))
		}
	}
}

// texts returns the files of the repository that match the patterns, by path.
func texts(t *testing.T, patterns ...string) map[string]string {
	t.Helper()
	root := filepath.Join("..", "..")
	list := exec.CommandContext(t.Context(), "git", append([]string{"ls-files", "--"}, patterns...)...)
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("git ls-files: %v", err)
		}
		t.Skipf("git ls-files: %v", err) // a copy without its history
	}
	found := map[string]string{}
	for file := range strings.Lines(string(out)) {
		file = strings.TrimSpace(file)
		if text, err := os.ReadFile(filepath.Join(root, file)); err == nil { // else deleted, and not yet committed
			found[file] = string(text)
		}
	}
	return found
}

// A comment that begins with a name in mixed case documents that name. After a
// rename it would name nothing.
func TestCommentsNameTheFunctionTheyDocument(t *testing.T) {
	documented := regexp.MustCompile(`(?m)^(?:[^/\n].*)?\n// ([a-z]{2,}[A-Z]\w*) .*\n(?://.*\n)*(?:func (?:\([^)]*\) )?|type )(\w+)`)
	for file, text := range texts(t, "*.go") {
		for _, m := range documented.FindAllStringSubmatch(text, -1) {
			if m[1] != m[2] {
				t.Errorf("%s: the comment of %s begins with %s", file, m[2], m[1])
			}
		}
	}
}

// Documents and comments name Go files and documents that exist.
func TestNamedFilesExist(t *testing.T) {
	exists := map[string]bool{}
	for file := range texts(t) {
		exists[filepath.Base(file)] = true
	}
	named := regexp.MustCompile(`(?:^|[^\w.-])([\w-]+\.(?:go|md))(?:[^\w.]|\.?$|\.\s)`)
	for file, text := range texts(t, "*.go", "*.md", "internal/traffic/templates.txt", ".golangci.yml", "Makefile") {
		for line := range strings.Lines(text) {
			if filepath.Ext(file) == ".go" {
				_, line, _ = strings.Cut(line, "// ")
			}
			for _, m := range named.FindAllStringSubmatch(strings.TrimSpace(line), -1) {
				if name := m[1]; !exists[name] && !strings.HasPrefix(name, "_") {
					t.Errorf("%s names %s, which does not exist: %s", file, name, strings.TrimSpace(line))
				}
			}
		}
	}
}

// Every module that a go.mod requires directly has its reason in docs/dependencies.md.
func TestDependenciesAreDocumented(t *testing.T) {
	doc := texts(t, "docs/dependencies.md")["docs/dependencies.md"]
	required := regexp.MustCompile(`(?m)^(?:require )?\t?([a-z0-9.-]+\.[a-z]+/\S+) v\S+$`)
	major := regexp.MustCompile(`^v[0-9]+$`)
	for file, text := range texts(t, "go.mod", "test/go.mod", "bench/go.mod", "deploy/*/go.mod") {
		for _, m := range required.FindAllStringSubmatch(text, -1) {
			name := m[1]
			if dir, last := filepath.Split(name); !strings.Contains(doc, name) && !major.MatchString(last) {
				name = last // of a family: "client_golang, client_model"
			} else if major.MatchString(last) {
				name = filepath.Base(dir)
			}
			if !strings.Contains(doc, name) && m[1] != "github.com/datafly/bridge" {
				t.Errorf("%s requires %s; give its reason in docs/dependencies.md", file, m[1])
			}
		}
	}
}
