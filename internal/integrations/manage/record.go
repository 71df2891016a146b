package manage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/setting"
)

// serverSide is the only delivery mode: the events come from Kafka.
const serverSide = "server_side"

// Bounds of a request. What exceeds them is refused.
const (
	maxName      = 100       // characters
	maxSlug      = 40        // bytes
	maxText      = 4096      // bytes of one value
	maxItems     = 100       // of one list
	maxFields    = 200       // of one section
	maxBlueprint = 128 << 10 // bytes: an audit entry holds it three times
	maxReason    = 500       // characters of a reason, a user's name or a request id
	maxFaults    = 50        // that one error lists
)

// section is a map of a record: the field of requests, and the section of the
// configuration.
type section struct {
	field, name string
	of          func(*store.Record) *store.Values
}

var sections = []section{
	{"config", "zerobus", func(r *store.Record) *store.Values { return &r.Target }},
	{"source", "kafka", func(r *store.Record) *store.Values { return &r.Source }},
	{"mapping", "mapping", func(r *store.Record) *store.Values { return &r.Mapping }},
	{"rejects", "rejects", func(r *store.Record) *store.Values { return &r.Rejects }},
	{"delivery", "delivery", func(r *store.Record) *store.Values { return &r.Delivery }},
}

// destination are the fields of config that say where the secret goes.
var destination = []string{"workspace_url", "endpoint", "token_url", "client_id"}

// faults are what is wrong with a request or a record.
type faults []FieldError

func (f *faults) add(field, message, remedy string) {
	if len(*f) < maxFaults {
		*f = append(*f, FieldError{Field: plaintext.ShortLine(field, maxText), Message: message, Remedy: remedy})
	}
}

// err returns the faults as one error about the integration; nil without any.
func (f faults) err(slug string) error {
	if len(f) == 0 {
		return nil
	}
	var all []error
	for _, one := range f {
		all = append(all, fmt.Errorf("integration %s: %s %s; %s", slug, one.Field, one.Message, one.Remedy))
	}
	return errors.Join(all...)
}

// refusal returns the faults as the answer to a request; nil without any.
func (f faults) refusal() error {
	if len(f) == 0 {
		return nil
	}
	message := f[0].Field + " " + f[0].Message
	if len(f) > 1 {
		message += fmt.Sprintf(", and %d more", len(f)-1)
	}
	return &Error{Code: ValidationFailed, Message: message, Remedy: f[0].Remedy, Fields: f}
}

// fieldNames translate keys of the configuration into fields of requests.
var fieldNames = strings.NewReplacer("zerobus.", "config.", "kafka.topics", "source.topics", "kafka.topic", "source.topic", "kafka.group", "source.group", "kafka.start", "source.start",
	"mapping.blueprint_text", "blueprint", "mapping.variant", "variant")

// problems adds those of the configuration.
func (f *faults) problems(err error) {
	for _, p := range config.Problems(err) {
		field, message := fieldOf(p.Key), fieldNames.Replace(p.Rule)
		if p.Value != "" {
			message = fmt.Sprintf("%q %s", p.Value, message)
		}
		f.add(field, plaintext.VisibleLine(message), fieldNames.Replace(p.Remedy))
	}
	if err != nil && len(config.Problems(err)) == 0 {
		f.add("config", err.Error(), "correct it")
	}
}

// fieldOf returns the field of requests for a key or a section of the configuration.
func fieldOf(key string) string {
	if field := fieldNames.Replace(key); field != key {
		return field
	}
	name, inner, _ := strings.Cut(key, ".")
	for _, s := range sections {
		if s.name == name {
			return strings.TrimSuffix(s.field+"."+inner, ".")
		}
	}
	return key
}

// keys are those of the configuration, by their paths and by other spellings.
var keys = sync.OnceValue(func() map[string]*config.Key {
	all := map[string]*config.Key{}
	for _, k := range config.Keys() {
		all[k.Path] = k
	}
	for other, path := range config.Aliases() {
		all[other] = all[path]
	}
	return all
})

// key returns a key of the configuration; nil without one.
func key(path string) *config.Key { return keys()[path] }

// isSecret reports whether a key holds a secret.
func isSecret(path string) bool { k := key(path); return k != nil && k.Type == "secret" }

// public returns the values of a section without secrets. The Manager writes none in clear.
func public(s section, r *store.Record) store.Values {
	all := store.Values{}
	leaves(*s.of(r), "", func(path string, value any) {
		if !isSecret(s.name + "." + path) {
			all[path] = value
		}
	})
	return all
}

// namesFile reports whether a key names a file on the disk of the server.
func namesFile(path string) bool {
	return path == "mapping.blueprint" || strings.HasSuffix(path, "_file")
}

// leaves calls use with each value below a section, by its dotted name in order.
func leaves(values map[string]any, prefix string, use func(path string, value any)) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if inner, ok := values[name].(map[string]any); ok && strings.Count(prefix, ".") < 3 {
			leaves(inner, prefix+name+".", use)
		} else {
			use(prefix+name, values[name])
		}
	}
}

// placeholders stand for the secrets of a record where they are not used.
func placeholders(r *store.Record) map[string]string {
	secrets := map[string]string{}
	for field, sealed := range r.Secrets {
		secrets[field] = "sealed " + sealed.Fingerprint
	}
	return secrets
}

// overlay returns the integration that a record describes. It is the one place that decides
// whether a record may run, whoever wrote it.
func overlay(d *config.Deployment, r *store.Record, secrets map[string]string) (config.Integration, faults) {
	var f faults
	if r.Vendor != catalog.Key {
		f.add("vendor", fmt.Sprintf("%.60q is not known", r.Vendor), "install it again as "+catalog.Key)
	}
	if r.DeliveryMode != serverSide {
		f.add("delivery_mode", fmt.Sprintf("%.60q does not pass through Kafka, where the bridge reads", r.DeliveryMode), "use "+serverSide)
	}
	values := map[string]any{"enabled": r.Enabled}
	for _, s := range sections {
		within := map[string]any{}
		leaves(*s.of(r), "", func(path string, value any) {
			if namesFile(s.name + "." + path) {
				f.add(s.field+"."+path, "names a file on the disk of the server, which an installed integration may not", "set it in the configuration file, or take it out")
				return
			}
			if isSecret(s.name + "." + path) {
				f.add(s.field+"."+path, "is in the record in clear", "give it again, and replace it where it was issued")
				return
			}
			within[path] = value
		})
		values[s.name] = within
	}
	target, mapped := values["zerobus"].(map[string]any), values["mapping"].(map[string]any)
	for field, secret := range secrets {
		target[field] = secret
	}
	if r.Blueprint != "" {
		mapped["blueprint_text"] = r.Blueprint
	} else {
		mapped["variant"] = r.Variant
	}
	i, err := d.Overlay(r.Slug, fmt.Sprintf("the store, revision %d", r.Revision), values)
	f.problems(err)
	if err != nil || len(f) > 0 {
		return config.Integration{}, f
	}
	z := &i.Config.Zerobus
	for field, text := range map[string]string{"workspace_url": z.WorkspaceURL, "endpoint": z.Endpoint, "token_url": z.TokenURL} {
		if u, err := url.Parse(text); text != "" && (err != nil || !allowed(d.Base.Store.AllowedHosts, u.Hostname())) {
			f.add("config."+field, fmt.Sprintf("%.120q is not a host of Databricks", text),
				"use one of "+strings.Join(databricksHosts, ", ")+", or have the operator add the host to store.allowed_hosts")
		}
	}
	return i, f
}

// databricksHosts are those of workspaces and endpoints on the three clouds.
var databricksHosts = []string{"*.cloud.databricks.com", "*.azuredatabricks.net", "*.gcp.databricks.com"}

// allowed reports whether secrets may be sent to a host.
func allowed(more []string, host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return setting.Loopback(host) || slices.ContainsFunc(slices.Concat(databricksHosts, more), func(pattern string) bool {
		pattern = strings.ToLower(pattern)
		if domain, ok := strings.CutPrefix(pattern, "*"); ok {
			return len(host) > len(domain) && strings.HasSuffix(host, domain)
		}
		return host == pattern
	})
}

// checkBlueprint compiles the blueprint without a table.
func (f *faults) checkBlueprint(r *store.Record, c *config.Config) {
	_, err := pipeline.CompileOffline(c, true)
	field := "blueprint"
	if r.Blueprint == "" {
		field = "variant"
	}
	for _, one := range separate(err) {
		f.add(field, plaintext.VisibleLine(strings.TrimPrefix(one.Error(), "mapping.blueprint_text:")), "correct it; docs/blueprint.md describes what a blueprint may hold")
	}
}

// separate returns the errors that are joined in err.
func separate(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, separate(e)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// checkText compares a text with the bounds and with what may be in it.
func (f *faults) checkText(field, text string, most int, lines bool) bool {
	bad := func(r rune) bool { return unicode.IsControl(r) && !(lines && (r == '\n' || r == '\t' || r == '\r')) }
	switch {
	case len(text) > most:
		f.add(field, fmt.Sprintf("has %d bytes, which is more than %d", len(text), most), "shorten it")
	case !utf8.ValidString(text):
		f.add(field, "holds bytes that are not UTF-8", "send it as UTF-8")
	case strings.ContainsFunc(text, bad):
		f.add(field, "holds control characters", "take them out")
	default:
		return true
	}
	return false
}

// checkValue compares a value of a section with the bounds.
func (f *faults) checkValue(field string, value any) bool {
	switch v := value.(type) {
	case string:
		return f.checkText(field, v, maxText, false)
	case []any:
		if len(v) > maxItems {
			f.add(field, fmt.Sprintf("has %d items, which is more than %d", len(v), maxItems), "shorten it")
			return false
		}
		for _, item := range v {
			if text, ok := item.(string); ok && !f.checkText(field, text, maxText, false) {
				return false
			}
		}
	case []string:
		all := make([]any, len(v))
		for n := range v {
			all[n] = v[n]
		}
		return f.checkValue(field, all)
	case map[string]any:
		f.add(field, "must not be an object", "give a plain value")
		return false
	}
	return true
}

// same reports whether two values are the same JSON.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
