package kafka

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafkatest"
)

func checkTLS(t TLS) error {
	_, err := t.Config(zap.NewNop())
	return err
}

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
		o := OAuth{TokenURL: "https://idp.example/token", ClientID: "bridge", ReadClientSecret: func() (string, error) { return secret, nil }}
		o.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			if asked++; r.URL.String() != o.TokenURL {
				t.Errorf("the secret went to %s", r.URL)
			}
			return &http.Response{StatusCode: status, Status: secret, Request: r, Body: io.NopCloser(bytes.NewReader(body)),
				Header: http.Header{"Content-Type": {kind}, "Location": {"https://elsewhere.example/token"}}}, nil
		})
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
		err := checkTLS(TLS{CAFile: ca, CertFile: cert, KeyFile: key})
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

// The SDK's own client would take along what a pod shows for itself.
func TestAWSCredentialsFollowNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		t.Errorf("the redirect was followed with %v and %q", r.Header, body)
	}))
	defer elsewhere.Close()
	const token = "pod-token-57721"
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_EC2_METADATA_DISABLED"} {
		t.Setenv(name, "")
	}
	for name, value := range map[string]string{"AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none", "AWS_REGION": "eu-central-1"} {
		t.Setenv(name, value)
	}
	for way, env := range map[string]map[string]string{
		"agent of the node":        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "here", "AWS_CONTAINER_AUTHORIZATION_TOKEN": token},
		"metadata of the instance": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "here"},
	} {
		for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
			t.Run(way+", "+http.StatusText(status), func(t *testing.T) {
				asked := false
				here := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPut { // of the instance: show yourself with this
						w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
						_, _ = io.WriteString(w, token)
						return
					}
					asked = r.Header.Get("Authorization") == token || r.Header.Get("X-Aws-Ec2-Metadata-Token") == token
					http.Redirect(w, r, elsewhere.URL+"/"+token, status)
				}))
				defer here.Close()
				for name, value := range env {
					t.Setenv(name, strings.Replace(value, "here", here.URL, 1))
				}
				_, err := mskCredentials(t.Context())
				if err == nil || !asked {
					t.Fatalf("asked %v, got %v, want a refusal", asked, err)
				}
				// A 302 the SDK refuses itself.
				if status != http.StatusFound && (!strings.Contains(err.Error(), "do not follow redirects") || strings.Contains(err.Error(), token)) {
					t.Errorf("got %v, want an error that names the redirect, and not its address", err)
				}
			})
		}
	}
}

// A key file is read, and what is in it stays there.
func TestKeyStaysOutOfErrors(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{TLS: true, ClientCert: true})
	sec := b.Security()
	key, err := os.ReadFile(sec.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	err = checkTLS(TLS{CAFile: sec.CAFile, CertFile: sec.KeyFile, KeyFile: sec.KeyFile})
	if err == nil {
		t.Fatal("a key was taken for a certificate")
	}
	for line := range strings.Lines(string(key)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") && strings.Contains(err.Error(), line) {
			t.Errorf("got %v, which repeats the key", err)
		}
	}
}

// Some endpoints write the lifetime of a token as a float; before, that was no token.
func TestOAuthTokenMayExpireInAFloat(t *testing.T) {
	o := OAuth{TokenURL: "https://idp.example/token", ClientID: "bridge", ReadClientSecret: func() (string, error) { return "s", nil }}
	o.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(`{"access_token":"t","expires_in":3599.0}`))}, nil
	})
	if token, err := o.Token(); err != nil || token.AccessToken != "t" || token.Expiry.IsZero() {
		t.Errorf("got %v and %v, want a token that expires", token, err)
	}
}

// A byte order mark, at the beginning or where files were put together, hides
// the certificate behind it.
func TestTLSFilesMayBeMarked(t *testing.T) {
	sec := kafkatest.StartFake(t, kafkatest.Options{TLS: true, ClientCert: true}).Security()
	marked := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "marked.pem")
		if err := os.WriteFile(file, append([]byte("\ufeff"), text...), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	if err := checkTLS(TLS{CAFile: marked(sec.CAFile), CertFile: marked(sec.CertFile), KeyFile: marked(sec.KeyFile)}); err != nil {
		t.Errorf("got %v, want the files read", err)
	}
}
