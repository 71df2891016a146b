package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/setting"
)

// FuzzSecretFile reads a secret from any bytes: it comes as it is but for the
// line break at its end, or an error gives the reason without repeating it.
func FuzzSecretFile(f *testing.F) {
	for _, s := range []string{"hunter2-hunter2\n", "two lines\nof it", "\r\n", "", "  x  \r\n", "a\x00b-secret", "\ufeffbom", strings.Repeat("s", 65<<10)} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "secret")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := setting.SecretSource{Key: "zerobus.client_secret", File: path}.Read()
		if err == nil {
			if want := plaintext.Secret(string(plaintext.Clean(content))); got != want || strings.TrimSpace(got) == "" {
				t.Errorf("got %q of %q", got, content)
			}
			return
		}
		if got != "" || !strings.Contains(err.Error(), "zerobus.client_secret_file") {
			t.Errorf("got %q and %v, want no secret and the key", got, err)
		}
		if text := strings.TrimSpace(string(content)); len(text) > 12 && strings.Contains(err.Error(), text) {
			t.Errorf("got %v, which repeats the secret", err)
		}
	})
}

// FuzzSettings puts any text where a setting of any kind comes from outside the
// file: the environment and --set. An error holds no secret and
// nothing that does not print.
func FuzzSettings(f *testing.F) {
	f.Add("kafka.session_timeout", "1m30s")
	f.Add("delivery.linger", "-9223372036854775808ns")
	f.Add("delivery.max_buffered", "8589934592GiB")
	f.Add("zerobus.client_secret", "hunter2-hunter2")
	f.Add("kafka.sasl.password", "open sesame, open")
	f.Add("zerobus.rate_limit", "1e309")
	f.Add("zerobus.workspace_url", "https://u:hunter2-hunter2@h")
	f.Add("kafka.brokers", "[::1]:9092,a,,b:70000")
	f.Add("kafka.sasl.mechanism", "PLAIN")
	f.Add("ops.pprof", "yes")
	f.Add("no.such\x1b[2J", "x")
	file := write(f, complete)
	f.Fuzz(func(t *testing.T, key, value string) {
		env := "BRIDGE_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_")) + "=" + value
		for name, o := range map[string]config.Options{
			"set": {File: file, Sets: []string{key + "=" + value}},
			"env": {File: file, Env: []string{env}},
		} {
			c, err := config.Load(o)
			if (c == nil) == (err == nil) {
				t.Fatalf("%s: got config %v and error %v, want one of them", name, c, err)
			}
			for _, p := range config.Problems(err) {
				said := p.Error()
				if p.Rule == "" || p.Remedy == "" {
					t.Errorf("%s: got %+v, want a rule and a remedy", name, p)
				}
				secret := strings.HasSuffix(key, "client_secret") || strings.HasSuffix(key, "password")
				if secret && len(value) > 12 && strings.Contains(said, value) {
					t.Errorf("%s: the secret %q is in %q", name, value, said)
				}
				if strings.ContainsFunc(said, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.Is(unicode.Zs, r) }) || len(said) > 4000 {
					t.Errorf("%s: got %q, want text that prints, of some length", name, said)
				}
			}
		}
	})
}

// FuzzIntegrations reads any bytes as a file of integrations, beside one whose secret is
// any text. What is accepted is complete, integration by integration, and nothing shows a
// secret.
func FuzzIntegrations(f *testing.F) {
	for _, s := range []string{orders, "", below(orders), "kafka: {topics: [t]}", "x:\ny: ~\nz: []", "x: &a {kafka.topics: [t], zerobus: {table: a.b.c}}\ny: *a", "a: {<<: {enabled: false}}",
		"x: {enabled: 0, kafka: {topic: t, group: zerobus-bridge-y}, zerobus: {table: t, client_secret: open sesame, client_secret_file: ''}}", "? [x]\n: y", "x: {zerobus: {table: ..}}", "x: 1\n---\ny: 2"} {
		f.Add([]byte(s), hush)
	}
	dir := f.TempDir()
	path := filepath.Join(dir, "b.yaml")
	file := write(f, base+"integrations_dir: "+dir+"\n")
	f.Fuzz(func(t *testing.T, content []byte, secret string) {
		quoted, err := yaml.Marshal(map[string]any{"a": map[string]any{"kafka.topics": "a", "zerobus": map[string]any{"table": "a", "client_secret": secret}}})
		if err != nil {
			t.Skip()
		}
		for name, text := range map[string][]byte{path: content, filepath.Join(dir, "a.yaml"): quoted} {
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d, err := config.LoadDeployment(config.Options{File: file})
		if (d == nil) == (err == nil) {
			t.Fatalf("got %v and error %v, want one of them", d, err)
		}
		var said strings.Builder
		for _, p := range config.Problems(err) {
			if p.Rule == "" || p.Remedy == "" {
				t.Errorf("got %+v, want a rule and a remedy", p)
			}
			said.WriteString(p.Error())
		}
		if d != nil {
			for _, i := range d.Integrations {
				c := i.Config
				if len(c.Kafka.Topics) == 0 || c.Kafka.Group == "" || c.Zerobus.Table == "" || c.Zerobus.ClientSecret == "" && c.Zerobus.ClientSecretFile == "" && c.Zerobus.TokenExchange.TokenFile == "" || c.Rejects.Integration != i.Name || c.Ops.Address != d.Base.Ops.Address {
					t.Errorf("%s is not complete: %+v", i.Name, c)
				}
				shown, err := i.YAML()
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&said, string(shown), c, c.Redacted())
			}
		}
		if len(secret) > 12 && strings.Contains(said.String(), secret) && !strings.Contains(string(content), secret) {
			t.Errorf("the secret %q is in %s", secret, said.String())
		}
		if strings.ContainsFunc(fmt.Sprint(err), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) && !unicode.Is(unicode.Zs, r) }) {
			t.Errorf("got %q, want text that prints", err)
		}
	})
}
