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
	list := exec.CommandContext(t.Context(), "git", "ls-files", "*_test.go")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("git ls-files: %v", err)
		}
		t.Skipf("git ls-files: %v", err) // a copy without its history
	}
	defined := map[string]string{} // test -> folder
	tagged := map[string]bool{}    // tests that are built on request only
	for file := range strings.Lines(string(out)) {
		file = strings.TrimSpace(file)
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			continue // deleted, and not yet committed
		}
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			defined[m[1]] = filepath.Dir(file)
			tagged[m[1]] = strings.HasPrefix(string(text), "//go:build ")
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
