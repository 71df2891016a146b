package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/setting"
)

// DefaultFile is read when no file is named; it may be absent.
const DefaultFile = "config.yaml"

// maxFileBytes bounds the configuration file, so that a wrong path cannot fill
// memory.
const maxFileBytes = 1 << 20

func (l *loader) readFile(name string, needed bool) {
	data, err := plaintext.ReadFile(name, maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) && !needed {
		return
	}
	whole := func(rule, remedy string) {
		l.problem(origin{source: name}, "", "", rule, remedy)
		l.faulty[""], l.incomplete = true, true // what it would have set is not known: nothing is missing yet
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok && pe.Op == "open" {
		whole("cannot be opened: "+setting.Cause(err), "name an existing file with --config")
		return
	}
	if err != nil {
		whole("cannot be read: "+setting.Cause(err), "name a readable file with --config")
		return
	}
	w := walk{l: l, file: name, given: layer{}, seen: map[string]int{}}
	if !l.parseFile(name, data, func(root *yaml.Node) { w.section(root, "") }) {
		l.faulty[""], l.incomplete = true, true
	}
}

// parseFile calls read with the content of a file, unless it is empty. It returns false
// where the file is not YAML.
func (l *loader) parseFile(name string, data []byte, read func(root *yaml.Node)) bool {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return true
	case err != nil:
		l.syntax(name, err)
		return false
	}
	for _, root := range doc.Content {
		read(root)
	}
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		l.syntax(name, err)
	default:
		l.problem(origin{name, second.Line}, "", "", "a second YAML document is not read", "keep one document and take out the line ---")
	}
	return true
}

var (
	yamlLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	yamlAnchor = regexp.MustCompile(`anchor '.*'`)
)

// syntax reports an error of the YAML parser. The parser quotes from the file in one
// case, an unknown anchor, which may be an unquoted secret that begins with an
// asterisk; so the anchor is not repeated.
func (l *loader) syntax(name string, err error) {
	text, from := err.Error(), origin{source: name}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		from.line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	l.problem(from, "", "", "not valid YAML: "+yamlAnchor.ReplaceAllString(text, "anchor (not shown)"),
		"fix the YAML at or just above that line; a value with special characters needs quotes")
}

// walk reads one parsed file.
type walk struct {
	l     *loader
	file  string
	given layer
	seen  map[string]int // path as spelled -> line
}

func (w *walk) at(n *yaml.Node) origin { return origin{source: w.file, line: n.Line} }

func (w *walk) section(n *yaml.Node, path string) {
	n = target(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		rule := "must be a section, that is key: value lines indented below it"
		if path == "" {
			rule = "must hold sections such as kafka: and zerobus:"
		}
		w.l.problem(w.at(n), path, "", rule, "see config.example.yaml")
		w.l.faulty[path] = true
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		w.entry(target(n.Content[i]), target(n.Content[i+1]), path)
	}
}

func (w *walk) entry(key, value *yaml.Node, prefix string) {
	if key.Kind != yaml.ScalarNode {
		w.l.problem(w.at(key), prefix, "", "holds a key that is not a plain name", "write key: value lines")
		return
	}
	path := key.Value
	if prefix != "" {
		path = prefix + "." + key.Value
	}
	if first, twice := w.seen[path]; twice {
		w.l.problem(w.at(key), setting.Shortened(path), "", fmt.Sprintf("is given twice, first on line %d", first), "keep one of them")
		return
	}
	w.seen[path] = key.Line // `kafka.group: x` at the top level is the same key as group under kafka:
	if schema.Sections[path] {
		w.section(value, path)
		return
	}
	if w.l.base == nil && path == overlaysKey {
		w.l.inline, w.l.file = value, w.file
		return
	}
	if _, _, dotted := cutOverlay(path); dotted && w.l.base == nil {
		w.l.problem(w.at(key), setting.Shortened(path), "", "must be indented below "+overlaysKey+":", "see config.example.yaml")
		w.l.incomplete = true
		return
	}
	if w.l.lookup(path) == nil {
		w.l.unknown(w.at(key), path)
		return
	}
	if isNull(value) {
		return // `key:` with nothing after it keeps the default
	}
	var list []string
	items := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		list, items = []string{}, value.Content
	}
	for _, item := range items {
		if item = target(item); item.Kind != yaml.ScalarNode {
			w.l.problem(w.at(value), path, "", "must be a plain value, not a structure", "see config.example.yaml")
			w.l.faulty[w.l.lookup(path).Path] = true
			return
		}
		if isNull(item) {
			item = &yaml.Node{} // reported as an empty item
		}
		if k := w.l.lookup(path); w.l.record && item.Tag != "!!str" && (k.Type == "text" || k.Type == "secret" || k.Type == "list") {
			w.l.problem(w.at(value), path, "", "must be text", "write it in quotes")
			w.l.faulty[k.Path] = true
			return
		}
		list = append(list, item.Value)
	}
	if value.Kind == yaml.ScalarNode {
		list = nil
	}
	w.l.take(w.at(key), w.given, path, value.Value, list)
}

// target follows an alias to what it stands for. An anchor cannot stand for an
// alias, so one step is enough.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }
