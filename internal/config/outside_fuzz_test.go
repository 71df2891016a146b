package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

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
