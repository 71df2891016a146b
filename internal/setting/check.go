package setting

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"unicode"

	"github.com/datafly/bridge/internal/plaintext"
)

// Check compares one configuration with its rules. A section that has rules beyond
// its tags implements Check(*Check) on its pointer; it may bring values to their
// normal form. A key that has a problem, and any rule that involves it, is skipped.
type Check struct {
	Schema *Schema
	Root   any // pointer to the configuration
	// Partial allows keys to be missing.
	Partial bool
	// Files opens the files that are named, to see that they can be read.
	Files bool
	// Faulty holds the keys and sections that have a problem; "" is all of them.
	Faulty map[string]bool
	// Report receives each problem: the key, its value, what it breaks as a clause
	// that follows key and value, and what to do.
	Report func(key, value, rule, remedy string)
}

// Run checks the tags of all keys, then what sections check themselves, and that
// nothing is missing. Sections may fill keys, but none that is required under a
// condition: those are looked for before a section finds fault with the condition.
func (c *Check) Run() {
	for _, k := range c.Schema.Keys {
		c.tags(k)
	}
	for _, k := range c.Schema.Keys {
		if len(k.conditions) > 0 {
			c.required(k)
		}
	}
	for _, index := range append(slices.Clone(c.Schema.structs), nil) { // last, the configuration itself
		if s, ok := (&Key{index: index}).In(c.Root).Addr().Interface().(interface{ Check(*Check) }); ok {
			s.Check(c)
		}
	}
	for _, k := range c.Schema.Keys {
		c.required(k)
	}
}

// Complete sets the keys of root that are zero to their defaults, except booleans and
// those for which zero is a value, and returns a *Problem for each rule that is broken.
// It opens no file, and skips the given keys. It is for packages whose callers may not
// have loaded a configuration.
func (s *Schema) Complete(root any, skip ...string) []error {
	var problems []error
	c := &Check{Schema: s, Root: root, Faulty: map[string]bool{}, Report: func(key, value, rule, remedy string) {
		problems = append(problems, &Problem{Key: key, Value: Shortened(value), Rule: rule, Remedy: remedy})
	}}
	for _, key := range skip {
		c.Faulty[key] = true
	}
	for _, k := range s.Keys {
		if v := k.In(root); v.IsZero() && k.Type != "boolean" && !k.has("zero") {
			v.Set(k.parseTag("default"))
		}
	}
	c.Run()
	return problems
}

// OK reports whether none of the keys has a problem yet.
func (c *Check) OK(keys ...string) bool {
	return !slices.ContainsFunc(keys, c.faulty)
}

func (c *Check) faulty(path string) bool {
	for ; path != ""; path = path[:max(strings.LastIndexByte(path, '.'), 0)] {
		if c.Faulty[path] {
			return true
		}
	}
	return c.Faulty[""]
}

// Fail reports a problem at key with its value.
func (c *Check) Fail(key, rule, remedy string) {
	c.FailValue(key, c.Schema.Key(key).Text(c.Root), rule, remedy)
}

// FailValue is Fail for one item of a list, or a value shown in part.
func (c *Check) FailValue(key, value, rule, remedy string) {
	c.Report(key, value, rule, remedy)
	c.Faulty[key] = true
}

func (c *Check) tags(k *Key) {
	if k.Type == "secret" {
		c.secret(k)
	}
	if !c.OK(k.Path) {
		return
	}
	if why, remedy := c.Schema.withoutEffect(k, c.Root, c.OK); why != "" && k.refused && !k.isDefault(c.Root) {
		c.Fail(k.Path, "has no effect "+why, remedy)
		return
	}
	if text := k.Text(c.Root); k.Choices != nil && !slices.Contains(k.Choices, text) {
		_, rule, remedy := k.parseText(text)
		c.Fail(k.Path, rule, remedy)
		return
	}
	c.bounds(k)
	if alternative, named := k.tag.Lookup("readable"); named && k.In(c.Root).String() != "" && c.Files {
		if err := plaintext.Check(k.In(c.Root).String()); err != nil {
			c.Fail(k.Path, "cannot be read: "+Cause(err), "name a file this user can read; "+alternative)
		}
	}
	if items, _ := k.In(c.Root).Interface().([]string); k.has("unique") {
		for i, item := range items {
			if slices.Contains(items[:i], item) {
				c.FailValue(k.Path, item, "is listed twice", "list each one once")
				return
			}
		}
	}
}

func (c *Check) bounds(k *Key) {
	value := k.In(c.Root)
	if !k.has("max") || k.has("zero") && value.IsZero() {
		return
	}
	least, most := k.parseTag("min"), k.parseTag("max")
	if n := value.Int(); n < least.Int() || n > most.Int() {
		noun := map[string]string{"integer": "number"}[k.Type]
		c.Fail(k.Path, fmt.Sprintf("must be between %s and %s", k.textOf(least.Interface()), k.textOf(most.Interface())),
			"choose a "+cmp.Or(noun, k.Type)+" between them")
	}
}

// secret checks a secret and the key that names a file with it.
func (c *Check) secret(k *Key) {
	s := SecretSource{Key: k.Path, Value: k.In(c.Root).Interface().(Secret), File: c.Schema.Key(k.Path + "_file").In(c.Root).String()}
	file, other, otherFile := k.Path+"_file", k.tag.Get("or"), ""
	if other != "" {
		otherFile = c.Schema.Key(other).In(c.Root).String()
	}
	switch {
	case !c.OK(k.Alternatives()...):
	case otherFile != "" && s.Value != "":
		c.Fail(other, "must not be set together with "+s.Key, "keep one of the two")
	case otherFile != "" && s.File != "":
		c.Fail(other, "must not be set together with "+file, "keep one of the two")
	case otherFile != "" && c.Files:
		if _, err := readSecret(otherFile); err != nil {
			c.Fail(other, "cannot be used: "+Cause(err), "let it name a readable file that holds the token and nothing else")
		}
	case s.Value != "" && s.File != "":
		c.Fail(file, "must not be set together with "+s.Key, "keep one of the two")
	case s.Value != "" && strings.TrimSpace(s.Value.Reveal()) == "":
		c.Fail(s.Key, "is blank", "give the secret, or name the file that holds it in "+file)
	case s.File != "" && c.Files:
		if _, err := readSecret(s.File); err != nil {
			c.Fail(file, "cannot be used: "+Cause(err), "let it name a readable file that holds the secret and nothing else")
		}
	}
}

// required reports a key that is not set although it must be.
func (c *Check) required(k *Key) {
	what, required := k.tag.Lookup("required")
	if !required || c.Partial || k.In(c.Root).Len() > 0 || !c.OK(k.Path) {
		return
	}
	rule, remedy := "is required", fmt.Sprintf("set it to %s, in the file or as %s", what, k.Env)
	if why, _ := c.Schema.withoutEffect(k, c.Root, c.OK); why != "" {
		return
	}
	for _, on := range k.conditions {
		if !c.OK(on.path) {
			return
		}
		rule += " with " + on.path + " " + c.Schema.Key(on.path).Text(c.Root)
	}
	if k.Type == "secret" {
		for _, path := range k.Alternatives() {
			if c.Schema.Key(path).In(c.Root).Len() > 0 || !c.OK(path) {
				return
			}
		}
		remedy = fmt.Sprintf("set %s_file to a file that holds %s, or the secret itself as %s", k.Path, what, k.Env)
	}
	c.Fail(k.Path, rule, remedy)
}

// WithoutEffect returns why the key has no effect beside the values of others, as a
// clause that follows "has no effect", and what to do; "" where it has one or is at
// its default.
func (s *Schema) WithoutEffect(k *Key, root any) (why, remedy string) {
	if k.isDefault(root) {
		return "", ""
	}
	return s.withoutEffect(k, root, func(...string) bool { return true })
}

// withoutEffect evaluates the conditions of a key. One on a key that is not ok holds.
func (s *Schema) withoutEffect(k *Key, root any, ok func(...string) bool) (why, remedy string) {
	var want []string
	for _, on := range k.conditions {
		other := s.Key(on.path)
		value, last := other.Text(root), len(on.words)-1
		switch {
		case last < 0:
			want = append(want, "set "+on.path)
		case last == 0:
			want = append(want, "set "+on.path+" to "+on.words[0])
		default:
			want = append(want, "set "+on.path+" to "+strings.Join(on.words[:last], ", ")+" or "+on.words[last])
		}
		switch {
		case why != "" || !ok(on.path) || slices.Contains(on.words, value) || last < 0 && value != "":
		case last < 0:
			why = "without " + on.path
		case other.Type == "boolean":
			why = "while " + on.path + " is " + value
		default:
			why = "with " + on.path + " " + value
		}
	}
	return why, cmp.Or(k.tag.Get("remedy"), "take it out, or "+strings.Join(want, " and "))
}

func (k *Key) isDefault(root any) bool {
	value := k.In(root)
	if value.Kind() == reflect.Slice && value.Len() == 0 {
		return k.Default == ""
	}
	return reflect.DeepEqual(value.Interface(), k.parseTag("default").Interface())
}

// Cause returns the system's reason of an error about a file, without the path.
func Cause(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return err.Error()
}

// URL returns text as an address that credentials are sent to, or reports what is
// wrong with it and returns nil. Empty text, or a key with a problem, is nil
// without a report. A password inside it is not repeated.
func (c *Check) URL(key, text string) *url.URL {
	if text == "" || !c.OK(key) {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		if at := strings.LastIndexByte(text, '@'); at >= 0 {
			text = "..." + text[at:] // a password may be before it
		}
		c.FailValue(key, text, "must be a URL", "write it as https://host")
	case u.User != nil:
		c.FailValue(key, u.Redacted(), "must not hold a user or password", "take out everything up to the @")
	case u.Scheme == "http" && !Loopback(u.Hostname()):
		c.FailValue(key, text, "must be https, since the client secret travels to it; http is accepted to loopback hosts only",
			"write https://"+u.Host)
	case u.Scheme != "https" && u.Scheme != "http":
		c.FailValue(key, text, "must be an https URL", "write it as https://"+u.Host)
	case !validHost(u):
		c.FailValue(key, text, "must hold a valid host and port", "copy the address from the browser")
	default:
		return u
	}
	return nil
}

// BaseURL is URL for an address of which only scheme and host count; https may be
// left out. It returns them as scheme://host[:port], or text where it is no URL.
func (c *Check) BaseURL(key, text string) string {
	text = strings.TrimSpace(text)
	full := text
	if text != "" && !strings.Contains(text, "://") {
		full = "https://" + text
	}
	if u := c.URL(key, full); u != nil {
		return u.Scheme + "://" + u.Host
	}
	return text
}

func validHost(u *url.URL) bool {
	if p := u.Port(); p != "" && !validPort(p, 1) {
		return false
	}
	h := u.Hostname()
	return h != "" && !strings.ContainsFunc(h, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`"<>\^{|}`+"`", r)
	})
}

func validPort(text string, least int) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n >= least && n <= 65535
}

// SplitAddress splits host:port. ok is false where the port is missing, below least
// or above 65535.
func SplitAddress(text string, least int) (host string, ok bool) {
	host, port, err := net.SplitHostPort(text)
	return host, err == nil && validPort(port, least)
}

// Loopback reports whether a host is this machine. A name other than localhost is
// not: its address can change.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// Problem is one mistake in a configuration. The value of a secret key
// is never in it.
type Problem struct {
	Key    string // dotted path such as kafka.tls.ca_file; empty when the file as a whole is at fault
	Value  string // the offending value as given, shortened; empty when absent or secret
	Rule   string // what it breaks, as a clause that follows key and value
	Remedy string // what to do
	Source string // where the value came from: file name, environment variable, flag; empty for a default
	Line   int    // line in Source when that is the file, from 1; else 0
	// Integration names the integrations that have it; empty where it is of no one in
	// particular.
	Integration string
}

// UnknownKey is the rule about a key that does not exist.
const UnknownKey = "unknown key"

// Error returns one line: where, what, which rule, what to do.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.Source != "" {
		b.WriteString(p.Source)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Integration != "" {
		what := "integration "
		if strings.Contains(p.Integration, " ") {
			what = "integrations "
		}
		b.WriteString(what + p.Integration + ": ")
	}
	key := Shortened(p.Key) // what is no key can be as long as anybody likes
	switch {
	case p.Rule == UnknownKey:
		b.WriteString(p.Rule + " " + key)
	case p.Key == "":
		b.WriteString(p.Rule)
	case p.Value == "":
		b.WriteString(key + " " + p.Rule)
	default:
		fmt.Fprintf(&b, "%s %q %s", key, p.Value, p.Rule)
	}
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	// Keys and the names of variables come from outside as values do, and end in a
	// terminal.
	return plaintext.VisibleLine(b.String())
}

// Shortened shortens a value for a message.
func Shortened(value string) string {
	const most = 120
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "..."
	}
	return value
}
