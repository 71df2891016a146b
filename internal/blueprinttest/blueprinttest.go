// Package blueprinttest runs the tests that users write beside their blueprints:
// events, and the row, rejection or filter each should end with.
// docs/blueprint.md describes the form of the files.
package blueprinttest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
)

// Suffix ends the name of a test file: shop.test.yaml tests the shop.yaml beside it.
const Suffix = ".test.yaml"

// Problem is one mistake in a file. Line and Column count from 1; they are 0
// where the whole file is meant.
type Problem struct {
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	What   string `json:"what"` // ends with the remedy
}

// Problems returns the mistakes that errors.Join has joined, in its order.
func Problems(err error) []Problem {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []Problem
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	if p, ok := errors.AsType[*mapping.Problem](err); ok {
		return []Problem{{p.Line, p.Col, p.What}}
	}
	return []Problem{{What: err.Error()}}
}

// Report is the result of one test file.
type Report struct {
	File      string    `json:"file"`
	Blueprint string    `json:"blueprint"`
	Problems  []Problem `json:"problems,omitempty"` // of the file
	Faults    []Problem `json:"faults,omitempty"`   // of the blueprint
	Tests     []Result  `json:"tests,omitempty"`
	Updated   int       `json:"updated,omitempty"`
}

// OK reports whether the file has no problem and no test failed.
func (r *Report) OK() bool {
	return len(r.Problems)+len(r.Faults) == 0 && !slices.ContainsFunc(r.Tests, func(t Result) bool { return !t.OK })
}

// Result is that of one test.
type Result struct {
	Name   string   `json:"name"`
	Line   int      `json:"line"`
	Column int      `json:"column"`
	OK     bool     `json:"ok"`
	Diff   []string `json:"diff,omitempty"` // lines: - wanted, + actual
}

// Find returns the test files that the arguments name: a test file, a blueprint
// with one beside it, or a folder, which is searched with all below it.
func Find(args []string) ([]string, error) {
	var out []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w; name a blueprint, a file of tests (*%s) or a folder", err, Suffix)
		case info.IsDir():
			if out, err = walk(arg, out); err != nil {
				return nil, fmt.Errorf("looking for tests: %w", err)
			}
		case strings.HasSuffix(arg, Suffix):
			out = append(out, arg)
		default:
			tests := strings.TrimSuffix(arg, filepath.Ext(arg)) + Suffix
			if _, err := os.Stat(tests); err != nil {
				return nil, fmt.Errorf("%s has no tests beside it: %w; bridge blueprint init shows what they look like", arg, err)
			}
			out = append(out, tests)
		}
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) == 0 {
		return nil, fmt.Errorf("no tests (*%s) in %s; begin with bridge blueprint init", Suffix, strings.Join(args, ", "))
	}
	return out, nil
}

func walk(dir string, found []string) ([]string, error) {
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(d.Name(), Suffix):
			found = append(found, path)
		}
		return nil
	})
	return found, err
}

// Run runs the tests of a file whose names match; nil matches all. With update,
// the actual outcomes replace the wanted ones of tests that fail.
func Run(file string, match *regexp.Regexp, update bool) Report {
	s := read(file)
	r := Report{File: file, Blueprint: s.blueprint, Problems: s.problems}
	if len(s.problems) > 0 {
		return r
	}
	m, err := s.compile()
	if err != nil {
		r.Faults = Problems(err)
		return r
	}
	mapper := m.NewMapper()
	for _, t := range s.tests {
		if match != nil && !match.MatchString(t.name) {
			continue
		}
		var got outcomes
		mapper.Map(&t.record, &got)
		result := Result{Name: t.name, Line: t.node.Line, Column: t.node.Column, Diff: diff(t.want, got)}
		if result.OK = len(result.Diff) == 0; !result.OK && update {
			if err := t.update(got); err != nil {
				r.Problems = append(r.Problems, Problem{t.node.Line, t.node.Column, err.Error()})
				return r
			}
			r.Updated++
			result.OK, result.Diff = true, nil
		}
		r.Tests = append(r.Tests, result)
	}
	if r.Updated > 0 {
		if err := s.save(); err != nil {
			r.Problems = append(r.Problems, Problem{What: "cannot be written: " + err.Error() + "; --update writes to the folder of the file"})
		}
	}
	return r
}

func (s *suite) compile() (*mapping.Mapping, error) {
	data, builtin := mapping.Builtin(s.blueprint)
	if !builtin {
		var err error
		if data, err = plaintext.ReadFile(s.blueprint, plaintext.MaxText); err != nil {
			return nil, fmt.Errorf("cannot be read: %w; put the blueprint beside its tests, or name it with blueprint: in %s", err, s.file)
		}
	}
	plan, err := mapping.Parse(s.blueprint, data)
	if err != nil {
		return nil, err
	}
	return plan.Compile(s.options)
}

// outcomes implements mapping.Out and keeps the outcomes of a record's events.
type outcomes []outcome

func (o *outcomes) Buf() []byte          { return nil }
func (o *outcomes) Row(extended []byte)  { *o = append(*o, outcome{row: extended}) }
func (o *outcomes) Filter(reason string) { *o = append(*o, outcome{filter: reason}) }
func (o *outcomes) Reject(code, column, _ string) {
	*o = append(*o, outcome{code: code, column: column})
}

// diff returns nothing where every outcome is the wanted one.
func diff(want, got []outcome) []string {
	var out []string
	count := max(len(want), len(got))
	for i := range count {
		var lines []string
		switch {
		case i >= len(want):
			lines = []string{"+ " + got[i].String()}
		case i >= len(got):
			lines = []string{"- " + want[i].String()}
		default:
			lines = want[i].diff(got[i])
		}
		if len(lines) > 0 && count > 1 {
			out = append(out, fmt.Sprintf("event %d of the batch", i))
		}
		out = append(out, lines...)
	}
	return out
}

func (o outcome) diff(got outcome) []string {
	switch {
	case o.row != nil && got.row != nil:
	case o.row == nil && got.row == nil && o.code == got.code && o.filter == got.filter && (o.column == "" || o.column == got.column):
		return nil
	default:
		return []string{"- " + o.String(), "+ " + got.String()}
	}
	var out []string
	want, have := members(o.row), members(got.row)
	for _, m := range want {
		at := slices.IndexFunc(have, func(h member) bool { return h.name == m.name })
		if at >= 0 && sameJSON(m.value, have[at].value) {
			continue
		}
		out = append(out, fmt.Sprintf("- %s: %s", m.name, m.value))
		if at >= 0 {
			out = append(out, fmt.Sprintf("+ %s: %s", m.name, have[at].value))
		}
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(m member) bool { return m.name == h.name }) {
			out = append(out, fmt.Sprintf("+ %s: %s", h.name, h.value))
		}
	}
	return out
}

// String returns the outcome on one line.
func (o outcome) String() string {
	switch {
	case o.row != nil:
		return "row: " + string(o.row)
	case o.filter != "":
		return "filter: " + o.filter
	case o.column != "":
		return fmt.Sprintf("reject: %s, column: %s", o.code, o.column)
	}
	return "reject: " + o.code
}

type member struct {
	name  string
	value jsontext.Value
}

// members returns the columns of a row in its order.
func members(row []byte) []member {
	dec := jsontext.NewDecoder(bytes.NewReader(row), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
	var out []member
	if _, err := dec.ReadToken(); err != nil {
		return nil
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return out
		}
		m := member{name: name.String()}
		if m.value, err = dec.ReadValue(); err != nil {
			return out
		}
		m.value = m.value.Clone()
		out = append(out, m)
	}
	return out
}

// update replaces the wanted outcomes of the test in the document.
func (t *test) update(got []outcome) error {
	n := t.node
	if n.Kind == yaml.AliasNode {
		return errors.New("is an alias, which --update does not rewrite; write the test out")
	}
	kept := []*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i].Value; key != "outcomes" && !slices.Contains(outcomeKeys, key) {
			kept = append(kept, n.Content[i], n.Content[i+1])
		}
	}
	n.Style &^= yaml.FlowStyle
	if !t.listed && len(got) == 1 {
		members, err := got[0].yaml()
		n.Content = append(kept, members...)
		return err
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, o := range got {
		members, err := o.yaml()
		if err != nil {
			return err
		}
		list.Content = append(list.Content, &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: members})
	}
	n.Content = append(kept, text("outcomes"), list)
	return nil
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func (o outcome) yaml() ([]*yaml.Node, error) {
	switch {
	case o.row != nil:
		row, err := jsonToYAML(o.row)
		return []*yaml.Node{text("row"), row}, err
	case o.filter != "":
		return []*yaml.Node{text("filter"), text(o.filter)}, nil
	case o.column != "":
		return []*yaml.Node{text("reject"), text(o.code), text("column"), text(o.column)}, nil
	}
	return []*yaml.Node{text("reject"), text(o.code)}, nil
}

// save replaces the file, as a whole or not at all.
func (s *suite) save() error {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(s.doc); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if info, err := os.Stat(s.file); err == nil {
		mode = info.Mode().Perm()
	}
	temp, err := os.CreateTemp(filepath.Dir(s.file), "."+filepath.Base(s.file)+".*")
	if err != nil {
		return err
	}
	_, err = temp.Write(b.Bytes())
	err = errors.Join(err, temp.Chmod(mode), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), s.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}
