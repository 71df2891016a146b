package main

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

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
)

// testSuffix is how the file with a blueprint's tests ends: shop.yaml is tested
// by shop.test.yaml beside it.
const testSuffix = ".test.yaml"

// caseFile is a file of tests for a blueprint.
type caseFile struct {
	file      string
	doc       *yaml.Node // as read, for --update
	blueprint string     // path, or "default"
	options   mapping.Options
	cases     []*blueprintCase
	problems  []fileProblem
}

// blueprintCase is one test: a record, and what is to become of its events.
type blueprintCase struct {
	name   string
	node   *yaml.Node
	record mapping.Record
	want   []wanted
	listed bool // want stands in a list, outcomes
}

// wanted is what should become of one event; one of row, code and filter is set.
type wanted struct {
	row    []byte // JSON
	code   string // of the rejection
	column string // "" is any
	filter string
}

var (
	fileKeys    = []string{"blueprint", "options", "table", "tests"}
	caseKeys    = []string{"name", "event", "record", "row", "reject", "column", "filter", "outcomes"}
	outcomeKeys = []string{"row", "reject", "column", "filter"}
	optionKeys  = []string{"input", "invalid_utf8", "timestamp_fallback", "on_bad_timestamp", "timestamp_format", "require_consent", "on_missing_consent", "max_events_per_record", "optional"}
	recordKeys  = []string{"topic", "partition", "offset", "timestamp", "key", "headers"}
)

// maxCases bounds a file of tests, in bytes.
const maxCases = 64 << 20

// readCases reads a file of tests. What is wrong with it is in problems.
func readCases(file string) *caseFile {
	f := &caseFile{file: file, blueprint: strings.TrimSuffix(file, testSuffix) + ".yaml"}
	f.options = mapping.Options{ClusterID: "test", AllOptional: true}
	data, err := plaintext.ReadFile(file, maxCases)
	if err != nil {
		f.problems = append(f.problems, fileProblem{What: fmt.Sprintf("cannot be read: %v; name a readable file", err)})
		return f
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("is empty; write a list of tests")
		}
		f.problems = append(f.problems, fileProblem{What: strings.TrimPrefix(err.Error(), "yaml: ")})
		return f
	}
	f.doc = &doc
	f.members(doc.Content[0], "the file", fileKeys, func(key string, value *yaml.Node) {
		switch key {
		case "blueprint":
			if f.blueprint = value.Value; value.Value != "default" {
				f.blueprint = filepath.Join(filepath.Dir(file), value.Value)
			}
		case "options":
			f.members(value, "options", optionKeys, func(key string, value *yaml.Node) { f.option(key, value) })
		case "table":
			f.options.Table = []mapping.Column{}
			f.members(value, "table", nil, func(name string, value *yaml.Node) {
				typ, notNull := strings.CutSuffix(value.Value, " NOT NULL")
				f.options.Table = append(f.options.Table, mapping.Column{Name: name, Type: typ, NotNull: notNull})
			})
		case "tests":
			if value.Kind != yaml.SequenceNode {
				f.problem(value, "tests should be a list")
				return
			}
			for _, item := range value.Content {
				f.cases = append(f.cases, f.testCase(item, len(f.cases)+1))
			}
		}
	})
	if len(f.cases) == 0 && len(f.problems) == 0 {
		f.problem(doc.Content[0], "has no tests; write tests: with an event and its row")
	}
	return f
}

func (f *caseFile) problem(n *yaml.Node, format string, args ...any) {
	f.problems = append(f.problems, fileProblem{n.Line, n.Column, fmt.Sprintf(format, args...)})
}

// members hands the members of a mapping to take; those that are not among the
// known ones are problems. No known ones means that any name will do.
func (f *caseFile) members(n *yaml.Node, what string, known []string, take func(key string, value *yaml.Node)) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		f.problem(n, "%s should be a mapping of keys to values", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case seen[key.Value]:
			f.problem(key, "%q stands twice in %s; remove one", key.Value, what)
		case known != nil && !slices.Contains(known, key.Value):
			f.problem(key, "unknown key %q in %s%s", key.Value, what, cmp.Or(didYouMean(key.Value, known), "; the keys are "+strings.Join(known, ", ")))
		default:
			seen[key.Value] = true
			take(key.Value, value)
		}
	}
}

// didYouMean is a clause that names the word a misspelt one stands for, or "".
func didYouMean(word string, known []string) string {
	if near := config.Nearest(word, known); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// decode reads a value of a Go type.
func (f *caseFile) decode(n *yaml.Node, what, kind string, to any) {
	if err := n.Decode(to); err != nil {
		f.problem(n, "%s should be %s", what, kind)
	}
}

func (f *caseFile) option(key string, n *yaml.Node) {
	o := &f.options
	switch key {
	case "input":
		o.Input = n.Value
	case "invalid_utf8":
		o.InvalidUTF8 = n.Value
	case "timestamp_fallback":
		o.TimestampFallback = n.Value
	case "on_bad_timestamp":
		o.OnBadTimestamp = n.Value
	case "timestamp_format":
		o.TimestampFormat = n.Value
	case "on_missing_consent":
		o.OnMissingConsent = n.Value
	case "require_consent":
		f.decode(n, "require_consent", "a list of categories", &o.RequireConsent)
	case "max_events_per_record":
		f.decode(n, "max_events_per_record", "a whole number", &o.MaxEvents)
	case "optional":
		f.decode(n, "optional", "true or false", &o.AllOptional)
	}
}

func (f *caseFile) testCase(n *yaml.Node, number int) *blueprintCase {
	c := &blueprintCase{name: fmt.Sprintf("test %d", number), node: n}
	c.record = mapping.Record{Topic: "test", Timestamp: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	var one wanted
	event := false
	f.members(n, "a test", caseKeys, func(key string, value *yaml.Node) {
		switch key {
		case "name":
			c.name = value.Value
		case "event":
			event = true
			c.record.Value = f.event(value)
		case "record":
			f.members(value, "record", recordKeys, func(key string, value *yaml.Node) { f.recordKey(&c.record, key, value) })
		case "outcomes":
			c.listed = true
			if value.Kind != yaml.SequenceNode {
				f.problem(value, "outcomes should be a list with one row, reject or filter for each event of the batch")
				return
			}
			for _, item := range value.Content {
				var w wanted
				f.members(item, "an outcome", outcomeKeys, func(key string, value *yaml.Node) { f.outcome(&w, key, value) })
				c.want = append(c.want, w)
			}
		default:
			f.outcome(&one, key, value)
		}
	})
	if !event {
		f.problem(n, "%s has no event; write event: with an object, a text, or null for a tombstone", c.name)
	}
	if !c.listed && (one.row != nil || one.code != "" || one.filter != "") {
		c.want = []wanted{one}
	}
	return c
}

// event is an object or array of YAML as JSON, a text as it is, or null.
func (f *caseFile) event(n *yaml.Node) []byte {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str":
		return []byte(n.Value)
	}
	return f.json(n)
}

func (f *caseFile) json(n *yaml.Node) []byte {
	text, err := yamlToJSON(nil, n, 0)
	if err != nil {
		f.problem(n, "%v", err)
	}
	return text
}

func (f *caseFile) outcome(w *wanted, key string, n *yaml.Node) {
	switch key {
	case "row":
		if n.Kind != yaml.MappingNode {
			f.problem(n, "row should be a mapping of columns to values")
			return
		}
		w.row = f.json(n)
	case "reject":
		if w.code = n.Value; !slices.Contains(mapping.RejectCodes(), w.code) {
			f.problem(n, "reject %q is not one of %s%s", w.code, strings.Join(mapping.RejectCodes(), ", "), didYouMean(w.code, mapping.RejectCodes()))
		}
	case "column":
		w.column = n.Value
	case "filter":
		if w.filter = n.Value; !slices.Contains(mapping.FilterReasons(), w.filter) {
			f.problem(n, "filter %q is not one of %s%s", w.filter, strings.Join(mapping.FilterReasons(), ", "), didYouMean(w.filter, mapping.FilterReasons()))
		}
	}
	if set := btoi(w.row != nil) + btoi(w.code != "") + btoi(w.filter != ""); set > 1 {
		f.problem(n, "an event becomes a row, is rejected or is filtered; keep one of row, reject and filter")
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (f *caseFile) recordKey(r *mapping.Record, key string, n *yaml.Node) {
	switch key {
	case "topic":
		r.Topic = n.Value
	case "partition":
		f.decode(n, key, "a whole number", &r.Partition)
	case "offset":
		f.decode(n, key, "a whole number", &r.Offset)
	case "timestamp":
		f.decode(n, key, "a time such as 2026-03-04T09:15:27Z", &r.Timestamp)
	case "key":
		r.Key = []byte(n.Value)
	case "headers":
		f.members(n, key, nil, func(name string, value *yaml.Node) {
			r.Headers = append(r.Headers, mapping.Header{Key: name, Value: []byte(value.Value)})
		})
	}
}
