package consumer_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafkatest"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzOAuthAnswer is the token endpoint saying anything at all: no error
// repeats the secret or runs over lines, and no token can break out of what the
// broker is sent.
func FuzzOAuthAnswer(f *testing.F) {
	const secret = "client-secret-16180"
	f.Add(200, "application/json", []byte(`{"access_token":"t","token_type":"Bearer","expires_in":60}`))
	f.Add(200, "application/json", []byte(`{"access_token":"t\u0001auth=Bearer x"}`))
	f.Add(200, "application/json", []byte(`{"access_token":"t","expires_in":"client-secret-16180"}`))
	f.Add(200, "application/x-www-form-urlencoded", []byte(`access_token=t&expires_in=60`))
	f.Add(200, "application/json", []byte(`{"access_token":"t\n","expires_in":3599.5}`))
	f.Add(302, "text/html", []byte(`<a href="https://elsewhere.example">`))
	f.Add(401, "application/json", []byte(`{"error":"client-secret-16180","error_description":"client-secret-16180"}`))
	f.Add(503, "", []byte("\x00"))
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		asked := 0
		o := consumer.OAuth{TokenURL: "https://idp.example/token", ClientID: "bridge", ReadClientSecret: password(secret)}
		o.Over(roundTrip(func(r *http.Request) (*http.Response, error) {
			if asked++; r.URL.String() != o.TokenURL {
				t.Errorf("the secret went to %s", r.URL)
			}
			return &http.Response{StatusCode: status, Status: secret, Request: r, Body: io.NopCloser(bytes.NewReader(body)),
				Header: http.Header{"Content-Type": {kind}, "Location": {"https://elsewhere.example/token"}}}, nil
		}))
		token, err := o.Token()
		if (token == nil) == (err == nil) {
			t.Fatalf("got token %v and error %v, want one of them", token, err)
		}
		if asked > 2 { // with the secret in the header, then in the form
			t.Errorf("asked %d times for one token", asked)
		}
		if err == nil {
			if status/100 != 2 || token.AccessToken == "" || strings.ContainsFunc(token.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("status %d brought token %q", status, token.AccessToken)
			}
			return
		}
		said := err.Error()
		if strings.Contains(said, secret) || strings.Contains(said, base64.StdEncoding.EncodeToString([]byte("bridge:"+secret))) {
			t.Errorf("the secret is in %q", said)
		}
		if len(said) > 500 || strings.ContainsAny(said, "\n\r\x00") {
			t.Errorf("got %q, want one short line", said)
		}
	})
}

// FuzzTLSFiles reads authorities, a certificate and a key from any bytes: an
// error names the key of the configuration and holds nothing of the files.
func FuzzTLSFiles(f *testing.F) {
	sec := kafkatest.StartFake(f, kafkatest.Options{TLS: true, ClientCert: true}).Security()
	var files [3][]byte
	for i, name := range []string{sec.CAFile, sec.CertFile, sec.KeyFile} {
		var err error
		if files[i], err = os.ReadFile(name); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(files[0], files[1], files[2])
	f.Add(files[0], files[2], files[1])
	f.Add(files[0], files[0], files[2])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []byte("x"), []byte("-----BEGIN PRIVATE KEY-----\n"))
	f.Add([]byte{}, []byte{}, []byte{})
	dir := f.TempDir()
	ca, cert, key := filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	f.Fuzz(func(t *testing.T, caText, certText, keyText []byte) {
		for name, text := range map[string][]byte{ca: caText, cert: certText, key: keyText} {
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := consumer.CheckTLS(consumer.TLS{CAFile: ca, CertFile: cert, KeyFile: key})
		if err == nil {
			return
		}
		said := err.Error()
		if !strings.Contains(said, "kafka.tls.") || len(said) > 1000 {
			t.Errorf("got %q, want the key of the configuration, briefly", said)
		}
		for line := range strings.Lines(string(keyText)) {
			if line = strings.TrimSpace(line); len(line) > 20 && !strings.HasPrefix(line, "-----") && strings.Contains(said, line) {
				t.Errorf("a line of the key is in %q", said)
			}
		}
	})
}
