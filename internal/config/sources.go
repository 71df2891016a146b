package config

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/datafly/bridge/internal/setting"
)

// named are the flags for the keys people change most, by flag name. All
// other keys are reached through --set.
var named = []struct{ flag, path, usage string }{
	{"brokers", "kafka.brokers", "Kafka seed brokers, host:port, comma separated"},
	{"topics", "kafka.topics", "Kafka topics to read, comma separated"},
	{"group", "kafka.group", "Kafka consumer group"},
	{"log-level", "log.level", "debug, info, warn or error"},
	{"ops-address", "ops.address", "address of metrics, health and status, host:port"},
	{"workspace-url", "zerobus.workspace_url", "address of the workspace, such as https://abc-12345.cloud.databricks.com"},
	{"client-id", "zerobus.client_id", "application id of the service principal"},
	{"client-secret-file", "zerobus.client_secret_file", "file that holds the service principal's OAuth secret"},
	{"catalog", "zerobus.catalog", "catalog of the table"},
	{"schema", "zerobus.schema", "schema of the table"},
	{"table", "zerobus.table", "the table, or all of catalog.schema.table"},
}

// AddFlags adds --config and --set to fs, and of the flags of single keys those
// that have an effect on the command: those of named, "integration", and "topic",
// another name of "topics" that no help shows. Their values are picked up by FromFlags
// after fs has been parsed.
func AddFlags(fs *pflag.FlagSet, effective ...string) {
	fs.StringP("config", "c", DefaultFile, "configuration file; may be absent unless named here")
	fs.StringArray("set", nil, "set any key, as in --set delivery.drain=10s; repeatable; a secret is refused, name its file as in --set zerobus.client_secret_file=FILE")
	for _, n := range named {
		if slices.Contains(effective, n.flag) {
			fs.String(n.flag, "", n.usage+" ("+n.path+")")
		}
	}
	if slices.Contains(effective, "integration") {
		fs.String("integration", "", "name of one of several integrations in the configuration")
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
		path = strings.TrimSpace(path)
		key, instead := path, ""
		if name, rest, overlaid := cutOverlay(path); overlaid {
			key = rest
			instead = ", or put it into the file that describes " + name
		}
		f := lookup(key)
		if f == nil || f.Type != "secret" || value == "" {
			continue
		}
		if instead == "" {
			path, instead = f.Path, ", or put it into the variable "+f.Env
		}
		all = append(all, origin{source: setFlag}.problem(path, "", "is a secret, and other users of this machine can read the command line",
			"name a file that holds it with --set "+path+"_file=FILE"+instead))
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
		case "integration":
			o.Integration = f.Value.String()
		default:
			if flagPath(f.Name) != "" && f.Value.Type() == "string" { // --table of bridge blueprint validate is none of a key
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
	given := layer{}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		path := flagPath(name)
		if path == "" {
			l.problem(origin{}, "--"+name, "", "is not a flag of a configuration key", "use --set section.key=value")
			continue
		}
		l.take(origin{source: "--" + name}, given, path, flags[name], nil)
	}
	l.dropAlternatives(given, alternatives()...)
}

// readSets takes the pairs of --set that are of the base, and returns those of
// integrations.
func (l *loader) readSets(sets []string) (overlaid []string) {
	from := origin{source: setFlag}
	for _, set := range sets {
		// Text that is not understood is not repeated: it may hold a secret.
		path, value, ok := strings.Cut(set, "=")
		path = strings.TrimSpace(path)
		switch {
		case !ok || path == "":
			l.problem(origin{}, setFlag, "", "must have the form section.key=value", "as in --set delivery.drain=10s")
		case path == overlaysKey || strings.HasPrefix(path, overlaysKey+"."):
			overlaid = append(overlaid, set)
		case schema.Sections[path]:
			l.problem(from, path, "", "is a section, not a key", "name the key too, as in --set delivery.drain=10s")
		case lookup(path) == nil:
			l.unknown(from, path)
		default:
			l.take(from, layer{}, path, value, nil) // a layer for each, so that the last one wins
		}
	}
	given := layer{}
	for _, path := range blueprints {
		if l.origins[path] == from {
			given[path] = path
		}
	}
	l.dropAlternatives(given, blueprints)
	return overlaid
}

// setFlag is the flag of keys without a flag of their own.
const setFlag = "--set"

const envPrefix = "BRIDGE_"

// borrowed are variables that Signal's own services read, so that one environment
// can serve both. BRIDGE_ names win over them.
var borrowed = map[string]string{
	"KAFKA_BROKERS":        "kafka.brokers",
	"KAFKA_TLS_ENABLED":    "kafka.tls.enabled",
	"KAFKA_CONSUMER_GROUP": "kafka.group",
	"LOG_LEVEL":            "log.level",
}

// serviceLink matches what Kubernetes puts into every pod of a namespace that
// holds a Service named bridge, or bridge-something: BRIDGE_SERVICE_HOST,
// BRIDGE_PORT_9400_TCP_ADDR and their like
// (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
// No key of ours ends that way, and a Service must not prevent the bridge from starting.
var serviceLink = regexp.MustCompile(`^BRIDGE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// readEnv takes the bridge's variables from environ, which has the form of
// os.Environ. An empty variable counts as not set, as deployment templates
// often leave one behind.
func (l *loader) readEnv(environ []string) {
	paths := map[string]string{}
	for _, k := range schema.Keys {
		paths[k.Env] = k.Path
	}
	for alias := range aliases {
		paths[setting.EnvName(alias)] = alias
	}
	l.readVariables(environ, borrowed)
	l.readVariables(environ, paths)
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if paths[name] == "" && value != "" && strings.HasPrefix(name, envPrefix) && !serviceLink.MatchString(name) {
			l.unknownEnv(name)
		}
	}
}

// readVariables takes the variables that are among the given names.
func (l *loader) readVariables(environ []string, paths map[string]string) {
	given := layer{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if path := paths[name]; path != "" && value != "" {
			l.take(origin{source: "environment variable " + name}, given, path, value, nil)
		}
	}
	l.dropAlternatives(given, alternatives()...)
}

func (l *loader) unknownEnv(name string) {
	remedy := "unset it; names are BRIDGE_<SECTION>_<KEY>, as in BRIDGE_ZEROBUS_CATALOG"
	if near, path := suggestEnv(name); near != "" {
		remedy = "did you mean " + near + "?"
		l.faulty[path] = true
	}
	l.problem(origin{source: "environment"}, name, "", "is not a variable of the bridge", remedy)
}

// Borrowed returns the variables of other programs that are read as well, by
// name, with the key that each one sets.
func Borrowed() map[string]string { return maps.Clone(borrowed) }

// Aliases returns other spellings of keys, by their path, with the key that each
// one stands for.
func Aliases() map[string]string { return maps.Clone(aliases) }

// Named returns the flags of single keys, by flag name, with the key that each
// one sets.
func Named() map[string]string {
	flags := map[string]string{}
	for _, n := range named {
		flags[n.flag] = n.path
	}
	return flags
}
