package config

import (
	"maps"
	"slices"
	"strings"

	"github.com/datafly/bridge/internal/spelling"
)

// familiar are names from Kafka clients, connectors and Signal's own pages
// that no spelling distance would lead to the right key.
var familiar = map[string]string{
	"group_id":              "kafka.group",
	"consumer_group":        "kafka.group",
	"group_instance_id":     "kafka.instance_id",
	"auto_offset_reset":     "kafka.start",
	"isolation_level":       "kafka.isolation",
	"security_protocol":     "kafka.tls.enabled and kafka.sasl.mechanism",
	"sasl_mechanism":        "kafka.sasl.mechanism",
	"sasl_username":         "kafka.sasl.username",
	"sasl_password":         "kafka.sasl.password",
	"api_key":               "kafka.sasl.username",
	"api_secret":            "kafka.sasl.password",
	"batch_size":            "delivery.max_rows",
	"batch_interval_ms":     "delivery.linger",
	"max_batch_bytes":       "delivery.max_bytes",
	"timeout_ms":            "zerobus.timeout",
	"dead_letter_topic":     "rejects.topic",
	"dlq_topic":             "rejects.topic",
	"rate_limit_per_second": "zerobus.rate_limit",
}

// suggest returns the key meant by an unknown path, or "" when nothing comes
// close: the one key of its section that has the word in its name, then the same name
// in another section, then the nearest spelling.
func suggest(path string) string {
	section, name := "", path
	if dot := strings.LastIndexByte(path, '.'); dot >= 0 {
		section, name = path[:dot], path[dot+1:]
	}
	if to := spelling.Same(name, slices.Collect(maps.Keys(familiar))); to != "" {
		return familiar[to]
	}
	word := strings.ReplaceAll(strings.ToLower(name), "-", "_")
	var paths []string
	for _, f := range schema.Keys {
		paths = append(paths, f.Path)
	}
	for s := range schema.Sections {
		paths = append(paths, s)
	}
	if same := spelling.Same(path, paths); same != "" {
		return same
	}
	near, distance := spelling.Closest(path, paths)
	if distance <= 1 {
		return near
	}
	part := func(p string) bool {
		rest, within := strings.CutPrefix(p, section+".")
		return within && len(name) > 1 && !strings.Contains(rest, ".") && strings.Contains("_"+rest, "_"+word)
	}
	elsewhere := only(paths, func(p string) bool { return strings.HasSuffix(p, "."+word) })
	if slices.ContainsFunc(paths, part) {
		elsewhere = only(paths, part)
	}
	if elsewhere != "" {
		return elsewhere
	}
	slipsIn := path
	if strings.HasPrefix(near, section+".") {
		slipsIn = name // the rest is right
	}
	if distance <= spelling.Tolerance(slipsIn) {
		return near
	}
	return ""
}

// suggestEnv is suggest for a variable that begins with BRIDGE_: it returns the
// variable meant, and the path of its key.
func suggestEnv(name string) (variable, path string) {
	word, section := strings.ToLower(strings.TrimPrefix(name, envPrefix)), ""
	for s := range schema.Sections { // the longest one that the name begins with
		if strings.HasPrefix(word, strings.ReplaceAll(s, ".", "_")+"_") && len(s) > len(section) {
			section = s
		}
	}
	asked := word
	if section != "" {
		asked = section + "." + word[len(section)+1:]
	}
	path = suggest(asked)
	if f := lookup(path); f != nil {
		return f.Env, f.Path
	}
	return "", ""
}

// only returns the one path that fits, or "".
func only(paths []string, fits func(string) bool) string {
	found := ""
	for _, p := range paths {
		if !fits(p) {
			continue
		}
		if found != "" {
			return ""
		}
		found = p
	}
	return found
}
