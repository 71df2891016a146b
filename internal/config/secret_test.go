package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/setting"
)

const hush = "hunter2-hunter2-hunter2"

func TestSecretsAreNeverShown(t *testing.T) {
	c := load(t, config.Options{File: write(t, strings.Replace(complete, "hush", hush, 1)),
		Sets: []string{"kafka.sasl.mechanism=plain", "kafka.sasl.username=u", "kafka.sasl.password=" + hush}})
	source := c.Zerobus.CredentialSource()
	var out bytes.Buffer
	for _, value := range []any{c.Zerobus.ClientSecret, &c.Zerobus.ClientSecret, source, &source, *c, c, []setting.Secret{hush}, map[string]setting.Secret{"k": hush}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
		enc := json.NewEncoder(&out)
		if err := enc.Encode(value); err != nil {
			t.Fatal(err)
		}
		data, err := yaml.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(data)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", value)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", value)
		for _, enc := range []zapcore.Encoder{zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())} {
			log := zap.New(zapcore.NewCore(enc, zapcore.AddSync(&out), zap.DebugLevel))
			log.Info("x", zap.Any("v", value))
			log.Sugar().Infow("x", "v", value)
			log.Sugar().Infof("%v %+v", value, value)
		}
	}
	fmt.Fprintf(&out, "%v\n", c.Redacted())
	shown, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	out.Write(shown)
	for _, form := range []string{hush, fmt.Sprintf("%x", hush), fmt.Sprintf("%X", hush), fmt.Sprint([]byte(hush))} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the secret is shown as %q", form)
		}
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Error("[redacted] is nowhere")
	}
	if text, err := c.Zerobus.ClientSecret.MarshalText(); string(text) != "[redacted]" || err != nil {
		t.Errorf("MarshalText: got %q, %v", text, err)
	}
	if got := c.Zerobus.ClientSecret.GoString(); got != "[redacted]" {
		t.Errorf("GoString: got %q", got)
	}
	if got := c.Zerobus.ClientSecret.Reveal(); got != hush {
		t.Errorf("Reveal: got %q, want the secret", got)
	}
	if got := fmt.Sprint(setting.Secret("")); got != "" {
		t.Errorf("empty secret: got %q, want nothing", got)
	}
}

func TestRedactedShowsTextForPeople(t *testing.T) {
	got, err := json.Marshal(load(t, config.Options{File: write(t, complete)}).Redacted())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"client_secret":"[redacted]"`, `"client_secret_file":""`, `"rebalance_timeout":"1m"`, `"max_bytes":"4MiB"`, `"scopes":[]`, `"topics":["events"]`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	}
}

func TestYAMLReadsBack(t *testing.T) {
	c := load(t, config.Options{File: exampleFile})
	shown, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again := load(t, config.Options{File: write(t, string(shown))})
	again.Zerobus.ClientSecret = c.Zerobus.ClientSecret
	if fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", c) {
		t.Errorf("got %+v, want %+v", again, c)
	}
}

func TestSecretSourceReadsTheFileAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	s := setting.SecretSource{Key: "zerobus.client_secret", File: path}
	steps := []struct{ content, want, problem string }{
		{"one\n", "one", ""},
		{" two \r\n", " two ", ""},
		{"\ufeff\r\nmarked\r\n", "marked", ""},
		{"\xff\xfes\x00i\x00x\x00\r\x00\n\x00", "six", ""}, // UTF-16, as PowerShell redirects
		{"\ufeff\n", "", "is empty"},
		{"", "", "is empty"},
		{"\n\n", "", "is empty"},
		{"bad\x00bytes", "", "is not text"},
		{strings.Repeat("x", 65<<10), "", "is larger than 65536 bytes"},
		{"three", "three", ""},
	}
	for _, step := range steps {
		if err := os.WriteFile(path, []byte(step.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.Read()
		if got != step.want || (err == nil) != (step.problem == "") {
			t.Errorf("content of %d bytes: got %q, %v; want %q", len(step.content), got, err, step.want)
		}
		if err != nil && (!strings.Contains(err.Error(), step.problem) || !strings.Contains(err.Error(), "zerobus.client_secret_file") || strings.Contains(err.Error(), "bytes\x00")) {
			t.Errorf("got %v, want the key and %q", err, step.problem)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("file gone: got %v, want the path", err)
	}
	if got, err := (setting.SecretSource{Key: "k", Value: "v"}).Read(); got != "v" || err != nil {
		t.Errorf("value: got %q, %v; want v", got, err)
	}
	if _, err := (setting.SecretSource{Key: "k"}).Read(); err == nil || !strings.Contains(err.Error(), "k is not set; set it, or k_file") {
		t.Errorf("neither: got %v", err)
	}
}

// Shells and editors put a line break behind a secret, wherever it is kept. With
// it the service refuses the secret, and nothing shows why.
func TestSecretsAreReadWithoutLineBreaks(t *testing.T) {
	needs := map[string][]string{ // a secret without effect is refused
		"kafka.sasl.password":            {"BRIDGE_KAFKA_SASL_MECHANISM=plain", "BRIDGE_KAFKA_SASL_USERNAME=u"},
		"kafka.sasl.oauth.client_secret": {"BRIDGE_KAFKA_SASL_MECHANISM=oauthbearer", "BRIDGE_KAFKA_SASL_OAUTH_TOKEN_URL=https://i", "BRIDGE_KAFKA_SASL_OAUTH_CLIENT_ID=i"},
		"webhook.secret":                 {"BRIDGE_WEBHOOK_URL=https://chat.example"},
	}
	for _, k := range config.Keys() {
		if k.Type != "secret" {
			continue
		}
		hush := hush
		if k.Path == "webhook.url" {
			hush = "https://chat.example/" + hush
		}
		for name, text := range map[string]string{"break": hush + "\n", "breaks around": "\r\n" + hush + "\r\n\n", "mark": "\ufeff" + hush} {
			section, key, _ := strings.Cut(k.Path, ".")
			lines := strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(text)
			inFile := section + ":\n  " + strings.ReplaceAll(key, ".", ": {") + ": \"" + lines + "\"" + strings.Repeat("}", strings.Count(key, ".")) + "\n"
			for from, o := range map[string]config.Options{
				"environment": {File: os.DevNull, Env: append([]string{k.Env + "=" + text}, needs[k.Path]...), Partial: true},
				"file":        {File: write(t, inFile), Env: needs[k.Path], Partial: true},
			} {
				c := load(t, o)
				got := map[string]setting.Secret{"zerobus.client_secret": c.Zerobus.ClientSecret, "kafka.sasl.password": c.Kafka.SASL.Password,
					"kafka.sasl.oauth.client_secret": c.Kafka.SASL.OAuth.ClientSecret, "ops.token": c.Ops.Token, "webhook.url": c.Webhook.URL, "webhook.secret": c.Webhook.Secret}[k.Path]
				if got.Reveal() != hush {
					t.Errorf("%s, %s, %s: got %q, want %q", k.Path, from, name, got.Reveal(), hush)
				}
			}
		}
	}
	block := strings.Replace(complete, "client_secret: hush", "client_secret: |\n    hush", 1)
	if got := load(t, config.Options{File: write(t, block)}).Zerobus.ClientSecret.Reveal(); got != "hush" {
		t.Errorf("block: got %q, want hush", got)
	}
	for name, mark := range map[string]string{"UTF-8": "\ufeff" + complete, "UTF-16": "\xff\xfe" + strings.Join(strings.Split(complete, ""), "\x00") + "\x00"} {
		if got := load(t, config.Options{File: write(t, mark), FileRequired: true}).Zerobus.Table; got != "t" {
			t.Errorf("a file with the mark of %s: got table %q, want t", name, got)
		}
	}
}

func TestSize(t *testing.T) {
	tests := []struct {
		text string
		want setting.Size
		back string // "" when it is no size
	}{
		{"0", 0, "0"}, {"1", 1, "1"}, {"12B", 12, "12"}, {"1024", 1024, "1KiB"}, {"4MiB", 4 << 20, "4MiB"}, {"4 mib", 4 << 20, "4MiB"},
		{"256KiB", 256 << 10, "256KiB"}, {"1GiB", 1 << 30, "1GiB"}, {"1536KiB", 1536 << 10, "1536KiB"}, {"2kB", 2000, "2000"}, {"2MB", 2e6, "2000000"},
		{"3GB", 3e9, "3000000000"}, {"9223372036854775807", 1<<63 - 1, "9223372036854775807"},
		{"", 0, ""}, {"MiB", 0, ""}, {"-1", 0, ""}, {"1.5MiB", 0, ""}, {"4M", 0, ""}, {"9223372036854775808", 0, ""}, {"8589934592GiB", 0, ""}, {"0x10", 0, ""}, {"1_000", 0, ""},
	}
	for _, tt := range tests {
		var got setting.Size
		err := got.UnmarshalText([]byte(tt.text))
		if (err == nil) != (tt.back != "") || got != tt.want {
			t.Errorf("%q: got %d, %v; want %d", tt.text, got, err, tt.want)
			continue
		}
		if err != nil {
			continue
		}
		if back, _ := got.MarshalText(); string(back) != tt.back {
			t.Errorf("%q: got back %s, want %s", tt.text, back, tt.back)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"4MiB", "0", "9223372036854775807", "1 GB", "kib", "8589934592GiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := setting.ParseSize(text)
		if err != nil {
			return
		}
		back, err := setting.ParseSize(size.String())
		if err != nil || back != size || size < 0 {
			t.Errorf("%q: got %d, back %d, %v", text, size, back, err)
		}
	})
}

// A secret of a later source replaces the file that an earlier one names, and the other way round.
func TestALaterSourceReplacesTheOtherFormOfASecret(t *testing.T) {
	named := filepath.Join(t.TempDir(), "named")
	if err := os.WriteFile(named, []byte("of the file"), 0o600); err != nil {
		t.Fatal(err)
	}
	inFile := write(t, strings.Replace(complete, "client_secret: hush", "client_secret_file: "+named, 1))
	for name, tc := range map[string]struct {
		o    config.Options
		want string
	}{
		"the file alone":      {config.Options{File: inFile}, "of the file"},
		"a variable":          {config.Options{File: inFile, Env: []string{"BRIDGE_ZEROBUS_CLIENT_SECRET=" + hush}}, hush},
		"a variable, empty":   {config.Options{File: inFile, Env: []string{"BRIDGE_ZEROBUS_CLIENT_SECRET="}}, "of the file"},
		"a file's variable":   {config.Options{File: write(t, complete), Env: []string{"BRIDGE_ZEROBUS_CLIENT_SECRET_FILE=" + named}}, "of the file"},
		"a token to exchange": {config.Options{File: write(t, complete), Env: []string{"BRIDGE_ZEROBUS_TOKEN_EXCHANGE_TOKEN_FILE=" + named}}, "of the file"},
		"a flag":              {config.Options{File: write(t, complete), Env: []string{"BRIDGE_ZEROBUS_CLIENT_SECRET=" + hush}, Flags: map[string]string{"client-secret-file": named}}, "of the file"},
	} {
		if got, err := load(t, tc.o).Zerobus.CredentialSource().Read(); err != nil || got != tc.want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, tc.want)
		}
	}
	both := []string{"BRIDGE_ZEROBUS_CLIENT_SECRET=" + hush, "BRIDGE_ZEROBUS_CLIENT_SECRET_FILE=" + named}
	if _, err := config.Load(config.Options{File: inFile, Env: both}); err == nil || !strings.Contains(err.Error(), "must not be set together") {
		t.Errorf("both in one source: got %v, want them refused", err)
	}
}

// The file has what differs from the defaults, and no secret.
func TestFileOfAConfiguration(t *testing.T) {
	c := load(t, config.Options{File: write(t, strings.Replace(complete, "hush", hush, 1)), Env: []string{"KAFKA_BROKERS=a:1,b:2"},
		Sets: []string{"kafka.sasl.mechanism=scram-sha-512", "kafka.sasl.username=u", "kafka.sasl.password=" + hush, "zerobus.timeout=45s", "log.level=info"}})
	text, left, err := c.File()
	if err != nil || fmt.Sprint(left) != "[kafka.sasl.password zerobus.client_secret]" {
		t.Fatalf("got left %v, %v", left, err)
	}
	for _, absent := range []string{hush, "[redacted]", "\nlog:", "group:", "rejects:"} {
		if strings.Contains(string(text), absent) {
			t.Errorf("got %q in\n%s", absent, text)
		}
	}
	again := load(t, config.Options{File: write(t, string(text)), Env: []string{"BRIDGE_KAFKA_SASL_PASSWORD=" + hush, "BRIDGE_ZEROBUS_CLIENT_SECRET=" + hush}})
	if _, live, others := c.Follow(again); len(live)+len(others) > 0 {
		t.Errorf("the file has other values of %v, %v:\n%s", live, others, text)
	}
}
