package mapping

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"github.com/datafly/bridge/internal/spelling"
)

//go:embed default.yaml retail.yaml
var builtinFiles embed.FS

// Builtins returns the names of the built-in blueprints, default first.
func Builtins() []string { return []string{"default", "retail"} }

// Builtin returns the text of a built-in blueprint, and whether there is one of that name.
func Builtin(name string) ([]byte, bool) {
	if !slices.Contains(Builtins(), name) {
		return nil, false
	}
	text, err := builtinFiles.ReadFile(name + ".yaml")
	return text, err == nil
}

// Blueprint is a parsed blueprint: valid in itself, not yet compared with a
// table. It is not changed after Parse and may be shared.
type Blueprint struct {
	// Name and Description are for people; empty where the document has none.
	Name, Description string

	file     string
	global   []rule
	defaults []rule // for events without a section
	drop     bool   // events without a section are dropped
	filters  []*expression
	sections []section
}

// section is the part of a blueprint for one event name or type.
type section struct {
	names   []string // as written; the first is shown to people
	enabled bool
	rules   []rule
	filters []*expression
}

// rule is one mapping item: what feeds a column.
type rule struct {
	at       Position
	target   string
	drop     bool // source: null or enabled: false: the column is removed
	sources  []sourcePath
	expr     *expression // in the place of sources
	chain    []transform
	fallback *literal // default_value
	lookup   map[string]literal
	star     *literal // value_map's "*"
	typ      *deltaType
	optional bool
}

// sourcePath is one place a column may be fed from.
type sourcePath struct {
	text   string
	steps  []step
	kafka  kafkaField // set for $kafka sources, then steps is empty
	header string
}

// kafkaField is a part of the Kafka record that is not in its value.
type kafkaField uint8

const (
	notKafka kafkaField = iota
	kafkaTopic
	kafkaPartition
	kafkaOffset
	kafkaTimestamp
	kafkaKey
	kafkaUUID
	kafkaHeader
)

var kafkaFields = map[string]kafkaField{"topic": kafkaTopic, "partition": kafkaPartition, "offset": kafkaOffset,
	"timestamp": kafkaTimestamp, "key": kafkaKey, "uuid": kafkaUUID}

// literal is a constant of the blueprint.
type literal struct {
	at   Position
	v    val
	null bool
}

// Position is a place in a blueprint file; lines and columns count from 1.
type Position struct {
	File      string
	Line, Col int
}

func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// Problem is one thing wrong with a blueprint. Parse and Compile join all the
// problems they find with errors.Join.
type Problem struct {
	Position
	What string // lower case, with what to do about it
}

func (p *Problem) Error() string { return p.Position.String() + ": " + p.What }

// Default returns the built-in blueprint, which fills the 13 columns of the
// default table and, where the table has them, page_title and search_query.
func Default() *Blueprint { return parseBuiltin("default") }

func parseBuiltin(name string) *Blueprint {
	text, _ := Builtin(name)
	b, err := Parse(name+".yaml", text)
	if err != nil {
		panic("the built-in blueprint does not parse: " + err.Error()) // a test would have shown it
	}
	return b
}

// extend lays b over the blueprint it extends.
func (b *Blueprint) extend(under *Blueprint, setsAction bool) {
	b.global = overlay(under.global, b.global)
	b.defaults = overlay(under.defaults, b.defaults)
	if !setsAction {
		b.drop = under.drop
	}
	b.filters = slices.Concat(under.filters, b.filters)
	sections := slices.Clone(under.sections)
	for _, s := range b.sections {
		i := findSection(sections, s.names[0])
		if i < 0 {
			sections = append(sections, s)
			continue
		}
		old := sections[i]
		merged := section{names: old.names, enabled: s.enabled,
			rules: overlay(old.rules, s.rules), filters: slices.Concat(old.filters, s.filters)}
		if !slices.Contains(old.names, s.names[0]) {
			merged.names = append(slices.Clone(old.names), s.names[0])
		}
		sections[i] = merged
	}
	b.sections = sections
}

// findSection returns the section with the name, else the one whose name is
// the same in snake_case, else -1.
func findSection(sections []section, name string) int {
	for i, s := range sections {
		if slices.Contains(s.names, name) {
			return i
		}
	}
	folded := snake(name)
	for i, s := range sections {
		for _, n := range s.names {
			if snake(n) == folded {
				return i
			}
		}
	}
	return -1
}

func snake(name string) string { return string(appendSnake(nil, []byte(name))) }

// overlay lays rules over others: the same target replaces the rule in its
// place, a new target is added at the end. Rules that remove a column stay in
// the list, so that a layer above can bring the column back.
func overlay(under, over []rule) []rule {
	out := slices.Clone(under)
	for _, r := range over {
		i := slices.IndexFunc(out, func(o rule) bool { return strings.EqualFold(o.target, r.target) })
		if i < 0 {
			out = append(out, r)
		} else {
			out[i] = r
		}
	}
	return out
}

// nearest returns the known word closest to the given one, or "" where more than
// half of it would have to change.
func nearest(word string, known []string) string {
	if closest, slips := spelling.Closest(word, known); slips <= len(word)/2 {
		return closest
	}
	return ""
}
