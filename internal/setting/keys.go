// Package setting is how a package defines the keys that configure it: a struct
// named Settings (or after its section), whose fields are the keys, with their
// names, defaults and rules in tags. What a tag cannot say is in a method
// Check(*Check) of the struct. internal/config reads the values from their sources.
//
// Tags of a key:
//
//	yaml            its name; "-" is no key
//	default         its value when no source sets it, as a person writes it
//	choices         a closed set of words, separated by commas
//	min, max        bounds of an integer, a duration or a size, both included
//	zero            "true": zero is allowed besides what lies within the bounds
//	unique          "true": no item of the list may be repeated
//	document        "true": the text has several lines and is kept as it is
//	readable        the value names a file that must be readable; the text is the
//	                alternative to naming one
//	required        the key must be set, or the file of a secret; the text
//	                describes the value
//	when            key=word,word[;key=word]: the key has an effect only then, and
//	                setting it otherwise is reported. true and false are the words
//	                of booleans; without =, that key must not be empty. A name
//	                without a dot is a key of the same section
//	only_when       the same, and setting the key otherwise is an error. On a section,
//	                for all its keys. A required key is required only when it has
//	                an effect
//	remedy          replaces the remedy for a key without effect
//	live            "true": a new value takes effect while the process runs. Other
//	                keys need a restart, except secrets
//	with            of a secret: it is replaced while the process runs unless one of
//	                these keys has changed as well
//	or              of a secret: the path of a key that names another file in its place
//	scope           process: the key is of the process and not of one integration. On a
//	                section, for all its keys but those with the scope integration
package setting

import (
	"cmp"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/spelling"
)

// Key is one key of a configuration.
type Key struct {
	Path     string   // dotted, such as kafka.tls.ca_file
	Env      string   // the environment variable that sets it
	Type     string   // text, secret, list, duration, size, boolean, integer or number
	Default  string   // as a person would write it; empty where there is none
	Choices  []string // nil unless the set is closed
	Required bool     // nothing can be delivered without it
	Process  bool     // of the process: all integrations of a deployment share its value

	tag        reflect.StructTag
	typ        reflect.Type
	index      []int
	conditions []condition // all must hold, or the key has no effect
	refused    bool        // without effect, it is an error to set it
}

// condition is that another key has one of some words, or, without words, that it
// is not empty.
type condition struct {
	path  string
	words []string
}

// Schema holds the keys of a struct of sections.
type Schema struct {
	Keys     []*Key // in the order of the structs
	Sections map[string]bool
	byPath   map[string]*Key
	structs  [][]int // indexes of the sections, in the same order
}

// SchemaOf returns the schema of a configuration of type T. It panics on a tag that
// does not fit the field.
func SchemaOf[T any]() *Schema {
	s := &Schema{Sections: map[string]bool{}, byPath: map[string]*Key{}}
	s.add(reflect.TypeFor[T](), "", nil, nil, "")
	return s
}

func (s *Schema) add(t reflect.Type, prefix string, index []int, only []condition, scope string) {
	for i := range t.NumField() {
		field := t.Field(i)
		name := field.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		path, at := prefix+name, append(index[:len(index):len(index)], i)
		within := cmp.Or(field.Tag.Get("scope"), scope)
		refusing := append(only[:len(only):len(only)], conditions(field.Tag.Get("only_when"), prefix)...)
		if field.Type.Kind() == reflect.Struct {
			s.Sections[path] = true
			s.structs = append(s.structs, at)
			s.add(field.Type, path+".", at, refusing, within)
			continue
		}
		k := &Key{Path: path, Env: EnvName(path), Type: typeName(field.Type), Process: within == "process", tag: field.Tag, typ: field.Type, index: at,
			conditions: append(refusing, conditions(field.Tag.Get("when"), prefix)...), refused: len(refusing) > 0}
		if words := k.tag.Get("choices"); words != "" {
			k.Choices = strings.Split(words, ",")
		}
		k.Required = k.has("required") && k.Type != "secret" && len(k.conditions) == 0
		k.Default = k.textOf(k.parseTag("default").Interface())
		s.Keys = append(s.Keys, k)
		s.byPath[path] = k
	}
}

func conditions(tag, prefix string) []condition {
	var all []condition
	for text := range strings.FieldsFuncSeq(tag, func(r rune) bool { return r == ';' }) {
		path, words, _ := strings.Cut(text, "=")
		all = append(all, condition{absolute(path, prefix), strings.FieldsFunc(words, func(r rune) bool { return r == ',' })})
	}
	return all
}

// absolute returns the path of a key that a tag of a section names.
func absolute(name, prefix string) string {
	if strings.Contains(name, ".") {
		return name
	}
	return prefix + name
}

// Key returns the key with that path, or nil.
func (s *Schema) Key(path string) *Key { return s.byPath[path] }

// SetDefaults sets every key of root, a pointer to the struct, to its default.
func (s *Schema) SetDefaults(root any) {
	for _, k := range s.Keys {
		k.In(root).Set(k.parseTag("default"))
	}
}

// EnvName returns the environment variable that sets the key with that path.
func EnvName(path string) string {
	return "BRIDGE_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// In returns the key's value in root, a pointer to the struct.
func (k *Key) In(root any) reflect.Value { return reflect.ValueOf(root).Elem().FieldByIndex(k.index) }

// Live reports whether a new value takes effect while the process runs.
func (k *Key) Live() bool { return k.has("live") }

// About describes the value of a key that must be set; empty for others.
func (k *Key) About() string { return k.tag.Get("required") }

// With returns the keys without which a secret is not replaced.
func (k *Key) With() []string {
	var paths []string
	for name := range strings.FieldsFuncSeq(k.tag.Get("with"), func(r rune) bool { return r == ',' }) {
		paths = append(paths, absolute(name, k.Path[:strings.LastIndexByte(k.Path, '.')+1]))
	}
	return paths
}

// Alternatives returns the keys of which one gives a secret: its own, that of its file
// and the one of its tag or.
func (k *Key) Alternatives() []string {
	paths := []string{k.Path, k.Path + "_file"}
	if other := k.tag.Get("or"); other != "" {
		paths = append(paths, other)
	}
	return paths
}

// Text returns the key's value in root as a person would write it; nothing of a
// secret.
func (k *Key) Text(root any) string { return k.textOf(k.In(root).Interface()) }

func (k *Key) textOf(value any) string {
	switch v := value.(type) {
	case Secret:
		return ""
	case []string:
		return strings.Join(v, ",")
	case time.Duration:
		return DurationText(v)
	}
	return fmt.Sprint(value)
}

// DurationText returns a duration without the zero minutes and seconds that its
// String method has: 1h, not 1h0m0s.
func DurationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Same reports whether the key has the same value in a and b.
func (k *Key) Same(a, b any) bool { return reflect.DeepEqual(k.In(a).Interface(), k.In(b).Interface()) }

func (k *Key) has(tag string) bool { _, ok := k.tag.Lookup(tag); return ok }

// parseTag returns the value that a tag holds, zero without one.
func (k *Key) parseTag(tag string) reflect.Value {
	text := k.tag.Get(tag)
	if text == "" && k.typ.Kind() != reflect.Slice {
		return reflect.Zero(k.typ)
	}
	value, rule, _ := k.Parse(text, nil)
	if rule != "" {
		panic(fmt.Sprintf("tag %s of %s: %s", tag, k.Path, rule))
	}
	return reflect.ValueOf(value)
}

func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Secret]():
		return "secret"
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	}
	return map[reflect.Kind]string{reflect.String: "text", reflect.Slice: "list", reflect.Bool: "boolean",
		reflect.Int: "integer", reflect.Float64: "number"}[t.Kind()]
}

// Parse turns text, or the items of a list where list is not nil, into a value of
// the key's type. On failure rule and remedy say why.
func (k *Key) Parse(text string, list []string) (value any, rule, remedy string) {
	if k.Type == "list" {
		return parseList(text, list)
	}
	if list != nil {
		return nil, "must be a single value", "write it without a list"
	}
	if k.Type == "secret" { // may begin or end with a space, not with a line break
		return Secret(plaintext.Secret(text)), "", ""
	}
	if k.has("document") {
		return text, "", ""
	}
	text = strings.TrimSpace(text)
	var err error
	switch k.Type {
	case "duration":
		value, err = time.ParseDuration(text)
		rule, remedy = "must be a duration with its unit", "write it as 500ms, 45s or 2m"
	case "size":
		if value, err = ParseSize(text); err != nil {
			rule, remedy = err.Error(), "write it as 256KiB or 4MiB"
		}
	case "boolean":
		value, err = strconv.ParseBool(strings.ToLower(text))
		rule, remedy = "must be true or false", "write true or false"
	case "integer":
		value, err = strconv.Atoi(text)
		rule, remedy = "must be a whole number", "write digits only"
	case "number":
		value, err = strconv.ParseFloat(text, 64)
		rule, remedy = "must be a number", "write it as 2500 or 0.5"
	default:
		return k.parseText(text)
	}
	if err != nil {
		return nil, rule, remedy
	}
	return value, "", ""
}

func (k *Key) parseText(text string) (value any, rule, remedy string) {
	if k.Choices == nil {
		return text, "", ""
	}
	if same := spelling.Same(text, k.Choices); same != "" {
		return same, "", ""
	}
	remedy = "choose one of them"
	if near := spelling.Nearest(text, k.Choices); near != "" {
		remedy = "did you mean " + near + "?"
	}
	return nil, "must be one of " + strings.Join(k.Choices, ", "), remedy
}

func parseList(text string, items []string) (value any, rule, remedy string) {
	if items == nil && strings.TrimSpace(text) != "" {
		items = strings.Split(text, ",")
	}
	list := make([]string, len(items)) // never nil, so that it prints as []
	for i, item := range items {
		if list[i] = strings.TrimSpace(item); list[i] == "" {
			return nil, "must not hold an empty item", "take out the stray comma or dash"
		}
	}
	return list, "", ""
}
