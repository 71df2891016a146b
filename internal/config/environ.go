package config

import (
	"regexp"
	"strings"
)

const envPrefix = "BRIDGE_"

// borrowed are names Signal's own services read, so that one environment can
// serve both. BRIDGE_ names win over them.
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
// No key of ours ends that way, and a Service must not keep the bridge down.
var serviceLink = regexp.MustCompile(`^BRIDGE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// readEnv takes the bridge's variables out of environ, which has the form of
// os.Environ. An empty variable counts as not set, as deployment templates
// often leave one behind.
func (l *loader) readEnv(environ []string) {
	paths := map[string]string{}
	for _, f := range keys {
		paths[f.env()] = f.path
	}
	for alias := range aliases {
		paths[envName(alias)] = alias
	}
	own := newLayer()
	shared := newLayer()
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if value == "" {
			continue
		}
		from := origin{source: "environment variable " + name}
		if path, ok := borrowed[name]; ok {
			l.take(shared, path, raw{text: value}, from)
		} else if path, ok := paths[name]; ok {
			l.take(own, path, raw{text: value}, from)
		} else if strings.HasPrefix(name, envPrefix) && !serviceLink.MatchString(name) {
			l.unknownEnv(name)
		}
	}
	l.merge(shared)
	l.merge(own)
}

func (l *loader) unknownEnv(name string) {
	p := &Problem{Key: name, Rule: "is not a variable of the bridge", Source: "environment",
		Remedy: "unset it; names are BRIDGE_<SECTION>_<KEY>, as in BRIDGE_ZEROBUS_CATALOG"}
	if near, path := suggestEnv(name); near != "" {
		p.Remedy = "did you mean " + near + "?"
		l.spoil(path)
	}
	l.problems = append(l.problems, p)
}
