package docs_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// page is a Markdown file, taken apart.
type page struct {
	name   string // from the root, with slashes
	prose  []line // outside of fences
	fences []fence
}

type line struct {
	number int
	text   string
}

// fence is a block of code.
type fence struct {
	number int    // of its first line
	lang   string // the first word behind the backquotes
	notes  string // the others, which are for the tests and not shown
	text   string
}

// pages reads every Markdown file of the repository.
func pages(t *testing.T) []page {
	t.Helper()
	var all []page
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", ".cache", "bin", "dist", "testdata", "node_modules":
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(file) != ".md" {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		all = append(all, parsePage(filepath.ToSlash(rel), string(text)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 15 {
		t.Fatalf("got %d pages, want those of docs/ and the root at least", len(all))
	}
	return all
}

func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func parsePage(name, text string) page {
	p := page{name: path.Clean(name)}
	var open *fence
	indent := ""
	for i, l := range strings.Split(text, "\n") {
		trimmed := strings.TrimLeft(l, " ")
		switch {
		case strings.HasPrefix(trimmed, "```") && open == nil:
			indent = l[:len(l)-len(trimmed)]
			lang, notes, _ := strings.Cut(strings.TrimSpace(strings.TrimLeft(trimmed, "`")), " ")
			open = &fence{number: i + 2, lang: lang, notes: notes}
		case strings.HasPrefix(trimmed, "```"):
			p.fences = append(p.fences, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(l, indent) + "\n"
		default:
			p.prose = append(p.prose, line{i + 1, l})
		}
	}
	return p
}

var codeSpan = regexp.MustCompile("`[^`]+`")

// spans are the pieces of code in a line of prose.
func (l line) spans() []string {
	var out []string
	for _, s := range codeSpan.FindAllString(l.text, -1) {
		out = append(out, strings.Trim(s, "`"))
	}
	return out
}

var heading = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*$`)

// anchors are the names that GitHub gives to the page's headings.
func (p page) anchors() map[string]bool {
	all := map[string]bool{}
	for _, l := range p.prose {
		m := heading.FindStringSubmatch(l.text)
		if m == nil {
			continue
		}
		slug := slugOf(m[1])
		for name, n := slug, 1; ; name, n = slug+"-"+string(rune('0'+n)), n+1 {
			if !all[name] {
				all[name] = true
				break
			}
		}
	}
	return all
}

var (
	linkText    = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	noSlugRunes = regexp.MustCompile(`[^\p{L}\p{N}\p{M} _-]`)
)

func slugOf(text string) string {
	text = linkText.ReplaceAllString(text, "$1")
	text = noSlugRunes.ReplaceAllString(strings.ToLower(text), "")
	return strings.ReplaceAll(text, " ", "-")
}

func TestSlugs(t *testing.T) {
	for text, want := range map[string]string{
		"Did we lose anything?":           "did-we-lose-anything",
		"`bridge run`, and *why*":         "bridge-run-and-why",
		"A [link](x.md) to_it":            "a-link-to_it",
		"REST: gRPC -- and the rest, 1.2": "rest-grpc----and-the-rest-12",
	} {
		if got := slugOf(text); got != want {
			t.Errorf("slug of %q: got %q, want %q", text, got, want)
		}
	}
	twice := parsePage("x.md", "# One\n## One\n```\n# no heading\n```\n")
	if got := twice.anchors(); !got["one"] || !got["one-1"] || len(got) != 2 {
		t.Errorf("got anchors %v, want one and one-1", got)
	}
}
