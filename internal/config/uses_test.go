package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var tagName = regexp.MustCompile(`(\w+):"`)

// A tag with a typing mistake would be a rule that never runs.
func TestTagsAreKnown(t *testing.T) {
	known := strings.Fields("yaml json default choices min max zero unique readable required when only_when remedy live with or scope document")
	var walk func(typ reflect.Type, path string)
	walk = func(typ reflect.Type, path string) {
		for i := range typ.NumField() {
			field := typ.Field(i)
			at := path + "." + field.Name
			for _, m := range tagName.FindAllStringSubmatch(string(field.Tag), -1) {
				if _, ok := field.Tag.Lookup(m[1]); !ok || !slices.Contains(known, m[1]) {
					t.Errorf("%s: unknown tag %s", at, m[1])
				}
			}
			if field.Type.Kind() == reflect.Struct && field.IsExported() {
				walk(field.Type, at)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "Config")
	for _, k := range schema.Keys {
		for _, path := range k.With() {
			if schema.Key(path) == nil {
				t.Errorf("%s: %s is not a key", k.Path, path)
			}
		}
	}
	c := complete()
	for _, k := range schema.Keys {
		alter(k, c)
	}
	c.Ignored() // panics over a condition on no key
}

// Each key that some values of others take the effect from, beside those values
// and beside others.
func TestIgnored(t *testing.T) {
	grpc := []string{"zerobus.transport=grpc", "zerobus.endpoint=z.example"}
	rest := []string{"zerobus.transport=rest", "zerobus.endpoint=z.example"}
	page := []string{"zerobus.transport=workspace"}
	for _, tc := range []struct {
		set, why        string
		idle, effective []string
	}{
		{"zerobus.endpoint=z.example", "with zerobus.transport workspace", page, []string{"zerobus.transport=grpc"}},
		{"zerobus.workspace_id=1", "with zerobus.transport workspace", page, rest},
		{"zerobus.omit_operations=true", "with zerobus.transport workspace", page, grpc},
		{"zerobus.record_format=json", "with zerobus.transport rest", rest, grpc},
		{"zerobus.streams=2", "with zerobus.transport rest", rest, grpc},
		{"zerobus.max_in_flight=8MiB", "with zerobus.transport workspace", page, grpc},
		{"zerobus.ingest_path=/x", "with zerobus.transport grpc", grpc, nil},
		{"zerobus.confirm=lenient", "with zerobus.transport rest", rest, nil},
		{"zerobus.gzip=true", "with zerobus.transport grpc", grpc, rest},
		{"zerobus.token_exchange.policy=account", "without zerobus.token_exchange.token_file", nil, []string{"zerobus.client_secret=", "zerobus.token_exchange.token_file=uses_test.go"}},
		{"kafka.sasl.allow_plaintext=true", "with kafka.sasl.mechanism none", nil, []string{"kafka.sasl.mechanism=plain", "kafka.sasl.username=u", "kafka.sasl.password=p"}},
		{"kafka.sasl.allow_plaintext=true", "while kafka.tls.enabled is true", []string{"kafka.tls.enabled=true"}, nil},
		{"kafka.session_timeout=20s", "with kafka.protocol consumer", []string{"kafka.protocol=consumer"}, nil},
		{"mapping.on_missing_consent=drop", "without mapping.require_consent", nil, []string{"mapping.require_consent=analytics"}},
		{"rejects.topic=bad", "with rejects.policy skip", []string{"rejects.policy=skip"}, nil},
		{"rejects.create=false", "with rejects.policy stop", []string{"rejects.policy=stop"}, nil},
		{"rejects.partitions=3", "while rejects.create is false", []string{"rejects.create=false"}, nil},
		{"rejects.replication_factor=3", "with rejects.policy skip", []string{"rejects.policy=skip"}, nil},
		{"store.topic=t", "while store.enabled is false", nil, []string{"store.enabled=true"}},
		{"store.allowed_hosts=a.example", "while store.enabled is false", nil, []string{"admin.enabled=true"}},
		{"admin.address=127.0.0.1:1", "while admin.enabled is false", nil, []string{"admin.enabled=true"}},
		{"admin.token_file=uses_test.go", "while admin.enabled is false", nil, []string{"admin.enabled=true"}},
		{"admin.jwt_secret_file=uses_test.go", "while admin.enabled is false", nil, []string{"admin.enabled=true"}},
		{"admin.jwks_file=uses_test.go", "while admin.enabled is false", []string{"admin.jwt_audience=x"}, []string{"admin.enabled=true", "admin.jwt_audience=x"}},
		{"admin.jwt_audience=x", "while admin.enabled is false", []string{"admin.jwks_file=uses_test.go"}, []string{"admin.enabled=true", "admin.jwks_file=uses_test.go"}},
		{"admin.rate_limit=7", "while admin.enabled is false", nil, []string{"admin.enabled=true"}},
		{"tracing.max_per_second=5", "while tracing.enabled is false", nil, []string{"tracing.enabled=true"}},
	} {
		key, _, _ := strings.Cut(tc.set, "=")
		got := ignored(t, append([]string{tc.set}, tc.idle...), key)
		if got == nil || !strings.HasPrefix(got.String(), key+" has no effect "+tc.why) || got.Remedy == "" {
			t.Errorf("%s with %v: got %v, want it to have no effect %s", tc.set, tc.idle, got, tc.why)
		}
		if key == "kafka.sasl.allow_plaintext" && tc.idle != nil {
			continue // the case before has where it is used
		}
		if got := ignored(t, append([]string{tc.set}, tc.effective...), key); got != nil {
			t.Errorf("%s with %v: got %s, want it used", tc.set, tc.effective, got)
		}
	}
	if c := complete(); len(c.Ignored()) != 1 { // its oauth secret, which Load refuses
		t.Errorf("got %v", c.Ignored())
	}
}

// With zerobus.transport auto, what has no effect follows from the transport in use.
func TestIgnoredWith(t *testing.T) {
	c, err := Load(Options{Sets: []string{"kafka.topics=events", "zerobus.workspace_url=https://abc.cloud.databricks.com", "zerobus.client_id=app",
		"zerobus.client_secret=hush", "zerobus.table=c.s.t", "zerobus.streams=2", "zerobus.gzip=true", "zerobus.ingest_path=/x", "rejects.policy=skip", "rejects.topic=bad"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Ignored(); len(got) != 1 || got[0].Key != "rejects.topic" {
		t.Errorf("before the transport is known: got %v, want rejects.topic alone", got)
	}
	for transport, want := range map[string][]string{
		"workspace": {"zerobus.streams has no effect with zerobus.transport workspace; take it out, or set zerobus.transport to grpc"},
		"grpc": {"zerobus.ingest_path has no effect with zerobus.transport grpc; take it out, or set zerobus.transport to workspace",
			"zerobus.gzip has no effect with zerobus.transport grpc; take it out, or set zerobus.transport to workspace or rest"},
		"auto": nil,
	} {
		var got []string
		for _, i := range c.IgnoredWith(transport) {
			got = append(got, i.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("with %s: got %q, want %q", transport, got, want)
		}
	}
}

// /status asks for the token whether or not there is a page: to take it out would
// open what it guards.
func TestATokenWithoutAPageIsUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"ops.token=0123456789abcdef", "ops.token_file=" + file} {
		path, _, _ := strings.Cut(key, "=")
		if got := ignored(t, []string{key, "ops.live_events=off"}, path); got != nil {
			t.Errorf("%s: got %s, want it used", path, got)
		}
	}
}

// ignored loads a configuration and returns what is ignored of the key, or nil.
func ignored(t *testing.T, sets []string, key string) *Ignored {
	t.Helper()
	c, err := Load(Options{Sets: append([]string{"kafka.topics=events", "zerobus.workspace_url=https://abc.cloud.databricks.com", "zerobus.client_id=app",
		"zerobus.client_secret=hush", "zerobus.table=c.s.t"}, sets...)})
	if err != nil {
		t.Fatalf("%v: %v", sets, err)
	}
	for _, i := range c.Ignored() {
		if i.Key == key {
			return &i
		}
	}
	return nil
}

// A slip in the name of any key is found, wherever the name is given.
func TestASlipInAnyNameIsFound(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, f := range schema.Keys {
		dot := strings.LastIndexByte(f.Path, '.') + 1
		section, name := f.Path[:dot], f.Path[dot:]
		camel := strings.ReplaceAll(strings.Title(strings.ReplaceAll(name, "_", " ")), " ", "") //nolint:staticcheck // ASCII
		for _, slip := range []string{
			name[:len(name)-2] + name[len(name)-1:],
			name[:1] + "x" + name[1:],
			strings.ToLower(camel[:1]) + camel[1:],
			strings.ReplaceAll(name, "_", "-"),
			camel,
		} {
			if slip == name || schema.Key(section+slip) != nil || aliases[section+slip] != "" {
				continue
			}
			l := newLoader()
			l.unknown(origin{source: "--set"}, section+slip)
			if got, want := Problems(l.problems[0])[0].Remedy, "did you mean "+f.Path+"?"; got != want {
				t.Errorf("%s%s: got %q, want %q", section, slip, got, want)
			}
		}
		l := newLoader()
		variable := f.Env
		l.unknownEnv(variable[:len(variable)-2] + variable[len(variable)-1:])
		if got, want := Problems(l.problems[0])[0].Remedy, "did you mean "+variable+"?"; got != want {
			t.Errorf("%s: got %q, want %q", variable, got, want)
		}
	}
}

// What is no slip of one name is answered with what the section holds.
func TestSuggestions(t *testing.T) {
	for given, want := range map[string]string{
		"kafka.sasl.user":           "did you mean kafka.sasl.username?",
		"kafka.sasl.oauth.secret":   "the keys of kafka.sasl.oauth are token_url, client_id, client_secret, client_secret_file, scopes",
		"kafka.groupId":             "did you mean kafka.group?",
		"kafka.tls.verify":          "the keys of kafka.tls are enabled, ca_file, cert_file, key_file, server_name",
		"kafka.tls.ca":              "did you mean kafka.tls.ca_file?",
		"log.output":                "the keys of log are level, format",
		"tracing.exporter":          "the keys of tracing are enabled, max_per_second",
		"ops.frobnicate":            "the keys of ops are address, pprof, partition_metrics, live_events, token, token_file, peers",
		"brokers":                   "did you mean kafka.brokers?",
		"kafak":                     "did you mean kafka?",
		"BRIDGE_BROKERS":            "did you mean BRIDGE_KAFKA_BROKERS?",
		"BRIDGE_KAFKA_GROUP_ID":     "did you mean BRIDGE_KAFKA_GROUP?",
		"BRIDGE_KAFKA_SASL_USER":    "did you mean BRIDGE_KAFKA_SASL_USERNAME?",
		"BRIDGE_ZEROBUS_MAX_ROWS":   "did you mean BRIDGE_DELIVERY_MAX_ROWS?",
		"BRIDGE_KAFKA_TLS_CA":       "did you mean BRIDGE_KAFKA_TLS_CA_FILE?",
		"BRIDGE_KAFAK_BROKERS":      "did you mean BRIDGE_KAFKA_BROKERS?",
		"BRIDGE_SECURITY_PROTOCOL":  "unset it; names are BRIDGE_<SECTION>_<KEY>, as in BRIDGE_ZEROBUS_CATALOG",
		"BRIDGE_ENTIRELY_ELSEWHERE": "unset it; names are BRIDGE_<SECTION>_<KEY>, as in BRIDGE_ZEROBUS_CATALOG",
	} {
		l := newLoader()
		if strings.HasPrefix(given, envPrefix) {
			l.unknownEnv(given)
		} else {
			l.unknown(origin{source: "--set"}, given)
		}
		if got := Problems(l.problems[0])[0].Remedy; got != want {
			t.Errorf("%s: got %q, want %q", given, got, want)
		}
	}
}
