//go:build unix

package docs_test

import (
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/await"
)

// patience is how long something may take that should come at once.
const patience = await.Patience

// TestQuickstart runs the commands of docs/quickstart.md in the order of the page,
// as they stand there but for the addresses, which are free ones, and the duration
// of the demonstration. Words behind ```sh say how:
//
//	by-hand         not run: it needs Docker, or is done otherwise here
//	exit=1          it ends with this code
//	until           repeated until it prints what the page shows
//	terminal=name   left running in a terminal of that name
//
// and ```text behind it holds what it prints, or with in=name what a terminal does.
// <!-- Ctrl-C in terminal name --> is a Ctrl-C in that terminal.
func TestQuickstart(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute, and Apache Kafka; run without -short")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("the page's commands need curl: %v", err)
	}
	steps := stepsOf(t, "docs/quickstart.md")
	w := newWalk(t)
	began := time.Now()
	for _, s := range steps {
		w.take(s)
	}
	w.visit(steps)
	t.Logf("the commands took %v", time.Since(began).Round(time.Second))
}

// Reading at 220 words a minute and five seconds to copy each block: with the time
// of the commands, about two minutes, that stays below the ten that the page promises.
// Section 8 takes a minute more, as it states.
func TestQuickstartIsQuick(t *testing.T) {
	t.Parallel()
	words, blocks := 0, 0
	page := readPage(t, "docs/quickstart.md")
	before, after, _ := strings.Cut(page, "\n## 8. ")
	_, after, found := strings.Cut(after, "\n## ")
	if !found {
		t.Fatal("docs/quickstart.md has no section 8 with another behind it")
	}
	p := parsePage("docs/quickstart.md", before+"\n## "+after)
	for _, l := range p.prose {
		words += len(word.FindAllString(l.text, -1))
	}
	for _, f := range p.fences {
		if words += len(word.FindAllString(f.text, -1)); f.lang == "sh" {
			blocks++
		}
	}
	took := time.Duration(words)*time.Minute/220 + time.Duration(blocks)*5*time.Second
	t.Logf("%d words and %d blocks: %v", words, blocks, took.Round(time.Second))
	if limit := 8 * time.Minute; words == 0 || took > limit {
		t.Errorf("got %v for reading and copying, want something, up to %v: shorten the page", took.Round(time.Second), limit)
	}
}

// The alert of the page exists, and its expression is that of the page.
func TestQuickstartNamesTheAlert(t *testing.T) {
	t.Parallel()
	const name, expression, series = "BridgeSinkBlocked", `bridge_sink_state{state="blocked"}`, `bridge_sink_state{integration="default",state="blocked"}`
	page := readPage(t, "docs/quickstart.md")
	if !strings.Contains(page, name) || !strings.Contains(page, series) {
		t.Errorf("docs/quickstart.md has no %s or no %s", name, series)
	}
	rule := regexp.MustCompile(`alert: ` + name + `\n\s+expr: count by \(namespace, job, integration\) \(` + regexp.QuoteMeta(expression) + ` == 1\)\n`)
	if !rule.MatchString(readPage(t, "deploy/prometheus/rules.yaml")) {
		t.Errorf("deploy/prometheus/rules.yaml has no alert %s on %s == 1", name, expression)
	}
}

// word is what is read in one go: no digits and no rulers.
var word = regexp.MustCompile(`\S*\pL\S*`)

// step is one thing to do.
type step struct {
	number    int
	script    string            // a block of shell
	notes     map[string]string // the words behind ```sh
	want      string            // what it prints, or
	in        string            // this terminal, if script is empty
	interrupt string            // the terminal to press Ctrl-C in
}

var ctrlC = regexp.MustCompile(`^<!-- Ctrl-C in terminal (\w+) -->$`)

func stepsOf(t *testing.T, name string) []step {
	t.Helper()
	p := parsePage(name, readPage(t, name))
	var all []step
	for _, f := range p.fences {
		s := step{number: f.number, notes: notesOf(f.notes)}
		switch {
		case f.lang == "sh":
			s.script = f.text
		case f.lang == "text" && s.notes["in"] != "":
			s.in, s.want = s.notes["in"], f.text
		case f.lang == "text" && len(all) > 0:
			all[len(all)-1].want += f.text
			continue
		default:
			t.Fatalf("%s:%d: a block of %q; write sh or text", name, f.number, f.lang)
		}
		all = append(all, s)
	}
	for _, l := range p.prose {
		m := ctrlC.FindStringSubmatch(l.text)
		if m == nil {
			continue
		}
		at := 0
		for at < len(all) && all[at].number < l.number {
			at++
		}
		all = append(all[:at], append([]step{{number: l.number, interrupt: m[1]}}, all[at:]...)...)
	}
	return all
}

func notesOf(text string) map[string]string {
	notes := map[string]string{}
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		notes[name] = value
	}
	return notes
}

// prints reports whether said holds the lines of want in their order, where ... is
// anything; a line of ... alone means that more is printed. It returns the
// first line that is missing, and what is left behind the last one.
func prints(said, want string) (missing, rest string) {
	for l := range strings.Lines(want) {
		l = strings.TrimRight(l, "\n")
		if strings.TrimSpace(l) == "" || strings.TrimSpace(l) == "..." {
			continue
		}
		parts := strings.Split(l, "...")
		for i := range parts {
			parts[i] = spaces.ReplaceAllString(regexp.QuoteMeta(parts[i]), ` +`)
		}
		at := regexp.MustCompile(strings.Join(parts, `.*?`)).FindStringIndex(said)
		if at == nil {
			return l, said
		}
		said = said[at[1]:]
	}
	return "", said
}

// Columns are as wide as what stands in them.
var spaces = regexp.MustCompile(` {2,}`)

func TestPrints(t *testing.T) {
	t.Parallel()
	const said = "ready  running, up 4s\nshop/0     waiting  12\ntotal 5.5\n"
	for _, tc := range []struct{ want, missing string }{
		{"ready  running, ...\n", ""},
		{"ready ... 4s\n...\ntotal 5.5\n", ""},
		{"shop/0  waiting  12\n", ""},
		{"shop/0 waiting 12\n", "shop/0 waiting 12"},
		{"total 5.5\nready  ...\n", "ready  ..."},
		{"total 5x5\n", "total 5x5"},
	} {
		if missing, _ := prints(said, tc.want); missing != tc.missing {
			t.Errorf("%q: got %q missing, want %q", tc.want, missing, tc.missing)
		}
	}
}

var address = regexp.MustCompile(`http://127\.0\.0\.1:9400/[a-z/]*`)

// visit opens the pages that the text names.
func (w *walk) visit(steps []step) {
	named := address.FindAllString(readPage(w.t, "docs/quickstart.md"), -1)
	if len(named) < 2 || len(steps) < 10 {
		w.t.Errorf("got %d addresses and %d steps, want more: are they found?", len(named), len(steps))
	}
	for _, url := range named {
		resp, err := http.Get(w.own(url))
		if err != nil {
			w.t.Errorf("opening %s: %v", url, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			w.t.Errorf("opening %s: got %s, want 200", url, resp.Status)
		}
	}
}
