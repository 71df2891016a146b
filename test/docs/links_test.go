package docs_test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// target is what a link or an image leads to; the text may hold one level of brackets
// more, as that of an image within a link does.
var target = regexp.MustCompile(`\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	all := pages(t)
	byName := map[string]page{}
	for _, p := range all {
		byName[p.name] = p
	}
	checked := 0
	for _, p := range all {
		for _, l := range p.prose {
			for _, m := range target.FindAllStringSubmatch(codeSpan.ReplaceAllString(l.text, "code"), -1) {
				checked++
				if fault := p.follow(byName, m[1]); fault != "" {
					t.Errorf("%s:%d: %s", p.name, l.number, fault)
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("got %d links, want more: are they found?", checked)
	}
}

// follow returns what is wrong with a link, or nothing.
func (p page) follow(all map[string]page, link string) string {
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return "" // other sites are theirs to keep
	}
	file, anchor, _ := strings.Cut(link, "#")
	name := p.name
	if file != "" {
		if strings.HasPrefix(file, "/") {
			return link + " is absolute; write it from the page's folder"
		}
		name = path.Join(path.Dir(p.name), file)
	}
	if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(name))); err != nil || strings.HasPrefix(name, "..") {
		return link + " leads to no file"
	}
	if anchor == "" {
		return ""
	}
	to, ok := all[name]
	if !ok {
		return link + " has an anchor, and " + name + " is no page"
	}
	if !to.anchors()[anchor] {
		return link + " leads to no heading of " + name
	}
	return ""
}

func TestBadLinksAreFound(t *testing.T) {
	t.Parallel()
	here := parsePage("docs/metrics.md", "# Here\n")
	all := map[string]page{here.name: here}
	for _, link := range []string{"absent.md", "#there", "metrics.md#there", "/docs/metrics.md", "../../outside", "../go.mod#module"} {
		if here.follow(all, link) == "" {
			t.Errorf("%s was followed, want a fault", link)
		}
	}
	for _, link := range []string{"#here", "metrics.md#here", "../go.mod", "https://example.com/absent"} {
		if fault := here.follow(all, link); fault != "" {
			t.Errorf("got %q, want no fault", fault)
		}
	}
}

// Every page of docs/ is reached from the README.
func TestReadmeLeadsToEveryPage(t *testing.T) {
	t.Parallel()
	var reached []string
	for _, p := range pages(t) {
		if p.name != "README.md" {
			continue
		}
		for _, l := range p.prose {
			for _, m := range target.FindAllStringSubmatch(l.text, -1) {
				file, _, _ := strings.Cut(m[1], "#")
				reached = append(reached, path.Clean(file))
			}
		}
	}
	for _, p := range pages(t) {
		if folder := path.Dir(p.name); p.name != "README.md" && (folder == "." || folder == "docs") && !slices.Contains(reached, p.name) {
			t.Errorf("README.md has no link to %s", p.name)
		}
	}
}
