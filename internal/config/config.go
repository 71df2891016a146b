// Package config turns one YAML file, the environment and the command line into one
// validated Config. Each package defines the keys that configure it, with their
// defaults and rules: see internal/setting. This package puts the sections together
// and reads their values. It opens no connection. It reads the configuration file, and
// opens the files that this names to check that they are readable.
//
// Sources, each overriding the one before: built-in defaults, the file, the
// environment, named flags, --set. Every problem is reported at once.
package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/admin/listener"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/setting"
	"github.com/datafly/bridge/internal/tracing"
	"github.com/datafly/bridge/internal/webhook"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

// Config is everything that configures `bridge run`. The yaml tags are the key names,
// dotted into paths such as kafka.tls.ca_file. A Config from Load is complete and
// consistent; treat it as read-only, it is shared.
type Config struct {
	Kafka    consumer.Kafka    `yaml:"kafka" scope:"process"`
	Zerobus  zerobus.Settings  `yaml:"zerobus"`
	Mapping  mapping.Settings  `yaml:"mapping"`
	Delivery consumer.Delivery `yaml:"delivery" scope:"process"`
	Rejects  consumer.Rejects  `yaml:"rejects"`
	Ops      ops.Settings      `yaml:"ops" scope:"process"`
	Webhook  webhook.Settings  `yaml:"webhook" scope:"process"`
	Tracing  tracing.Settings  `yaml:"tracing" scope:"process"`
	Log      Log               `yaml:"log" scope:"process"`
	Store    store.Settings    `yaml:"store" scope:"process"`
	Admin    listener.Settings `yaml:"admin" scope:"process"`
	// Deployment is what the names of consumer groups begin with. It differs between
	// the deployments of one cluster.
	Deployment string `yaml:"deployment" default:"zerobus-bridge" scope:"process"`
	// IntegrationsDir is a folder of files that describe integrations; see overlay.go.
	IntegrationsDir string `yaml:"integrations_dir" scope:"process" live:"true"`
}

// Log is the log of the process; always on standard error.
type Log struct {
	// Level: at debug there is a line per batch, and rejected values may appear in it.
	Level string `yaml:"level" default:"info" choices:"debug,info,warn,error" live:"true"`
	// Format is console for people, json for collectors, or auto: console when
	// standard error is a terminal, else json.
	Format string `yaml:"format" default:"auto" choices:"auto,json,console"`
}

var schema = setting.SchemaOf[Config]()

// aliases are other spellings of a key: Kafka's own name for the seed brokers,
// and the singular that Signal's streaming integrations use.
var aliases = map[string]string{
	"kafka.bootstrap_servers": "kafka.brokers",
	"kafka.topic":             "kafka.topics",
}

// enabled is the one key that only integrations have.
var enabled = setting.SchemaOf[struct {
	Enabled bool `yaml:"enabled" default:"true"`
}]().Keys[0]

// lookup is the function lookup, and finds the keys that only integrations have.
func (l *loader) lookup(path string) *setting.Key {
	if l.base != nil && path == enabled.Path {
		return enabled
	}
	return lookup(path)
}

// lookup finds a key by its path or another spelling of it; nil without one.
func lookup(path string) *setting.Key {
	if to, ok := aliases[path]; ok {
		path = to
	}
	return schema.Key(path)
}

// Defaults returns the configuration without any source. It does not pass
// validation: the target, the credentials and the topics have no default.
func Defaults() Config {
	var c Config
	schema.SetDefaults(&c)
	return c
}

// deploymentName leaves room for what is appended, within Kafka's 249 characters.
var deploymentName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}$`)

// Check implements the rules that involve several sections.
func (c *Config) Check(check *setting.Check) {
	if check.OK("deployment") && !deploymentName.MatchString(c.Deployment) {
		check.Fail("deployment", "must be 1 to 200 letters, digits, dots, hyphens and underscores, since the names of groups begin with it",
			"leave it out for zerobus-bridge")
	}
	c.checkStore(check)
	consumer.CheckTogether(check, &c.Kafka, &c.Delivery, &c.Rejects)
	if check.OK("delivery.max_bytes", "zerobus.max_request_bytes") && c.Delivery.MaxBytes > c.Zerobus.MaxRequestBytes {
		check.Fail("delivery.max_bytes", fmt.Sprintf("must not be larger than zerobus.max_request_bytes (%v), or full batches would be refused and split",
			c.Zerobus.MaxRequestBytes), "lower it")
	}
}

// checkStore completes the section store, and compares store and admin with the others.
func (c *Config) checkStore(check *setting.Check) {
	if c.Store.Enabled = c.Store.Enabled || c.Admin.Enabled; !c.Store.Enabled {
		return
	}
	c.Store.Topic = cmp.Or(c.Store.Topic, c.Deployment+"-integrations")
	others := func(key string, topics []string) {
		for _, topic := range topics {
			if strings.TrimSuffix(topic, "-audit") == c.Store.Topic && check.OK("store.topic", "kafka.topics", "rejects.topic") {
				check.FailValue(key, topic, "is a topic of the store of integrations", "name another topic, or set another store.topic")
			}
		}
	}
	others("kafka.topics", c.Kafka.Topics)
	others("rejects.topic", c.deadLetterTopics())
	if c.Admin.Enabled && check.OK("admin.address", "ops.address") && c.Admin.Address == c.Ops.Address && !strings.HasSuffix(c.Ops.Address, ":0") {
		check.Fail("admin.address", "must not be that of ops.address", "leave it out for 127.0.0.1:8084")
	}
}

// Key describes one key of the configuration, for help and completion.
type Key = setting.Key

// Keys returns every key in the order of the example file.
func Keys() []*Key { return slices.Clone(schema.Keys) }

// Redacted returns the configuration as nested maps for /status: keys as in
// the file, durations and sizes as text, secrets as "[redacted]" when set.
// Nothing in it is shared with c.
func (c *Config) Redacted() map[string]any {
	all := viper.New()
	for _, k := range schema.Keys {
		value := k.In(c).Interface()
		switch k.Type {
		case "secret":
			value = value.(setting.Secret).String()
		case "size", "duration":
			value = k.Text(c)
		case "list":
			value = append([]string{}, value.([]string)...)
		}
		all.Set(k.Path, value)
	}
	return all.AllSettings()
}

// MarshalJSON returns Redacted, for /status.
func (c *Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.Redacted()) }

// YAML returns the configuration as a file in the order of the documentation,
// with secrets redacted.
func (c *Config) YAML() ([]byte, error) { return yaml.Marshal(c) }

// Follow compares the configuration c, which is in force, with next, which was loaded
// while the bridge runs. now is c with the new values that take effect at once, taken
// lists their keys, and waiting the keys that differ and need a restart. Both are in
// the order of the structs. c and next are not changed.
func (c *Config) Follow(next *Config) (now *Config, taken, waiting []string) {
	var live []string
	for _, k := range schema.Keys {
		switch {
		case k.Live():
			live = append(live, k.Path)
		case k.Type == "secret" && c.replaces(k, next):
			live = append(live, k.Path, k.Path+"_file")
		}
	}
	merged := *c
	for _, k := range schema.Keys {
		switch {
		case k.Same(c, next):
		case slices.Contains(live, k.Path):
			taken = append(taken, k.Path)
			k.In(&merged).Set(k.In(next))
		default:
			waiting = append(waiting, k.Path)
		}
	}
	return &merged, taken, waiting
}

// OfProcess reports whether a key belongs to the process: all integrations have the
// same value, and another one takes effect after a restart unless it is live.
func OfProcess(path string) bool {
	k := schema.Key(path)
	return k != nil && k.Process
}

// WithProcess returns c with the keys of the process as they are in base, and the group
// that follows from them. Neither is changed.
func (c *Config) WithProcess(base *Config) *Config {
	merged := *c
	for _, k := range schema.Keys {
		if k.Process {
			k.In(&merged).Set(k.In(base))
		}
	}
	if c.Kafka.Group == c.defaultGroup() {
		merged.Kafka.Group = merged.defaultGroup()
	}
	return &merged
}

// defaultGroup returns the consumer group of an integration that names none.
func (c *Config) defaultGroup() string {
	if i := c.Rejects.Integration; i == "" || i == DefaultIntegration {
		return c.Deployment
	}
	return c.Deployment + "-" + c.Rejects.Integration
}

// replaces reports whether a secret of next may replace that of c: both have one, and
// it belongs to the same party, or the old party would be shown the new one's secret.
func (c *Config) replaces(k *Key, next *Config) bool {
	given := func(c *Config) bool { return k.In(c).Len()+schema.Key(k.Path+"_file").In(c).Len() > 0 }
	same := func(path string) bool { return schema.Key(path).Same(c, next) }
	return given(c) && given(next) && !slices.ContainsFunc(k.With(), func(path string) bool { return !same(path) })
}

// Ignored is a key that was set and has no effect beside the values of others.
type Ignored struct {
	// Integration whose value it is; empty where it is of the base, and without effect
	// in all integrations.
	Integration string
	Key         string // dotted path
	Why         string // a clause that follows "has no effect"
	Remedy      string
}

// String returns one line that ends with the remedy.
func (i Ignored) String() string {
	of := ""
	if i.Integration != "" {
		of = "integration " + i.Integration + ": "
	}
	return fmt.Sprintf("%s%s has no effect %s; %s", of, i.Key, i.Why, i.Remedy)
}

// Ignored returns the keys of a loaded configuration that are set to something
// other than their default and have no effect, in the order of the structs.
func (c *Config) Ignored() []Ignored {
	var all []Ignored
	for _, k := range schema.Keys {
		if why, remedy := schema.WithoutEffect(k, c); why != "" {
			all = append(all, Ignored{Key: k.Path, Why: why, Remedy: remedy})
		}
	}
	return all
}

// IgnoredWith returns the keys of zerobus that are set and have no effect with the transport
// in use, beyond those of Ignored: zerobus.transport auto is one of the others in the end.
func (c *Config) IgnoredWith(transport string) []Ignored {
	inUse := *c
	inUse.Zerobus.Transport = transport
	before := c.Ignored()
	all := slices.DeleteFunc(inUse.Ignored(), func(i Ignored) bool {
		return slices.ContainsFunc(before, func(b Ignored) bool { return b.Key == i.Key })
	})
	for n := range all { // auto has chosen already
		all[n].Remedy = strings.NewReplacer(" auto, ", " ", " auto or ", " ").Replace(all[n].Remedy)
	}
	return all
}

// keysOf lists the names that may be set in a section, "" for a section that does not
// exist.
func (l *loader) keysOf(section string) string {
	var names []string
	for _, k := range schema.Keys {
		rest, within := strings.CutPrefix(k.Path, section+".")
		within = within && (l.base == nil || !k.Process)
		if name, _, _ := strings.Cut(rest, "."); within && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}
