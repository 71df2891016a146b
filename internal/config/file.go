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
		l.problems = append(l.problems, &Problem{Source: name, Rule: rule, Remedy: remedy})
		l.spoil("") // what it would have set is not known: nothing is missing yet
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok && pe.Op == "open" {
		whole("cannot be opened: "+cause(err), "name an existing file with --config")
		return
	}
	if err != nil {
		whole("cannot be read: "+cause(err), "name a readable file with --config")
		return
	}
	l.parseFile(name, data)
}

// cause is the system's reason without the path, which the message already has.
func cause(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return err.Error()
}

func (l *loader) parseFile(name string, data []byte) {
	given := newLayer()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return
	case err != nil:
		l.syntax(name, err)
		l.spoil("")
		return
	}
	w := walk{l: l, file: name, given: given, seen: map[string]int{}}
	for _, root := range doc.Content {
		w.section(root, "")
	}
	l.merge(given)
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		l.syntax(name, err)
	default:
		l.problems = append(l.problems, &Problem{Source: name, Line: second.Line, Rule: "a second YAML document is not read", Remedy: "keep one document and take out the line ---"})
	}
}

var (
	yamlLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	yamlAnchor = regexp.MustCompile(`anchor '.*'`)
)

// syntax reports what the YAML parser says. It quotes from the file in one
// case, an unknown anchor, which may well be an unquoted secret that begins
// with an asterisk; so the anchor is not repeated.
func (l *loader) syntax(name string, err error) {
	text := err.Error()
	m := yamlLine.FindStringSubmatch(text)
	p := &Problem{Source: name, Remedy: "mend the YAML at or just above that line; a value with special characters needs quotes"}
	if m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	p.Rule = "not valid YAML: " + yamlAnchor.ReplaceAllString(text, "anchor (not shown)")
	l.problems = append(l.problems, p)
}

// walk reads one parsed file into a layer.
type walk struct {
	l     *loader
	file  string
	given layer
	seen  map[string]int // path as spelt -> line
}

func (w *walk) at(n *yaml.Node) origin { return origin{source: w.file, line: n.Line} }

func (w *walk) section(n *yaml.Node, path string) {
	n = target(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p := w.at(n).problem(path, "", "must be a section, that is key: value lines indented below it", "see config.example.yaml")
		if path == "" {
			p.Rule = "must hold sections such as kafka: and zerobus:"
		}
		w.l.problems = append(w.l.problems, p)
		w.l.spoil(path)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		w.entry(target(n.Content[i]), target(n.Content[i+1]), path)
	}
}

func (w *walk) entry(key, value *yaml.Node, prefix string) {
	if key.Kind != yaml.ScalarNode {
		w.l.problems = append(w.l.problems, w.at(key).problem(prefix, "", "holds a key that is not a plain name", "write key: value lines"))
		return
	}
	path := key.Value
	if prefix != "" {
		path = prefix + "." + key.Value
	}
	if first, twice := w.seen[path]; twice {
		w.l.problems = append(w.l.problems, w.at(key).problem(shown(path), "", fmt.Sprintf("is given twice, first on line %d", first), "keep one of them"))
		return
	}
	w.seen[path] = key.Line // `kafka.group: x` at the top level is the same key as group under kafka:
	if sections[path] {
		w.section(value, path)
		return
	}
	f := lookup(path)
	if f == nil {
		w.l.unknown(path, w.at(key))
		return
	}
	if isNull(value) {
		return // `key:` with nothing after it keeps the default
	}
	r := raw{text: value.Value}
	switch value.Kind {
	case yaml.ScalarNode:
	case yaml.SequenceNode:
		r.list = []string{}
		for _, item := range value.Content {
			if item = target(item); item.Kind != yaml.ScalarNode {
				w.wrongShape(f, value)
				return
			}
			if isNull(item) {
				r.list = append(r.list, "") // told as an empty item
				continue
			}
			r.list = append(r.list, item.Value)
		}
	default:
		w.wrongShape(f, value)
		return
	}
	w.l.take(w.given, path, r, w.at(key))
}

func (w *walk) wrongShape(f *field, n *yaml.Node) {
	w.l.problems = append(w.l.problems, w.at(n).problem(f.path, "", "must be a plain value, not a structure", "see config.example.yaml"))
	w.l.spoil(f.path)
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
