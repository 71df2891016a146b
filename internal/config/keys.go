package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/plaintext"
)

// field is one key of Config: its dotted path and where it lives.
type field struct {
	path  string
	index []int
	typ   reflect.Type
}

// keys holds every key of Config in the order of the structs; byPath finds one
// by its path; sections holds the paths of the structs between.
var keys, byPath, sections = schema()

// aliases are other spellings of a key: Kafka's own name for the seed brokers,
// and the singular that Signal's streaming integrations use.
var aliases = map[string]string{
	"kafka.bootstrap_servers": "kafka.brokers",
	"kafka.topic":             "kafka.topics",
}

// required are the keys without which nothing can be delivered. The client
// secret is not among them, since it has two keys; validate sees to it.
var required = map[string]string{
	"kafka.topics":          "the topic Signal writes its events to",
	"zerobus.workspace_url": "the address of your workspace, such as https://abc-12345.cloud.databricks.com",
	"zerobus.client_id":     "the application id of the service principal",
	"zerobus.catalog":       "the Unity Catalog name of the table",
	"zerobus.schema":        "the schema within the catalog",
	"zerobus.table":         "the table that receives the events",
}

func schema() ([]*field, map[string]*field, map[string]bool) {
	var all []*field
	paths, parents := map[string]*field{}, map[string]bool{}
	var add func(t reflect.Type, prefix string, index []int)
	add = func(t reflect.Type, prefix string, index []int) {
		for i := range t.NumField() {
			f := &field{
				path:  prefix + t.Field(i).Tag.Get("yaml"),
				index: append(index[:len(index):len(index)], i),
				typ:   t.Field(i).Type,
			}
			if f.typ.Kind() == reflect.Struct {
				parents[f.path] = true
				add(f.typ, f.path+".", f.index)
				continue
			}
			all = append(all, f)
			paths[f.path] = f
		}
	}
	add(reflect.TypeFor[Config](), "", nil)
	return all, paths, parents
}

// lookup finds a key by its path or another spelling of it.
func lookup(path string) *field {
	if to, ok := aliases[path]; ok {
		path = to
	}
	return byPath[path]
}

func (f *field) of(c *Config) reflect.Value { return reflect.ValueOf(c).Elem().FieldByIndex(f.index) }

func (f *field) secret() bool { return f.typ == reflect.TypeFor[Secret]() }

func (f *field) env() string { return envName(f.path) }

// text renders a value of the key as a person would write it; nothing of a
// secret.
func (f *field) text(c *Config) string {
	switch v := f.of(c).Interface().(type) {
	case Secret:
		return ""
	case []string:
		return strings.Join(v, ",")
	case time.Duration:
		return durationText(v)
	default:
		return fmt.Sprint(v)
	}
}

// durationText drops the zero minutes and seconds time.Duration prints: 1h,
// not 1h0m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// raw is a value as a source gave it: one text, or a list of texts.
type raw struct {
	text string
	list []string // not nil for a YAML sequence
}

func (r raw) String() string {
	if r.list != nil {
		return strings.Join(r.list, ",")
	}
	return r.text
}

// parse turns a raw value into one of the key's type. On failure rule and
// remedy say why.
func (f *field) parse(r raw) (value any, rule, remedy string) {
	if f.typ.Kind() == reflect.Slice {
		return parseList(r)
	}
	if r.list != nil {
		return nil, "must be a single value", "write it without a list"
	}
	text := strings.TrimSpace(r.text)
	switch f.typ {
	case reflect.TypeFor[Secret]():
		return Secret(plaintext.Secret(r.text)), "", "" // a secret may begin or end with a space, not with a line break
	case reflect.TypeFor[time.Duration]():
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, "must be a duration with its unit", "write it as 500ms, 45s or 2m"
		}
		return d, "", ""
	case reflect.TypeFor[Size]():
		size, err := ParseSize(text)
		if err != nil {
			return nil, err.Error(), "write it as 256KiB or 4MiB"
		}
		return size, "", ""
	}
	switch f.typ.Kind() {
	case reflect.Bool:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return nil, "must be true or false", "write true or false"
		}
		return b, "", ""
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, "must be a whole number", "write digits only"
		}
		return n, "", ""
	case reflect.Float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, "must be a number", "write it as 2500 or 0.5"
		}
		return n, "", ""
	}
	if options, closed := choices[f.path]; closed {
		if same := sameWord(text, options); same != "" {
			return same, "", ""
		}
		return nil, "must be one of " + strings.Join(options, ", "), choose(text, options)
	}
	return text, "", ""
}

func choose(text string, options []string) string {
	if near := nearest(text, options); near != "" {
		return "did you mean " + near + "?"
	}
	return "choose one of them"
}

func parseList(r raw) (any, string, string) {
	items := r.list
	if items == nil && strings.TrimSpace(r.text) != "" {
		items = strings.Split(r.text, ",")
	}
	list := make([]string, len(items)) // never nil, so that it prints as []
	for i, item := range items {
		if list[i] = strings.TrimSpace(item); list[i] == "" {
			return nil, "must not hold an empty item", "take out the stray comma or dash"
		}
	}
	return list, "", ""
}
