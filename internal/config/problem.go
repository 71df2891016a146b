package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/datafly/bridge/internal/plaintext"
)

// Problem is one thing wrong with the configuration. The value of a secret key
// is never in it.
type Problem struct {
	Key    string // dotted path such as kafka.tls.ca_file; empty when the file as a whole is at fault
	Value  string // the offending value as given, shortened; empty when absent or secret
	Rule   string // what it breaks, as a clause that follows key and value
	Remedy string // what to do
	Source string // where the value came from: file name, environment variable, flag; empty for a default
	Line   int    // line in Source when that is the file, from 1; else 0
}

const unknownKey = "unknown key"

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
	key := shortened(p.Key) // what is no key can be as long as anybody likes
	switch {
	case p.Rule == unknownKey:
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

// Problems returns the problems joined in an error of Load, in the order they
// are printed; nil for any other error.
func Problems(err error) []*Problem {
	var one *Problem
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	if errors.As(err, &one) {
		return []*Problem{one}
	}
	return nil
}

// shortened shortens a value for a message.
func shortened(value string) string {
	const most = 120
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "..."
	}
	return value
}
