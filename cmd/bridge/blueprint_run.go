package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
)

// caseReport is what came of a file of tests.
type caseReport struct {
	File      string        `json:"file"`
	Blueprint string        `json:"blueprint"`
	Problems  []fileProblem `json:"problems,omitempty"` // of the file
	Faults    []fileProblem `json:"faults,omitempty"`   // of the blueprint
	Tests     []caseResult  `json:"tests,omitempty"`
	Updated   int           `json:"updated,omitempty"`
}

func (f caseReport) fine() bool {
	return len(f.Problems) == 0 && len(f.Faults) == 0 && !slices.ContainsFunc(f.Tests, func(t caseResult) bool { return !t.OK })
}

// caseResult is what came of one test.
type caseResult struct {
	Name   string   `json:"name"`
	Line   int      `json:"line"`
	Column int      `json:"column"`
	OK     bool     `json:"ok"`
	Diff   []string `json:"diff,omitempty"` // - wanted, + got
}

// became is an Out that keeps what became of the events of a record.
type became struct{ outcomes []wanted }

func (b *became) Buf() []byte          { return nil }
func (b *became) Row(extended []byte)  { b.outcomes = append(b.outcomes, wanted{row: extended}) }
func (b *became) Filter(reason string) { b.outcomes = append(b.outcomes, wanted{filter: reason}) }
func (b *became) Reject(code, column, _ string) {
	b.outcomes = append(b.outcomes, wanted{code: code, column: column})
}

// runCases runs the tests of a file whose names match. With update, those that
// fail are given what came out as what is wanted.
func runCases(file string, match *regexp.Regexp, update bool) caseReport {
	f := readCases(file)
	r := caseReport{File: file, Blueprint: f.blueprint, Problems: f.problems}
	if len(f.problems) > 0 {
		return r
	}
	m, err := f.compile()
	if err != nil {
		r.Faults = problemsOf(err)
		return r
	}
	mapper := m.NewMapper()
	for _, c := range f.cases {
		if match != nil && !match.MatchString(c.name) {
			continue
		}
		var got became
		mapper.Map(&c.record, &got)
		result := caseResult{Name: c.name, Line: c.node.Line, Column: c.node.Column, Diff: diffOutcomes(c.want, got.outcomes)}
		if result.OK = len(result.Diff) == 0; !result.OK && update {
			if err := c.rewrite(got.outcomes); err != nil {
				r.Problems = append(r.Problems, fileProblem{c.node.Line, c.node.Column, err.Error()})
				return r
			}
			r.Updated++
			result.OK, result.Diff = true, nil
		}
		r.Tests = append(r.Tests, result)
	}
	if r.Updated > 0 {
		if err := f.save(); err != nil {
			r.Problems = append(r.Problems, fileProblem{What: err.Error()})
		}
	}
	return r
}

func (f *caseFile) compile() (*mapping.Mapping, error) {
	plan := mapping.Default()
	if f.blueprint != "default" {
		data, err := plaintext.ReadFile(f.blueprint, plaintext.MaxText)
		if err != nil {
			return nil, fmt.Errorf("cannot be read: %w; put the blueprint beside its tests, or name it with blueprint: in %s", err, f.file)
		}
		if plan, err = mapping.Parse(f.blueprint, data); err != nil {
			return nil, err
		}
	}
	return plan.Compile(f.options)
}

// diffOutcomes returns nothing where all is as it should be.
func diffOutcomes(want, got []wanted) []string {
	var out []string
	for i := range max(len(want), len(got)) {
		var lines []string
		switch {
		case i >= len(want):
			lines = []string{"+ " + got[i].String()}
		case i >= len(got):
			lines = []string{"- " + want[i].String()}
		default:
			lines = diffOutcome(want[i], got[i])
		}
		if len(lines) > 0 && max(len(want), len(got)) > 1 {
			out = append(out, fmt.Sprintf("event %d of the batch", i))
		}
		out = append(out, lines...)
	}
	return out
}

func diffOutcome(want, got wanted) []string {
	if want.row == nil || got.row == nil {
		if want.row == nil && got.row == nil && want.code == got.code && want.filter == got.filter && (want.column == "" || want.column == got.column) {
			return nil
		}
		return []string{"- " + want.String(), "+ " + got.String()}
	}
	if sameJSON(want.row, got.row) {
		return nil
	}
	var out []string
	before, after := columnsOf(want.row), columnsOf(got.row)
	names := append([]string(nil), before.names...)
	for _, n := range after.names {
		if _, ok := before.values[n]; !ok {
			names = append(names, n)
		}
	}
	for _, n := range names {
		a, wants := before.values[n]
		b, has := after.values[n]
		if wants && has && sameJSON(a, b) {
			continue
		}
		if wants {
			out = append(out, fmt.Sprintf("- %s: %s", n, a))
		}
		if has {
			out = append(out, fmt.Sprintf("+ %s: %s", n, b))
		}
	}
	return out
}

// String says in one line what became, or should become, of an event.
func (w wanted) String() string {
	switch {
	case w.row != nil:
		return "row: " + string(w.row)
	case w.filter != "":
		return "filter: " + w.filter
	case w.column != "":
		return fmt.Sprintf("reject: %s, column: %s", w.code, w.column)
	}
	return "reject: " + w.code
}

// rowColumnsByName is a row taken apart.
type rowColumnsByName struct {
	names  []string // in the row's order
	values map[string]json.RawMessage
}

func columnsOf(row []byte) rowColumnsByName {
	out := rowColumnsByName{values: map[string]json.RawMessage{}}
	dec := json.NewDecoder(bytes.NewReader(row))
	if _, err := dec.Token(); err != nil {
		return out
	}
	for dec.More() {
		name, err := dec.Token()
		var value json.RawMessage
		if err != nil || dec.Decode(&value) != nil {
			return out
		}
		out.names = append(out.names, fmt.Sprint(name))
		out.values[fmt.Sprint(name)] = value
	}
	return out
}

// rewrite puts what came out in the place of what the test wanted.
func (c *blueprintCase) rewrite(got []wanted) error {
	n := c.node
	if n.Kind == yaml.AliasNode {
		return errors.New("is an alias, which --update does not rewrite; write the test out")
	}
	kept := []*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value {
		case "row", "reject", "column", "filter", "outcomes":
		default:
			kept = append(kept, n.Content[i], n.Content[i+1])
		}
	}
	n.Style &^= yaml.FlowStyle
	if !c.listed && len(got) == 1 {
		members, err := got[0].yaml()
		n.Content = append(kept, members...)
		return err
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, w := range got {
		members, err := w.yaml()
		if err != nil {
			return err
		}
		list.Content = append(list.Content, &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: members})
	}
	n.Content = append(kept, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "outcomes"}, list)
	return nil
}

func (w wanted) yaml() ([]*yaml.Node, error) {
	text := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
	switch {
	case w.row != nil:
		row, err := jsonToYAML(w.row)
		return []*yaml.Node{text("row"), row}, err
	case w.filter != "":
		return []*yaml.Node{text("filter"), text(w.filter)}, nil
	}
	out := []*yaml.Node{text("reject"), text(w.code)}
	if w.column != "" {
		out = append(out, text("column"), text(w.column))
	}
	return out, nil
}

// save writes the file in the place of the old one, as a whole or not at all.
func (f *caseFile) save() error {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(f.doc); err != nil {
		return fmt.Errorf("cannot be written: %w", err)
	}
	mode := os.FileMode(0o644)
	if info, err := os.Stat(f.file); err == nil {
		mode = info.Mode().Perm()
	}
	temp, err := os.CreateTemp(filepath.Dir(f.file), "."+filepath.Base(f.file)+".*")
	if err != nil {
		return fmt.Errorf("cannot be written: %w; --update needs to write to its folder", err)
	}
	_, err = temp.Write(b.Bytes())
	err = errors.Join(err, temp.Chmod(mode), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), f.file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot be written: %w", err), os.Remove(temp.Name()))
	}
	return nil
}

// findCases returns the files of tests that the arguments name: a file of
// tests, a blueprint with one beside it, or a folder to look through.
func findCases(args []string) ([]string, error) {
	var out []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		switch {
		case err != nil:
			return nil, &usageError{fmt.Errorf("%w; name a blueprint, a file of tests (*%s) or a folder", err, testSuffix)}
		case info.IsDir():
			found, err := casesBelow(arg)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		case strings.HasSuffix(arg, testSuffix):
			out = append(out, arg)
		default:
			tests := strings.TrimSuffix(arg, filepath.Ext(arg)) + testSuffix
			if _, err := os.Stat(tests); err != nil {
				return nil, &usageError{fmt.Errorf("%s has no tests beside it: %w; bridge blueprint init shows what they look like", arg, err)}
			}
			out = append(out, tests)
		}
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) == 0 {
		return nil, &usageError{fmt.Errorf("no tests (*%s) in %s; begin with bridge blueprint init", testSuffix, strings.Join(args, ", "))}
	}
	return out, nil
}

func casesBelow(dir string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(d.Name(), testSuffix):
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for tests: %w", err)
	}
	return out, nil
}
