package browser_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// The checker of accessibility, from npm: what WCAG rules a program can check.
const (
	axeVersion = "4.14.1"
	axeSHA256  = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
)

// axe returns the script, which it downloads once into .cache.
var axe = sync.OnceValues(func() (string, error) {
	dir := filepath.Join("..", "..", ".cache", "axe", axeVersion)
	file := filepath.Join(dir, "axe.min.js")
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		if err := fetchAxe(dir); err != nil {
			return "", err
		}
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return "", err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != axeSHA256 {
		return "", fmt.Errorf("%s has SHA-256 %x, want %s; remove %s", file, sum, axeSHA256, dir)
	}
	return string(text), nil
})

func fetchAxe(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "partial-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, args := range [][]string{
		{"npm", "pack", "--silent", "axe-core@" + axeVersion},
		{"tar", "xzf", "axe-core-" + axeVersion + ".tgz", "--strip-components=1", "package/axe.min.js", "package/LICENSE"},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = tmp
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s could not fetch axe-core %s from npm: %w: %s", args[0], axeVersion, err, out)
		}
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// needAxe skips a test where there is no checker, or fails it where there must be one.
func needAxe(t *testing.T) {
	t.Helper()
	if _, err := axe(); err != nil {
		if os.Getenv("REQUIRE_CHROMIUM") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// violations are the serious faults that the checker finds in what is shown.
func (p *page) violations() []string {
	p.t.Helper()
	script, err := axe()
	if err != nil {
		p.t.Fatal(err)
	}
	if !p.is("window.axe") {
		p.do("(() => {" + script + "\n})()")
	}
	p.do(`(() => { window.axeFound = null; axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }).then(
	  (r) => { window.axeFound = r.violations.filter((v) => v.impact === "serious" || v.impact === "critical")
	    .map((v) => v.id + ": " + v.help + ": " + v.nodes.map((n) => n.html.slice(0, 160) + " " + n.failureSummary.replaceAll("\n", " ")).slice(0, 3).join(" | ")); },
	  (e) => { window.axeFound = ["the checker failed: " + e]; }); })()`)
	p.until("window.axeFound")
	return js[[]string](p, "window.axeFound")
}

// The looks that every page of the console is tested with.
var looks = []struct {
	scheme string
	width  int64
}{{"light", 1440}, {"light", 1024}, {"light", 390}, {"dark", 1440}, {"dark", 390}}

// inspect opens a page in each look, waits for an expression to hold, and fails for
// serious faults of accessibility, for what is cut off or sticks out to the side, and for
// what the browser complains about. Call watched before. shown, if any, is called with
// each look.
func (p *page) inspect(path, ready string, shown ...func(look string)) {
	p.t.Helper()
	needAxe(p.t)
	for _, look := range looks {
		p.look(look.width, 900, look.scheme)
		p.visit(path)
		p.until(ready)
		where := fmt.Sprintf("%s, %s, %d wide", path, look.scheme, look.width)
		p.still(where)
		for _, f := range shown {
			f(fmt.Sprintf("%s-%d", look.scheme, look.width))
			p.still(where + ", opened")
		}
		p.quiet(where)
	}
}

// still inspects what is shown, in the present look.
func (p *page) still(where string) {
	p.t.Helper()
	for _, fault := range append(p.violations(), js[[]string](p, cutOff)...) {
		p.t.Errorf("%s: %s", where, fault)
	}
}

// cutOff lists what is wider than the window outside of regions that scroll.
const cutOff = `(() => {
  const out = [], page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) out.push("wider than the window: " + page.scrollWidth + " of " + page.clientWidth);
  const scrolls = (e) => { for (; e && e !== document.body; e = e.parentElement) if (/auto|scroll|hidden|clip/.test(getComputedStyle(e).overflowX)) return true; return false; };
  for (const e of document.querySelectorAll("body *")) {
    const box = e.getBoundingClientRect();
    if (box.width > 0 && box.right > page.clientWidth + 1 && !scrolls(e)) out.push("sticks out: " + e.outerHTML.slice(0, 100));
    // What is clipped can neither be read nor scrolled to, unless it shows that by an ellipsis.
    const style = getComputedStyle(e);
    if (/hidden|clip/.test(style.overflowX) && style.textOverflow !== "ellipsis" && !/^(svg|path|INPUT|TEXTAREA)$/.test(e.tagName) && e.scrollWidth > e.clientWidth + 1 && !e.closest(".unseen, thead, .plot, .sections")) out.push("cut off: " + e.outerHTML.slice(0, 100));
  }
  return out.slice(0, 5);
})()`
