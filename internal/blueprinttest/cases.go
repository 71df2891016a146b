package blueprinttest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/spelling"
	"github.com/datafly/bridge/mapping"
)

// suite is a file of tests for one blueprint.
type suite struct {
	file      string
	doc       *yaml.Node // as read, for updates
	blueprint string     // path, or the name of a built-in one
	options   mapping.Options
	tests     []*test
	problems  []Problem
}

// test is one record and the outcomes its events should have.
type test struct {
	name   string
	node   *yaml.Node
	record mapping.Record
	want   []outcome
	listed bool // want is written as a list, outcomes
}

// outcome is that of one event; one of row, code and filter is set.
type outcome struct {
	row    []byte // JSON
	code   string // of the rejection
	column string // "" matches any
	filter string
}

// The keys of a file, a test, an outcome, the options and a record.
var (
	fileKeys    = []string{"blueprint", "options", "table", "tests"}
	testKeys    = []string{"name", "event", "record", "row", "reject", "column", "filter", "outcomes"}
	outcomeKeys = []string{"row", "reject", "column", "filter"}
	optionKeys  = []string{"input", "invalid_utf8", "timestamp_fallback", "on_bad_timestamp", "timestamp_format", "require_consent", "on_missing_consent", "max_events_per_record", "optional"}
	recordKeys  = []string{"topic", "partition", "offset", "timestamp", "key", "headers"}
)

// maxFile bounds a file of tests, in bytes.
const maxFile = 64 << 20

// read reads a file of tests; its mistakes are in problems.
func read(file string) *suite {
	s := &suite{file: file, blueprint: strings.TrimSuffix(file, Suffix) + ".yaml", options: mapping.Options{ClusterID: "test", AllOptional: true}}
	data, err := plaintext.ReadFile(file, maxFile)
	if err != nil {
		s.problems = []Problem{{What: fmt.Sprintf("cannot be read: %v; name a readable file", err)}}
		return s
	}
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("is empty; write a list of tests")
		}
		s.problems = []Problem{{What: strings.TrimPrefix(err.Error(), "yaml: ")}}
		return s
	}
	s.doc = &doc
	s.members(doc.Content[0], "the file", fileKeys, s.fileKey)
	if len(s.tests) == 0 && len(s.problems) == 0 {
		s.problem(doc.Content[0], "has no tests; write tests: with an event and its row")
	}
	return s
}

func (s *suite) fileKey(key string, value *yaml.Node) {
	o := &s.options
	switch key {
	case "blueprint":
		s.blueprint = value.Value
		if _, builtin := mapping.Builtin(value.Value); !builtin {
			s.blueprint = filepath.Join(filepath.Dir(s.file), value.Value)
		}
	case "options":
		fields := map[string]any{"input": &o.Input, "invalid_utf8": &o.InvalidUTF8, "timestamp_fallback": &o.TimestampFallback,
			"on_bad_timestamp": &o.OnBadTimestamp, "timestamp_format": &o.TimestampFormat, "require_consent": &o.RequireConsent,
			"on_missing_consent": &o.OnMissingConsent, "max_events_per_record": &o.MaxEventsPerRecord, "optional": &o.AllOptional}
		s.members(value, "options", optionKeys, func(key string, value *yaml.Node) { s.decode(value, key, fields[key]) })
	case "table":
		o.Table = []mapping.Column{}
		s.members(value, "table", nil, func(name string, value *yaml.Node) {
			typ, notNull := strings.CutSuffix(value.Value, " NOT NULL")
			o.Table = append(o.Table, mapping.Column{Name: name, Type: typ, NotNull: notNull})
		})
	case "tests":
		for _, item := range s.items(value, "tests should be a list") {
			s.tests = append(s.tests, s.test(item, len(s.tests)+1))
		}
	}
}

func (s *suite) test(n *yaml.Node, number int) *test {
	t := &test{name: fmt.Sprintf("test %d", number), node: n}
	t.record = mapping.Record{Topic: "test", Timestamp: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	var one outcome
	event := false
	s.members(n, "a test", testKeys, func(key string, value *yaml.Node) {
		switch key {
		case "name":
			t.name = value.Value
		case "event":
			event = true
			switch {
			case value.Kind == yaml.ScalarNode && value.Tag == "!!null":
			case value.Kind == yaml.ScalarNode && value.Tag == "!!str":
				t.record.Value = []byte(value.Value)
			default:
				t.record.Value = s.json(value)
			}
		case "record":
			s.record(&t.record, value)
		case "outcomes":
			t.listed = true
			for _, item := range s.items(value, "outcomes should be a list with one row, reject or filter for each event of the batch") {
				var o outcome
				s.members(item, "an outcome", outcomeKeys, func(key string, value *yaml.Node) { s.outcome(&o, key, value) })
				t.want = append(t.want, o)
			}
		default:
			s.outcome(&one, key, value)
		}
	})
	if !event {
		s.problem(n, "%s has no event; write event: with an object, a text, or null for a tombstone", t.name)
	}
	if !t.listed && (one.row != nil || one.code != "" || one.filter != "") {
		t.want = []outcome{one}
	}
	return t
}

func (s *suite) record(r *mapping.Record, n *yaml.Node) {
	fields := map[string]any{"topic": &r.Topic, "partition": &r.Partition, "offset": &r.Offset, "timestamp": &r.Timestamp}
	s.members(n, "record", recordKeys, func(key string, value *yaml.Node) {
		switch key {
		case "key":
			r.Key = []byte(value.Value)
		case "headers":
			s.members(value, key, nil, func(name string, value *yaml.Node) {
				r.Headers = append(r.Headers, mapping.Header{Key: name, Value: []byte(value.Value)})
			})
		default:
			s.decode(value, key, fields[key])
		}
	})
}

func (s *suite) outcome(o *outcome, key string, n *yaml.Node) {
	switch key {
	case "row":
		if n.Kind != yaml.MappingNode {
			s.problem(n, "row should be a mapping of columns to values")
			return
		}
		o.row = s.json(n)
	case "reject":
		o.code = s.oneOf(n, key, mapping.RejectCodes())
	case "column":
		o.column = n.Value
	case "filter":
		o.filter = s.oneOf(n, key, mapping.FilterReasons())
	}
	if o.row != nil && o.code+o.filter != "" || o.code != "" && o.filter != "" {
		s.problem(n, "an event becomes a row, is rejected or is filtered; keep one of row, reject and filter")
	}
}

func (s *suite) oneOf(n *yaml.Node, key string, known []string) string {
	if !slices.Contains(known, n.Value) {
		s.problem(n, "%s %q is not one of %s%s", key, n.Value, strings.Join(known, ", "), didYouMean(n.Value, known))
	}
	return n.Value
}

func didYouMean(word string, known []string) string {
	if near := spelling.Nearest(word, known); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

func (s *suite) problem(n *yaml.Node, format string, args ...any) {
	s.problems = append(s.problems, Problem{n.Line, n.Column, fmt.Sprintf(format, args...)})
}

// members calls take for each member of a mapping whose key is known; known nil
// allows any key.
func (s *suite) members(n *yaml.Node, what string, known []string, take func(key string, value *yaml.Node)) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		s.problem(n, "%s should be a mapping of keys to values", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case seen[key.Value]:
			s.problem(key, "duplicate key %q in %s; remove one", key.Value, what)
		case known != nil && !slices.Contains(known, key.Value):
			s.problem(key, "unknown key %q in %s%s", key.Value, what, cmp.Or(didYouMean(key.Value, known), "; the keys are "+strings.Join(known, ", ")))
		default:
			seen[key.Value] = true
			take(key.Value, value)
		}
	}
}

func (s *suite) items(n *yaml.Node, problem string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		s.problem(n, "%s", problem)
		return nil
	}
	return n.Content
}

// decode reads a value into a field.
func (s *suite) decode(n *yaml.Node, key string, field any) {
	kind := "a whole number"
	switch field := field.(type) {
	case *string:
		*field = n.Value
		return
	case *[]string:
		kind = "a list of categories"
	case *bool:
		kind = "true or false"
	case *time.Time:
		kind = "a time such as 2026-03-04T09:15:27Z"
	}
	if err := n.Decode(field); err != nil {
		s.problem(n, "%s should be %s", key, kind)
	}
}

func (s *suite) json(n *yaml.Node) []byte {
	text, err := yamlToJSON(nil, n, 0)
	if err != nil {
		s.problem(n, "%v", err)
	}
	return text
}
