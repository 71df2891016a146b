package zerobus_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus"
)

// TestRowsAreFreeOnceWriteReturns overwrites the rows the moment Write returns
// while the server leaves bodies half read: under the race detector any late
// read by net/http shows.
func TestRowsAreFreeOnceWriteReturns(t *testing.T) {
	space := newWorkspace()
	// The server answers 413 to a body it has not read.
	early := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/ingest") {
			fail(w, 413, "REQUEST_TOO_LARGE", "no")
			return
		}
		space.ServeHTTP(w, r)
	})
	b := onSockets(t, early, nil)
	batch := [][]byte{[]byte(`{"message_id":"` + strings.Repeat("x", 8<<20) + `"}`)}
	for range 10 {
		err := b.WriteLatest(t.Context(), batch)
		var no *zerobus.RefusedError
		if !errors.As(err, &no) {
			// A reset connection may win over the answer; that is a retry, not an end.
			t.Fatalf("Write: %v, want a refusal", err)
		}
		for i := range batch[0] {
			batch[0][i] = 'y'
		}
	}
}

func TestConnectionsThatBreakAreRetried(t *testing.T) {
	b := onSockets(t, newWorkspace(), nil)
	cut := map[int]bool{1: true, 3: true}
	n := 0
	b.space.onIngest = func(_ http.ResponseWriter, _ *http.Request, rows []json.RawMessage) bool {
		b.space.set(func() {
			n++
			if n == 3 { // kept, and the ack is lost
				for _, row := range rows {
					b.space.rows = append(b.space.rows, string(row))
				}
			}
		})
		if cut[n] {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	write(t, b, rows(5))
	write(t, b, rows(5))
	distinct := map[string]bool{}
	for _, row := range b.space.stored() {
		distinct[row] = true
	}
	if got := len(b.space.stored()); got != 15 || len(distinct) != 5 {
		t.Errorf("%d rows, %d distinct, want 15 and 5: duplicates for a lost ack, no loss", got, len(distinct))
	}
	if got := b.obs.count(b.obs.retries, zerobus.RetryNetwork); got != 2 {
		t.Errorf("%d retries for the network, want 2", got)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	followed := make(chan string, 10)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { followed <- r.Header.Get("Authorization") }))
	defer elsewhere.Close()
	b := onSockets(t, http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect), nil)
	err := b.Preflight(t.Context())
	if !zerobus.IsPermanent(err) || !strings.Contains(err.Error(), "workspace's own address") {
		t.Errorf("Preflight: %v, want a permanent fault with its remedy", err)
	}
	if len(followed) != 0 {
		t.Errorf("the redirect was followed with Authorization %q", <-followed)
	}
}

func TestTLS(t *testing.T) {
	space := newWorkspace()
	server := httptest.NewUnstartedServer(space)
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	server.StartTLS()
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	notPEM := filepath.Join(t.TempDir(), "not.pem")
	if err := os.WriteFile(notPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, file, want string
		permanent        bool
	}{
		{"trusted", file, "", false},
		{"unknown authority", "", "zerobus.ca_file", false},
		{"no such file", filepath.Join(t.TempDir(), "none.pem"), "no such file", true},
		{"not PEM", notPEM, "no certificate in PEM form", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(server.URL)
			cfg.CAFile = tt.file
			c, err := zerobus.New(cfg, zap.NewNop(), nil)
			if err != nil {
				t.Fatalf("New: %v", err)
			}
			defer c.Close()
			err = c.Reachable(t.Context())
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Reachable: %v, want it to hold %q", err, tt.want)
			}
			if got := zerobus.IsPermanent(err); got != tt.permanent {
				t.Errorf("IsPermanent is %v, want %v: %v", got, tt.permanent, err)
			}
		})
	}
}

// TestUnreachableServices wants the address named that was asked, with its own
// port: a firewall rule needs it.
func TestUnreachableServices(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	closed := strings.TrimPrefix(gone.URL, "http://")
	for _, tt := range []struct{ name, workspace, tokens, want string }{
		{"refused", gone.URL, "", "reaches " + closed + ": "},
		{"refused at another token endpoint", "https://nowhere.invalid", gone.URL + "/token", "reaches " + closed + ": "},
		{"unresolvable", "https://nowhere.invalid", "", "check the spelling of zerobus.workspace_url (https://nowhere.invalid)"},
		{"unresolvable token endpoint", gone.URL, "https://nowhere.invalid/token", "check the spelling of zerobus.token_url (https://nowhere.invalid)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(tt.workspace)
			cfg.TokenURL = tt.tokens
			c, err := zerobus.New(cfg, zap.NewNop(), nil)
			if err != nil {
				t.Fatalf("New: %v", err)
			}
			defer c.Close()
			err = c.Preflight(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || zerobus.IsPermanent(err) {
				t.Errorf("Preflight: %v, want a passing fault that holds %q", err, tt.want)
			}
		})
	}
}

// failing is a network on which nothing gets through.
type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

func TestAProxyThatIsAwayIsNamed(t *testing.T) {
	refused := &net.OpError{Op: "proxyconnect", Net: "tcp", Err: &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}}
	c, err := zerobus.NewOver(config("https://abc-12345.cloud.databricks.com"), zap.NewNop(), nil, failing{refused})
	if err != nil {
		t.Fatalf("NewOver: %v", err)
	}
	defer c.Close()
	err = c.Preflight(t.Context())
	if want := "check the address in HTTPS_PROXY, or exempt abc-12345.cloud.databricks.com:443"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Preflight: %v, want %q in it", err, want)
	}
}

func TestSecretsRotateWhileManyWrite(t *testing.T) {
	var mu sync.Mutex
	secret := secretOne
	b := onSockets(t, newWorkspace(), func(c *zerobus.Config) {
		c.ReadCredential = func() (string, error) {
			mu.Lock()
			defer mu.Unlock()
			return secret, nil
		}
		c.ProbeEvery = 20 * time.Millisecond
	})
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	const writers, batches = 50, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range batches {
				if err := b.WriteLatest(ctx, [][]byte{fmt.Appendf(nil, `{"n":%d}`, w*batches+i)}); err != nil {
					t.Errorf("Write: %v", err)
					return
				}
			}
		})
	}
	for i := range 10 {
		next := []string{secretTwo, secretOne}[i%2]
		b.space.set(func() { b.space.secret = next; clear(b.space.tokens) })
		mu.Lock()
		secret = next
		mu.Unlock()
		if err := b.Token(ctx); err != nil {
			t.Logf("Token in the middle of a rotation: %v", err)
		}
	}
	wg.Wait()
	distinct := map[string]bool{}
	for _, row := range b.space.stored() {
		distinct[row] = true
	}
	if got, want := len(distinct), writers*batches; got != want {
		t.Errorf("%d distinct rows stored, want %d", got, want)
	}
}

// TestNoSecretIsLogged lets a hostile or careless service repeat all it was
// sent, and looks through every error, state and log line.
func TestNoSecretIsLogged(t *testing.T) {
	for _, status := range []int{200, 302, 400, 401, 403, 404, 429, 500, 501} {
		for _, where := range []string{"token", "ingest", "columns"} {
			t.Run(fmt.Sprint(where, status), func(t *testing.T) {
				b := onSockets(t, newWorkspace(), func(c *zerobus.Config) { c.ProbeEvery = time.Hour })
				b.SetRowColumns(rowColumns)
				repeat := func(w http.ResponseWriter, r *http.Request) bool {
					_, given, _ := r.BasicAuth()
					all := fmt.Sprint(r.Header.Get("Authorization"), " ", given, " ", secretOne)
					w.Header().Set("X-Databricks-Reason-Phrase", all)
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					json.NewEncoder(w).Encode(map[string]any{"error_code": all, "message": all, "error": all, "error_description": all,
						"error_uri": all, "details": []any{map[string]string{"column": all}}, "records_ingested": all})
					return true
				}
				switch where {
				case "token":
					b.space.onToken = repeat
				case "ingest":
					b.space.onIngest = func(w http.ResponseWriter, r *http.Request, _ []json.RawMessage) bool { return repeat(w, r) }
				case "columns":
					b.space.onColumns = repeat
					b.space.onIngest = answers(400)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				reported := fmt.Sprint(b.WriteLatest(ctx, rows(1)), b.Token(ctx), b.Reachable(ctx), b.Preflight(ctx))
				state := b.State()
				reported += state.Reason + state.Remedy + text(t, b.logs)
				basic := base64.StdEncoding.EncodeToString([]byte(principal + ":" + escaped(secretOne)))
				for _, secret := range []string{secretOne, escaped(secretOne), "token-1-of-test", basic} {
					if strings.Contains(reported, secret) {
						t.Errorf("%q was reported:\n%s", secret, reported)
					}
				}
			})
		}
	}
}

func FuzzTokenAnswer(f *testing.F) {
	f.Add(200, "application/json", []byte(`{"access_token":"t","expires_in":"60"}`))
	f.Add(200, "text/plain", []byte(`access_token=t&expires_in=60`))
	f.Add(200, "application/json", []byte(`{"access_token":"\u0000"}`))
	f.Add(401, "application/json", []byte(`{"error":{}}`))
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		rt := roundTrip(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/ingest") {
				if got := r.Header.Get("Authorization"); strings.ContainsFunc(got, func(c rune) bool { return c < ' ' || c > '~' }) {
					t.Errorf("Authorization is %q, want printable ASCII", got)
				}
				return &http.Response{StatusCode: 204, Body: http.NoBody, Header: http.Header{}}, drain(r)
			}
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}},
				Body: io.NopCloser(strings.NewReader(string(body)))}, drain(r)
		})
		c, err := zerobus.NewOver(config("https://abc.cloud.databricks.com"), zap.NewNop(), nil, rt)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Reachable(context.Background())
		if err == nil && status/100 != 2 {
			t.Errorf("status %d brought a token", status)
		}
		if err != nil && (strings.Contains(err.Error(), secretOne) || strings.ContainsRune(err.Error(), '\n')) {
			t.Errorf("error is %q, want one line without the secret", err)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func drain(r *http.Request) error {
	if r.Body == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, r.Body)
	return errors.Join(err, r.Body.Close())
}

// Neither the workspace nor the endpoint is spoken to below TLS 1.2.
func TestOldTLSIsRefused(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s came through with %v", r.URL, r.Header)
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11} // the server that must be refused
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	server.StartTLS()
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	modern := httptest.NewTLSServer(newWorkspace()) // mints tokens; its certificate is the same
	defer modern.Close()
	for _, transport := range []string{zerobus.TransportWorkspace, zerobus.TransportREST, zerobus.TransportGRPC} {
		t.Run(transport, func(t *testing.T) {
			cfg := config(server.URL)
			cfg.CAFile, cfg.Transport = file, transport
			if transport != zerobus.TransportWorkspace {
				cfg.WorkspaceURL, cfg.Endpoint, cfg.WorkspaceID = modern.URL, server.URL, "1234567890123456"
			}
			c, err := zerobus.New(cfg, zap.NewNop(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Reachable(t.Context()); err == nil || !strings.Contains(err.Error(), "tls: ") {
				t.Errorf("got %v, want a fault of TLS", err)
			}
		})
	}
}
