package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/config"
)

// known holds every key of the configuration and every section.
func known() (keys, sections map[string]bool) {
	keys, sections = map[string]bool{"kafka.bootstrap_servers": true, "kafka.topic": true}, map[string]bool{} // other spellings
	for _, k := range config.Keys() {
		keys[k.Path] = true
		for at := strings.LastIndexByte(k.Path, '.'); at > 0; at = strings.LastIndexByte(k.Path[:at], '.') {
			sections[k.Path[:at]] = true
		}
	}
	return keys, sections
}

var dotted = regexp.MustCompile(`^([a-z_]+(?:\.[a-z_0-9]+)+)(?:[:=].*)?$`)

func TestKeysInProseExist(t *testing.T) {
	t.Parallel()
	keys, sections := known()
	found := 0
	for _, p := range pages(t) {
		if p.name == "deploy/helm/bridge/README.md" {
			continue // its keys are the chart's values, and it is written from them
		}
		for _, l := range p.prose {
			for _, span := range l.spans() {
				m := dotted.FindStringSubmatch(span)
				if m == nil {
					continue
				}
				if top, _, _ := strings.Cut(m[1], "."); !sections[top] || elsewhere(m[1]) {
					continue
				}
				if found++; !keys[m[1]] && !sections[m[1]] {
					t.Errorf("%s:%d: %s is no key of the configuration", p.name, l.number, m[1])
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("got %d keys in the pages, want more: are they found?", found)
	}
}

// elsewhere holds names that look like keys and are none.
func elsewhere(name string) bool {
	status := []string{"store.problem", "store.shadowed", "store.ignored"} // fields of /status
	return slices.Contains(status, name) || strings.HasSuffix(name, ".properties") || strings.HasSuffix(name, ".go") || strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".com")
}

// A block of YAML whose keys are all sections is configuration, and so is what
// stands under config in the values of the chart.
func TestKeysInExamplesExist(t *testing.T) {
	t.Parallel()
	keys, sections := known()
	found := 0
	for _, p := range pages(t) {
		for _, f := range p.fences {
			if f.lang != "yaml" {
				continue
			}
			var doc map[string]any
			if yaml.Unmarshal([]byte(f.text), &doc) != nil {
				continue // several documents, or a piece of one
			}
			if under, ok := doc["config"].(map[string]any); ok {
				doc = under
			} else if slices.ContainsFunc(keysOf(doc), func(k string) bool { return !sections[k] && !keys[k] && k != "integrations" }) {
				continue
			}
			for _, path := range leaves("", doc) {
				fine := keys[path]
				if overlay, within := strings.CutPrefix(path, "integrations."); within {
					_, key, _ := strings.Cut(overlay, ".")
					fine = key == "enabled" || keys[key] && !config.OfProcess(key)
				}
				if found++; !fine {
					t.Errorf("%s:%d: %s is no key of the configuration", p.name, f.number, path)
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("got %d keys in examples, want more: are they found?", found)
	}
}

func keysOf(doc map[string]any) []string {
	var out []string
	for k := range doc {
		out = append(out, k)
	}
	return out
}

func leaves(prefix string, doc map[string]any) []string {
	var out []string
	for k, v := range doc {
		if under, ok := v.(map[string]any); ok {
			out = append(out, leaves(prefix+k+".", under)...)
		} else {
			out = append(out, prefix+k)
		}
	}
	return out
}

var variable = regexp.MustCompile(`\bBRIDGE_[A-Z0-9_]*[A-Z0-9]\b`)

func TestVariablesExist(t *testing.T) {
	t.Parallel()
	names := map[string]bool{"BRIDGE_LONG_TESTS": true, "BRIDGE_SCREENSHOTS": true} // of the tests
	for _, k := range config.Keys() {
		names[k.Env] = true
	}
	for _, p := range pages(t) {
		all := p.prose
		for _, f := range p.fences {
			all = append(all, line{f.number, f.text})
		}
		for _, l := range all {
			for _, name := range variable.FindAllString(l.text, -1) {
				if !names[name] {
					t.Errorf("%s:%d: %s sets no key of the configuration", p.name, l.number, name)
				}
			}
		}
	}
}
