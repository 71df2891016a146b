package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// named are the flags for the keys people change most, by flag name. All
// other keys are reached through --set.
var named = []struct{ flag, path, usage string }{
	{"brokers", "kafka.brokers", "Kafka seed brokers, host:port, comma separated"},
	{"topics", "kafka.topics", "Kafka topics to read, comma separated"},
	{"group", "kafka.group", "Kafka consumer group"},
	{"log-level", "log.level", "debug, info, warn or error"},
	{"ops-address", "ops.address", "address of metrics, health and status, host:port"},
}

// AddFlags adds --config and --set to fs, and of the flags of single keys those
// that have an effect on the command: "brokers", "topics", "group", "log-level",
// "ops-address", and "topic", another name of "topics" that no help shows. Their
// values are picked up by FromFlags after fs has been parsed.
func AddFlags(fs *pflag.FlagSet, effective ...string) {
	fs.StringP("config", "c", DefaultFile, "configuration file; may be absent unless named here")
	fs.StringArray("set", nil, "set any key, as in --set delivery.drain=10s; repeatable; a secret is refused, name its file as in --set zerobus.client_secret_file=FILE")
	for _, n := range named {
		if slices.Contains(effective, n.flag) {
			fs.String(n.flag, "", n.usage+" ("+n.path+")")
		}
	}
	if slices.Contains(effective, "topic") {
		fs.String("topic", "", "same as --topics")
		_ = fs.MarkHidden("topic")
	}
}

// RefuseSecrets returns an error that joins one *Problem for each of the
// key=value pairs of --set that holds a secret: every user of the machine can
// read the command lines of its processes. An empty value is no secret.
func RefuseSecrets(sets []string) error {
	var all []error
	for _, set := range sets {
		path, value, _ := strings.Cut(set, "=")
		if f := lookup(strings.TrimSpace(path)); f != nil && f.secret() && value != "" {
			all = append(all, origin{source: "--set"}.problem(f.path, "", "is a secret, and other users of this machine can read the command line",
				"name a file that holds it with --set "+f.path+"_file=FILE, or put it into the variable "+f.env()))
		}
	}
	return errors.Join(all...)
}

// FromFlags returns the Options a parsed flag set and an environment (in the
// form of os.Environ) ask for. Flags that were not given change nothing.
func FromFlags(fs *pflag.FlagSet, environ []string) Options {
	o := Options{Env: environ, Flags: map[string]string{}}
	fs.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "config":
			o.File, o.FileRequired = f.Value.String(), true
		case "set":
			o.Sets, _ = fs.GetStringArray("set")
		default:
			if flagPath(f.Name) != "" {
				o.Flags[f.Name] = f.Value.String()
			}
		}
	})
	return o
}

func flagPath(name string) string {
	if name == "topic" {
		return "kafka.topic"
	}
	for _, n := range named {
		if n.flag == name {
			return n.path
		}
	}
	return ""
}

func (l *loader) readFlags(flags map[string]string) {
	given := newLayer()
	for _, name := range sorted(flags) {
		path := flagPath(name)
		if path == "" {
			l.problems = append(l.problems, &Problem{Key: "--" + name, Rule: "is not a flag of a configuration key", Remedy: "use --set section.key=value"})
			continue
		}
		l.take(given, path, raw{text: flags[name]}, origin{source: "--" + name})
	}
	l.merge(given)
}

func (l *loader) readSets(sets []string) {
	for _, set := range sets {
		// What is not understood is not repeated: it may hold a secret.
		path, value, ok := strings.Cut(set, "=")
		if path = strings.TrimSpace(path); !ok || path == "" {
			l.problems = append(l.problems, &Problem{Key: "--set", Rule: "must have the form section.key=value", Remedy: "as in --set delivery.drain=10s"})
			continue
		}
		from := origin{source: "--set"}
		if sections[path] {
			l.problems = append(l.problems, from.problem(path, "", "is a section, not a key", "name the key too, as in --set delivery.drain=10s"))
			continue
		}
		if lookup(path) == nil {
			l.unknown(path, from)
			continue
		}
		one := newLayer() // each on its own, so that the last one wins
		l.take(one, path, raw{text: value}, from)
		l.merge(one)
	}
}
