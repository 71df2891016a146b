package admin

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/setup"
)

// lively is a page of live events: it names what it was asked, and sends until the
// request ends.
type lively struct {
	until  bool
	status int // of an error
}

func (l lively) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.status != 0 {
		w.WriteHeader(l.status)
		_, _ = io.WriteString(w, `{"error":"16 viewers are connected already"}`)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, "data: "+r.URL.String()+"\n\n")
	_ = http.NewResponseController(w).Flush()
	if l.until {
		<-r.Context().Done()
	}
}

// slow is a manager whose check waits for its context after the first step.
type slow struct{ Manager }

func (s slow) Check(ctx context.Context, _ string, _ *manage.Patch, step func(pipeline.CheckStep)) error {
	step(pipeline.CheckStep{Step: "kafka", Status: pipeline.StepOK})
	<-ctx.Done()
	return ctx.Err()
}

func (s slow) Prepare(ctx context.Context, _ manage.PrepareRequest, _ manage.Who, _ bool, step func(setup.Item)) (manage.Prepared, error) {
	step(setup.Item{Statement: "CREATE", State: setup.Started})
	<-ctx.Done()
	return manage.Prepared{}, ctx.Err()
}

// open sends a request to a server and returns the answer after its first line.
func open(ctx context.Context, t *testing.T, server *httptest.Server, method, path string) (*bufio.Reader, string) {
	t.Helper()
	body := ""
	if strings.HasSuffix(path, "/prepare") {
		body = pageBody
	}
	req, err := http.NewRequestWithContext(ctx, method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	got, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { got.Body.Close() })
	if kind := got.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("got Content-Type: %s", kind)
	}
	in := bufio.NewReader(got.Body)
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return in, line
}

// A stream ends with its client and with the server; TestMain finds what is left.
func TestStreamsEnd(t *testing.T) {
	for path, want := range map[string]string{Prefix + "/integrations/web/events": "data: /live/stream?integration=web\n", Prefix + "/integrations/web/check": "event: step\n", preparePath: "event: step\n"} {
		name := "POST"
		if strings.HasSuffix(path, "/events") {
			name = "GET"
		}
		for _, client := range []bool{true, false} {
			r := newRig(t, func(c *Config) { c.Live, c.Manager = lively{until: true}, slow{c.Manager} })
			r.install(t, "web")
			ended := make(chan struct{})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				defer close(ended)
				r.ServeHTTP(w, req)
			}))
			ctx, cancel := context.WithCancel(t.Context())
			in, line := open(ctx, t, server, name, path)
			if line != want {
				t.Errorf("got %q, want %q", line, want)
			}
			if client {
				cancel()
			} else {
				r.Stop()
				rest, err := io.ReadAll(in)
				if err != nil || name == "POST" && !strings.Contains(string(rest), "event: failure\ndata: {\"error\":{\"code\":\"STOPPING\"") {
					t.Errorf("got %q %v, want the reason", rest, err)
				}
			}
			<-ended
			cancel()
			server.Close()
		}
	}
}

// stepping is a manager whose check has two steps.
type stepping struct{ Manager }

func (stepping) Check(_ context.Context, _ string, _ *manage.Patch, step func(pipeline.CheckStep)) error {
	step(pipeline.CheckStep{Step: "kafka", Status: pipeline.StepOK, Detail: "cluster <b>x</b>"})
	step(pipeline.CheckStep{Step: "table", Status: pipeline.StepFailed, Error: "no such table"})
	return nil
}

func TestStreamedCheck(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Manager = stepping{c.Manager} })
	at := Prefix + "/integrations/web/check"
	w := r.send(t, "POST", at, "", "Accept", "text/event-stream")
	const want = `event: step
data: {"step":"kafka","status":"ok","detail":"cluster \u003cb\u003ex\u003c/b\u003e"}

event: step
data: {"step":"table","status":"failed","error":"no such table"}

event: done
data: {"ok":false}

`
	if w.Code != 200 || w.Body.String() != want {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if w := r.send(t, "POST", at, `{"config":{}}`); w.Code != 200 || !strings.HasPrefix(w.Body.String(), `{"ok":false,"steps":[{`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	r.expect(t, 422, "VALIDATION_FAILED", "POST", at, `{"x":1}`, "Accept", "text/event-stream")
	real := newRig(t)
	real.expect(t, 404, "NOT_FOUND", "POST", Prefix+"/integrations/none/check", "", "Accept", "text/event-stream")
	real.install(t, "web")
	w = real.send(t, "POST", at, "", "Accept", "text/event-stream")
	if body := w.Body.String(); !strings.Contains(body, `data: {"step":"token","status":"ok"`) || !strings.Contains(body, "event: done") {
		t.Errorf("got %d %s", w.Code, body)
	}
	// The stored secret is not sent to another host.
	real.expect(t, 422, "VALIDATION_FAILED", "POST", at, `{"config":{"workspace_url":"https://other.cloud.databricks.com"}}`)
}

func TestEventsThatAreNotAvailable(t *testing.T) {
	r := newRig(t)
	r.install(t, "web")
	r.expect(t, 503, "UNAVAILABLE", "GET", Prefix+"/integrations/web/events", "")
	full := newRig(t, func(c *Config) { c.Live = lively{status: 503} })
	full.install(t, "web")
	if got := full.expect(t, 503, "UNAVAILABLE", "GET", Prefix+"/integrations/web/events", ""); !strings.Contains(got.Error.Message, "16 viewers") {
		t.Errorf("got %+v", got)
	}
}

// Live events and the console are served beside the API.
func TestOtherPaths(t *testing.T) {
	console := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "console "+r.URL.Path) })
	r := newRig(t, func(c *Config) { c.Live, c.Console = lively{}, console })
	for path, want := range map[string]string{"/": "console /", "/library": "console /library", "/live/x": "data: /live/x\n\n", "/v1/administrator": "console /v1/administrator"} {
		if w := r.send(t, "GET", path, ""); w.Body.String() != want {
			t.Errorf("%s: got %q, want %q", path, w.Body, want)
		}
	}
}

// The commands of docs/admin-api.md make a line of the file of tokens.
func TestTokenCommands(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "admin-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```sh\n(TOKEN=.*?)```").FindSubmatch(text)
	if m == nil {
		t.Fatal("docs/admin-api.md has no commands that make a token")
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("openssl is not installed")
		}
		t.Skip("openssl is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	run := exec.CommandContext(ctx, "bash", "-euc", string(m[1]))
	run.Dir = t.TempDir()
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	who, err := access.Files{Tokens: filepath.Join(run.Dir, "tokens")}.Lookup()(strings.TrimSpace(string(out)))
	if err != nil || who.Role != access.Editor {
		t.Errorf("the token %s: got %v %v", out, who, err)
	}
}
