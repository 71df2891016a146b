package zerobus_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

const (
	pagePath   = "/api/2.0/streaming-ingestion/ingest"
	summary    = "/api/2.1/unity-catalog/metastore_summary"
	assignment = "/api/2.1/unity-catalog/current-metastore-assignment"
	restPath   = "/zerobus/v1/tables/datafly.events.stream/insert"
)

// place is a workspace and its Zerobus endpoint. Each hook answers a path in place of the
// regular behaviour.
type place struct {
	space *workspace

	mu       sync.Mutex // guards the fields below
	hooks    map[string]http.HandlerFunc
	dialing  func(ctx context.Context) error // nil: the connection is made
	conns    []net.Conn
	requests []string
	rows     []string // by REST
}

func (p *place) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests = append(p.requests, r.URL.Path)
	hook := p.hooks[r.URL.Path]
	p.mu.Unlock()
	switch {
	case hook != nil:
		io.Copy(io.Discard, r.Body)
		hook(w, r)
	case r.URL.Path == summary:
		w.Header().Set("X-Databricks-Org-Id", "1234567890123456")
		io.WriteString(w, `{"metastore_id":"m","cloud":"aws","region":"us-west-2","zerobus_endpoint":"http://127.0.0.1:8091"}`)
	case r.URL.Path == restPath:
		text, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		p.rows = append(p.rows, splitRows(string(text))...)
		p.mu.Unlock()
		io.WriteString(w, "{}")
	default:
		p.space.ServeHTTP(w, r)
	}
}

func splitRows(array string) []string {
	array = strings.Trim(array, "[]")
	if array == "" {
		return nil
	}
	return strings.SplitAfter(strings.ReplaceAll(array, "},{", "}\x00{"), "\x00")
}

func (p *place) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// cut breaks the connections of gRPC.
func (p *place) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

// asked counts the requests to a path.
func (p *place) asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, r := range p.requests {
		if r == path {
			n++
		}
	}
	return n
}

func failsWith(status int, code, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fail(w, status, code, message) }
}

// gone is a workspace that does not serve a path.
var gone = failsWith(404, "ENDPOINT_NOT_FOUND", "No API found")

func refusesToDial(context.Context) error { return errors.New("connection refused") }

func hangs(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// placed returns clients of a place, for use in a synctest bubble. change may be nil.
func placed(t *testing.T, svc *service, change func(*zerobus.Config)) (*place, func() bench) {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	zerobuspb.RegisterZerobusServer(server, svc)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	p := &place{space: newWorkspace(), hooks: map[string]http.HandlerFunc{}}
	connections := zerobus.DialedConnections(func(ctx context.Context, _ string) (net.Conn, error) {
		p.mu.Lock()
		dialing := p.dialing
		p.mu.Unlock()
		if dialing != nil {
			if err := dialing(ctx); err != nil {
				return nil, err
			}
		}
		conn, err := listener.DialContext(ctx)
		p.set(func() { p.conns = append(p.conns, conn) })
		return conn, err
	})
	var clients []*zerobus.Client
	t.Cleanup(func() {
		for _, c := range clients {
			c.Close()
		}
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("Serve: %v", err)
		}
	})
	return p, func() bench {
		cfg := config("http://127.0.0.1:8080")
		cfg.Transport, cfg.Connections = "", connections
		if change != nil {
			change(&cfg)
		}
		core, logs := observer.New(zap.DebugLevel)
		obs := &observed{}
		c, err := zerobus.NewOver(cfg, zap.New(core), obs, inMemory{p})
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
		return bench{c, p.space, logs, obs}
	}
}

// placedAndEncoded returns a place, and a client that has decided and has rows encoded.
func placedAndEncoded(t *testing.T) (*place, bench, *encodes) {
	t.Helper()
	p, newClient := placed(t, &service{}, nil)
	b := newClient()
	if err := b.Decide(t.Context()); err != nil {
		t.Fatal(err)
	}
	e := &encodes{b: b}
	e.encode(t)
	return p, b, e
}

// TestDecide goes through the answers that decide, and those that do not.
func TestDecide(t *testing.T) {
	ends := func(code codes.Code, text string) func(int, *served) error {
		return func(int, *served) error { return status.Error(code, text) }
	}
	for _, tc := range []struct {
		name   string
		change func(*zerobus.Config)
		hooks  map[string]http.HandlerFunc
		handle func(n int, s *served) error
		dial   func(context.Context) error
		limit  time.Duration // 0: that of a start-up check

		want    string // transport; empty: an error
		because string // part of the reason, or of the error
		never   string // path that must not be asked
	}{
		{name: "the page's path is served", want: "workspace", because: "serves " + pagePath, never: summary},
		{name: "the page's path refuses the batch for being empty", hooks: map[string]http.HandlerFunc{pagePath: failsWith(400, "INVALID_PARAMETER_VALUE", "no records")},
			want: "workspace", because: "serves", never: summary},
		{name: "a missing grant is an error", hooks: map[string]http.HandlerFunc{pagePath: failsWith(403, "PERMISSION_DENIED", "no")},
			because: "GRANT SELECT, MODIFY", never: summary},
		{name: "a missing table is an error", hooks: map[string]http.HandlerFunc{pagePath: failsWith(404, "TABLE_DOES_NOT_EXIST", "no")},
			because: "there is no table", never: summary},
		{name: "404 of another form is an error", hooks: map[string]http.HandlerFunc{pagePath: http.NotFound}, because: "404", never: summary},
		{name: "200 that confirms nothing is an error", hooks: map[string]http.HandlerFunc{pagePath: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }},
			because: "not the service's answer", never: summary},
		{name: "not served", hooks: map[string]http.HandlerFunc{pagePath: gone}, want: "grpc", because: "does not serve " + pagePath, never: restPath},
		{name: "not served, id from the assignment", hooks: map[string]http.HandlerFunc{pagePath: gone,
			summary: func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, `{"cloud":"aws","region":"us-west-2","zerobus_endpoint":"http://127.0.0.1:8091"}`)
			},
			assignment: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"workspace_id":1234567890123456}`) }}, want: "grpc"},
		{name: "the service answers badly over gRPC", hooks: map[string]http.HandlerFunc{pagePath: gone}, handle: ends(codes.PermissionDenied, "no"), want: "grpc", never: restPath},
		{name: "the service is busy over gRPC", hooks: map[string]http.HandlerFunc{pagePath: gone},
			handle: ends(codes.Unavailable, "busy. Error Code: 1234, Error State: 0."), want: "grpc", never: restPath},
		{name: "gRPC fails once", hooks: map[string]http.HandlerFunc{pagePath: gone}, handle: func(n int, s *served) error {
			if n == 1 {
				return status.Error(codes.Unavailable, "a moment")
			}
			return s.serve()
		}, want: "grpc", never: restPath},
		{name: "gRPC is refused", hooks: map[string]http.HandlerFunc{pagePath: gone}, dial: refusesToDial, want: "rest", because: "gRPC does not pass: writing rows: "},
		{name: "gRPC is swallowed", hooks: map[string]http.HandlerFunc{pagePath: gone}, dial: hangs, want: "rest", because: "gRPC does not pass"},
		{name: "gRPC is swallowed and time is short", limit: 8 * time.Second, hooks: map[string]http.HandlerFunc{pagePath: gone}, dial: hangs, want: "rest", because: "gRPC does not pass"},
		{name: "gRPC is not implemented", hooks: map[string]http.HandlerFunc{pagePath: gone}, handle: ends(codes.Unimplemented, "no such method"), want: "rest", because: "UNIMPLEMENTED"},
		{name: "REST refuses in the service's form", hooks: map[string]http.HandlerFunc{pagePath: gone, restPath: failsWith(403, "PERMISSION_DENIED", "no")},
			dial: refusesToDial, want: "rest"},
		{name: "neither passes", hooks: map[string]http.HandlerFunc{pagePath: gone, restPath: failsWith(503, "", "")}, dial: refusesToDial,
			because: "check that the bridge reaches 127.0.0.1:8091"},
		{name: "REST answers in another's form", hooks: map[string]http.HandlerFunc{pagePath: gone, restPath: failsWith(400, "", "")}, dial: refusesToDial,
			because: "check that the bridge reaches 127.0.0.1:8091"},
		{name: "REST is another workspace's", hooks: map[string]http.HandlerFunc{pagePath: gone, restPath: failsWith400}, dial: refusesToDial,
			because: "check that the bridge reaches 127.0.0.1:8091"},
		{name: "a proxy forbids REST", hooks: map[string]http.HandlerFunc{pagePath: gone, restPath: failsWith(403, "", "")}, dial: refusesToDial,
			because: "check that the bridge reaches 127.0.0.1:8091"},
		{name: "REST does not support it either", hooks: map[string]http.HandlerFunc{pagePath: gone, restPath: failsWith(501, "NOT_IMPLEMENTED", "no")},
			handle: ends(codes.Unimplemented, "no"), because: "UNIMPLEMENTED"},
		{name: "a name that gRPC cannot carry", change: func(c *zerobus.Config) { c.Table = "strøm" }, hooks: map[string]http.HandlerFunc{pagePath: gone},
			want: "rest", because: "gRPC metadata cannot carry the table's name"},
		{name: "the endpoint is set", change: func(c *zerobus.Config) { c.Endpoint, c.WorkspaceID = "http://127.0.0.1:8091", "7" },
			want: "grpc", because: "zerobus.endpoint is set", never: pagePath},
		{name: "the endpoint is set and gRPC is refused", change: func(c *zerobus.Config) { c.Endpoint, c.WorkspaceID = "http://127.0.0.1:8091", "7" },
			dial: refusesToDial, want: "rest", because: "zerobus.endpoint is set; gRPC does not pass", never: summary},
		{name: "no token for the endpoint", change: func(c *zerobus.Config) { c.Endpoint, c.WorkspaceID = "http://127.0.0.1:8091", "7" },
			hooks: map[string]http.HandlerFunc{"/oidc/v1/token": func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusUnauthorized)
				io.WriteString(w, `{"error":"invalid_authorization_details"}`)
			}}, dial: refusesToDial, want: "grpc", because: "zerobus.endpoint is set; gRPC was not tried, since no token came for the table", never: restPath},
		{name: "the transport is set", change: func(c *zerobus.Config) { c.Transport = "rest" }, want: "rest", because: "zerobus.transport is set", never: pagePath},
		{name: "the transport is set and gRPC is refused", change: func(c *zerobus.Config) { c.Transport = "grpc" }, dial: refusesToDial,
			want: "grpc", because: "zerobus.transport is set", never: restPath},
		{name: "lenient confirmation", change: func(c *zerobus.Config) { c.Confirm = "lenient" }, hooks: map[string]http.HandlerFunc{pagePath: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }},
			want: "workspace"},
		{name: "strict confirmation", hooks: map[string]http.HandlerFunc{pagePath: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }},
			because: "zerobus.confirm to lenient"},
		{name: "both are set", change: func(c *zerobus.Config) {
			c.Transport, c.Endpoint, c.WorkspaceID = "grpc", "http://127.0.0.1:8091", "7"
		}, want: "grpc", because: "zerobus.transport is set", never: summary},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, newClient := placed(t, &service{handle: tc.handle}, tc.change)
				p.hooks, p.dialing = tc.hooks, tc.dial
				b := newClient()
				if s := b.State(); tc.want != "" && !slices.Contains([]string{"auto", tc.want}, s.Transport) {
					t.Errorf("before: %+v", s)
				}
				limit := cmp.Or(tc.limit, 45*time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				err := b.Decide(ctx)
				if ctx.Err() != nil {
					t.Fatalf("the decision outlasts %v", limit)
				}
				s := b.State()
				switch {
				case tc.want == "":
					if err == nil || !strings.Contains(err.Error(), tc.because) || s.Transport != "auto" {
						t.Fatalf("Decide: %v, transport %s; want an error with %q", err, s.Transport, tc.because)
					}
				case err != nil || s.Transport != tc.want || !strings.Contains(s.TransportReason, tc.because):
					t.Fatalf("Decide: %v, %s because %q; want %s because %q", err, s.Transport, s.TransportReason, tc.want, tc.because)
				default:
					where := map[bool]string{true: "http://127.0.0.1:8080", false: "http://127.0.0.1:8091"}[tc.want == "workspace"]
					if s.Endpoint != where {
						t.Errorf("rows go to %s, want %s", s.Endpoint, where)
					}
				}
				if tc.never != "" && p.asked(tc.never) > 0 {
					t.Errorf("%s was asked", tc.never)
				}
				lines := b.logs.FilterMessage("transport decided").Len()
				if tc.want != "" && tc.name != "both are set" && lines != 1 {
					t.Errorf("%d lines say what was decided, want 1", lines)
				}
				before := len(p.requests)
				if err := b.Decide(t.Context()); tc.want != "" && (err != nil || len(p.requests) != before) {
					t.Errorf("a second Decide: %v with %d requests, want none", err, len(p.requests)-before)
				}
			})
		})
	}
}

// TestDiscoveryNamesWhatIsMissing takes each permission and fact of the discovery away alone.
func TestDiscoveryNamesWhatIsMissing(t *testing.T) {
	const aws, azure = "https://abc-12345.cloud.databricks.com", "https://adb-1.2.azuredatabricks.net"
	saying := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
	}
	known := saying(`{"cloud":"aws","region":"us-west-2"}`)
	withID := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Databricks-Org-Id", "42"); next(w, r) }
	}
	byHand := "set zerobus.endpoint to <workspace id>.zerobus.<region>.cloud.databricks.com and zerobus.workspace_id to <workspace id>: the id is the number after ?o="
	for _, tc := range []struct {
		name, url string
		hooks     map[string]http.HandlerFunc
		wants     []string
		permanent bool
	}{
		{"summary 401", aws, map[string]http.HandlerFunc{summary: failsWith(401, "UNAUTHENTICATED", "no")}, []string{"HTTP 401", summary, "service principal is in the workspace " + aws, byHand}, true},
		{"summary 403", aws, map[string]http.HandlerFunc{summary: failsWith(403, "PERMISSION_DENIED", "no")}, []string{"PERMISSION_DENIED", summary, principal, byHand}, true},
		{"summary 403 with the id", aws, map[string]http.HandlerFunc{summary: withID(failsWith(403, "PERMISSION_DENIED", "no"))},
			[]string{"set zerobus.endpoint to 42.zerobus.<region>.cloud.databricks.com and zerobus.workspace_id to 42"}, true},
		{"summary 403 with an id that is none", aws, map[string]http.HandlerFunc{summary: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Databricks-Org-Id", "evil.example/")
			fail(w, 403, "PERMISSION_DENIED", "no")
		}}, []string{byHand}, true},
		{"no metastore", azure, map[string]http.HandlerFunc{summary: failsWith(404, "METASTORE_DOES_NOT_EXIST", "no")},
			[]string{"no Unity Catalog metastore is assigned", "account admin", "<workspace id>.zerobus.<region>.azuredatabricks.net"}, true},
		{"summary 503", aws, map[string]http.HandlerFunc{summary: failsWith(503, "", "")}, []string{"HTTP 503", summary, "not ready"}, false},
		{"summary is a page", aws, map[string]http.HandlerFunc{summary: saying("<html>")}, []string{summary, "answers in its place"}, false},
		{"summary without an answer", aws, map[string]http.HandlerFunc{summary: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
			[]string{summary, "check that the bridge reaches abc-12345.cloud.databricks.com:443", byHand}, false},
		{"assignment 403", aws, map[string]http.HandlerFunc{summary: known, assignment: failsWith(403, "PERMISSION_DENIED", "no")}, []string{assignment, "PERMISSION_DENIED", byHand}, true},
		{"assignment without an id", aws, map[string]http.HandlerFunc{summary: known, assignment: saying("{}")}, []string{assignment, "names no workspace id", byHand}, true},
		{"id that is no number", aws, map[string]http.HandlerFunc{summary: known, assignment: saying(`{"workspace_id":"abc"}`)}, []string{"names no workspace id", byHand}, true},
		{"id that is no whole number", aws, map[string]http.HandlerFunc{summary: known, assignment: saying(`{"workspace_id":-1.5e9}`)}, []string{"names no workspace id"}, true},
		{"unknown cloud", aws, map[string]http.HandlerFunc{summary: withID(saying(`{"cloud":"moon","region":"us-west-2"}`))}, []string{`the cloud "moon"`, "zerobus.workspace_id to 42"}, true},
		{"no region", aws, map[string]http.HandlerFunc{summary: withID(saying(`{"cloud":"aws"}`))}, []string{`the region ""`, "zerobus.workspace_id to 42"}, true},
		{"an emulator's endpoint elsewhere", "http://127.0.0.1:8080", map[string]http.HandlerFunc{summary: withID(saying(`{"zerobus_endpoint":"https://evil.example"}`))},
			[]string{"no address of this machine"}, true},
		{"no secret", aws, map[string]http.HandlerFunc{"/oidc/v1/token": failsWith(401, "invalid_client", "no")}, []string{"minting a token", "client secret"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, newClient := placed(t, &service{}, func(c *zerobus.Config) { c.WorkspaceURL = tc.url })
				p.hooks = tc.hooks
				p.hooks[pagePath] = gone
				b := newClient()
				err := b.Decide(t.Context())
				for _, want := range tc.wants {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("Decide: %v\nwant it to hold %q", err, want)
					}
				}
				if zerobus.IsPermanent(err) != tc.permanent {
					t.Errorf("Decide: %v, permanent %v, want %v", err, !tc.permanent, tc.permanent)
				}
				if strings.Contains(fmt.Sprint(err), secretOne) || strings.Contains(fmt.Sprint(err), "of-test") {
					t.Errorf("Decide: %v holds a secret", err)
				}
			})
		})
	}
}

// TestAForeignEndpointIsForEmulatorsOnly ignores the endpoint that a workspace names outright,
// unless the workspace is on this machine.
func TestAForeignEndpointIsForEmulatorsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, newClient := placed(t, &service{}, func(c *zerobus.Config) {
			c.WorkspaceURL, c.Transport = "https://abc-12345.cloud.databricks.com", "rest"
		})
		p.hooks[pagePath] = gone
		b := newClient()
		if err := b.Decide(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := b.State().Endpoint, "https://1234567890123456.zerobus.us-west-2.cloud.databricks.com"; got != want {
			t.Errorf("endpoint %s, want %s", got, want)
		}
	})
}

// TestAnEndpointThatWasFound names the keys to set by hand where the endpoint that the
// workspace named is not the right one; an endpoint of the configuration is named itself.
func TestAnEndpointThatWasFound(t *testing.T) {
	const byHand = "the workspace named this endpoint: if it is another, set zerobus.endpoint to 1234567890123456.zerobus."
	lost := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for name, hook := range map[string]http.HandlerFunc{"another workspace or region": failsWith400, "not supported": failsWith(501, "NOT_IMPLEMENTED", "no"), "no answer": lost} {
		for _, endpoint := range []string{"", "http://127.0.0.1:8091"} {
			synctest.Test(t, func(t *testing.T) {
				p, newClient := placed(t, &service{}, func(c *zerobus.Config) {
					if c.Transport, c.Endpoint = "rest", endpoint; endpoint != "" {
						c.WorkspaceID = "1234567890123456"
					}
				})
				p.hooks[restPath] = hook
				b := newClient()
				err := b.Reachable(t.Context())
				if err == nil || strings.Contains(err.Error(), byHand) != (endpoint == "") || !strings.Contains(err.Error(), "127.0.0.1:8091") {
					t.Errorf("%s, endpoint %q: %v", name, endpoint, err)
				}
			})
		}
	}
}

func failsWith400(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }

// TestClientsShareAChoice has a second client of the process adopt what the first has found,
// also after a change.
func TestClientsShareAChoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, newClient := placed(t, &service{}, nil)
		p.hooks[pagePath] = gone
		one, two := newClient(), newClient()
		if err := one.Reachable(t.Context()); err != nil {
			t.Fatal(err)
		}
		asked := p.asked(summary)
		if err := two.Reachable(t.Context()); err != nil || two.State().Transport != "grpc" || p.asked(summary) != asked || p.asked(pagePath) != 1 {
			t.Errorf("second client: %v, %s, %d and %d more requests; want grpc and none", err, two.State().Transport, p.asked(summary)-asked, p.asked(pagePath)-1)
		}
		p.set(func() { delete(p.hooks, pagePath) })
		three := newClient()
		three.Close()
		if err := three.Decide(t.Context()); err == nil {
			t.Error("Decide of a closed client: no error")
		}
	})
}

// encodes is what a pipeline does: it encodes rows for the present transport.
type encodes struct {
	b       bench
	mu      sync.Mutex
	version int64
	format  string
	changes int
}

var tableColumns = []zerobus.Column{{Name: "message_id", Type: "STRING"}, {Name: "n", Type: "BIGINT", Position: 1}}

func (e *encodes) encode(t *testing.T) {
	e.mu.Lock()
	defer e.mu.Unlock()
	how, err := e.b.Encoding(tableColumns)
	if err != nil {
		t.Error(err)
	}
	e.changes++
	e.version, e.format = e.b.SetRowColumns(tableColumns), how.Format
}

// row returns a row in the present form.
func (e *encodes) row(n int) (encoded []byte, version int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.format == zerobus.FormatProtobuf {
		id := fmt.Sprintf("m-%d", n)
		return append([]byte{1<<3 | 2, byte(len(id))}, append([]byte(id), 2<<3, byte(n&0x7f))...), e.version
	}
	return row(n), e.version
}

// TestTheWorkspaceStopsServing has the page's path go away and come back in mid-delivery,
// with many writers. Every row arrives, and none in the form of another transport.
func TestTheWorkspaceStopsServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{}
		p, newClient := placed(t, svc, nil)
		b := newClient()
		e := &encodes{b: b}
		if err := b.Decide(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.encode(t)
		watching, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := b.Watch(watching, func([]zerobus.Column, error) { e.encode(t) }); err != nil {
				t.Error(err)
			}
		})
		const writers, each = 8, 120
		var writing sync.WaitGroup
		stales := make([]int, writers)
		for w := range writers {
			writing.Go(func() {
				for i := range each {
					for {
						text, version := e.row(w*each + i)
						_, err := b.Write(t.Context(), version, [][]byte{text})
						if err == nil {
							break
						}
						if stale, ok := errors.AsType[*zerobus.StaleError](err); !ok || !stale.Stale() {
							t.Errorf("Write: %v", err)
							return
						}
						stales[w]++
					}
					<-time.After(time.Second)
				}
			})
		}
		<-time.After(20 * time.Second)
		p.set(func() { p.hooks[pagePath] = gone })
		<-time.After(45 * time.Second)
		if s := b.State(); s.Transport != "grpc" || s.Name != zerobus.Ready {
			t.Errorf("45 s after the path went away: %+v, want grpc and ready", s)
		}
		p.set(func() {
			delete(p.hooks, pagePath)
		})
		svc.set(func() {
			svc.handle = func(int, *served) error { return status.Error(codes.Unimplemented, "no such method") }
		})
		p.cut()
		<-time.After(45 * time.Second)
		if s := b.State(); s.Transport != "workspace" || s.Name != zerobus.Ready {
			t.Errorf("45 s after the path came back: %+v, want workspace and ready", s)
		}
		writing.Wait()
		stop()
		running.Wait()
		got := map[string]int{}
		for _, text := range append(p.space.stored(), svc.stored()...) {
			for n := range writers * each {
				if text == string(row(n)) || strings.HasPrefix(text, fmt.Sprintf("\x0a%cm-%d\x10", len(fmt.Sprintf("m-%d", n)), n)) {
					got[fmt.Sprint(n)]++
				}
			}
		}
		for n := range writers * each {
			if c := got[fmt.Sprint(n)]; c == 0 {
				t.Errorf("row %d is missing", n)
			}
		}
		for _, text := range p.space.stored() {
			if !strings.HasPrefix(text, "{") {
				t.Errorf("the workspace got %q, want JSON", text)
			}
		}
		for _, text := range svc.stored() {
			if strings.HasPrefix(text, "{") {
				t.Errorf("the stream of protobuf got %q", text)
			}
		}
		if e.changes != 3 {
			t.Errorf("rows were encoded %d times, want 3: at first and after each change", e.changes)
		}
		for w, n := range stales {
			if n > 8 {
				t.Errorf("writer %d got %d stale errors, want a few", w, n)
			}
		}
		if len(svc.stored()) == 0 {
			t.Error("nothing came over gRPC")
		}
	})
}

// TestStaleRowsDoNotSpin bounds how often a caller gets rows back as stale while
// nobody encodes others.
func TestStaleRowsDoNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b, e := placedAndEncoded(t)
		p.set(func() { p.hooks[pagePath] = gone })
		text, version := e.row(1)
		if _, err := b.Write(t.Context(), version, [][]byte{text}); err == nil {
			t.Fatal("rows for the old transport were taken")
		}
		began := time.Now()
		for range 5 {
			if _, err := b.Write(t.Context(), version, [][]byte{text}); err == nil {
				t.Fatal("rows for the old transport were taken")
			}
		}
		if took := time.Since(began); took < 5*time.Second {
			t.Errorf("5 stale writes took %v, want a second each", took)
		}
		e.encode(t)
		text, version = e.row(1)
		if _, err := b.Write(t.Context(), version, [][]byte{text}); err != nil {
			t.Errorf("Write of new rows: %v", err)
		}
	})
}

// TestRowsEncodedWhileTheRouteChanges encodes for a transport that is replaced before
// SetRowColumns: the version is stale at once.
func TestRowsEncodedWhileTheRouteChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, newClient := placed(t, &service{}, nil)
		p.hooks[pagePath] = gone
		b := newClient()
		if _, err := b.Encoding(tableColumns); err != nil { // before anything is decided
			t.Fatal(err)
		}
		if err := b.Decide(t.Context()); err != nil || b.State().Transport != "grpc" {
			t.Fatal(err, b.State())
		}
		_, err := b.Write(t.Context(), b.SetRowColumns(tableColumns), [][]byte{row(1)})
		if stale, ok := errors.AsType[*zerobus.StaleError](err); !ok || !stale.Stale() {
			t.Errorf("Write: %v, want a *StaleError", err)
		}
	})
}

// TestTheNetworkFailsForTwoMinutes looks again once the endpoint has been away for so long:
// gRPC is blocked by now, and REST passes.
func TestTheNetworkFailsForTwoMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{}
		p, newClient := placed(t, svc, func(c *zerobus.Config) { c.RecordFormat = "json" })
		p.hooks[pagePath] = gone
		b := newClient()
		if err := b.Decide(t.Context()); err != nil {
			t.Fatal(err)
		}
		e := &encodes{b: b}
		e.encode(t)
		watching, stop := context.WithCancel(t.Context())
		defer stop()
		go b.Watch(watching, func([]zerobus.Column, error) { e.encode(t) })
		limit, done := context.WithTimeout(t.Context(), 10*time.Minute)
		defer done()
		deliver := func(n int) {
			for {
				text, version := e.row(n)
				_, err := b.Write(limit, version, [][]byte{text})
				if err == nil {
					return
				}
				if limit.Err() != nil {
					t.Fatalf("row %d is not delivered: %v", n, err)
				}
			}
		}
		deliver(1)
		p.set(func() { p.dialing = refusesToDial })
		p.cut()
		began := time.Now()
		deliver(2)
		if took := time.Since(began); took < 2*time.Minute || took > 3*time.Minute || b.State().Transport != "rest" {
			t.Errorf("the row was delivered by %s after %v, want rest after two minutes", b.State().Transport, took)
		}
		if len(p.rows) != 1 {
			t.Errorf("REST got %q, want one row", p.rows)
		}
		stop()
	})
}

// TestAPinnedRouteIsNotLookedAtAgain stays blocked on what the configuration fixes.
func TestAPinnedRouteIsNotLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, newClient := placed(t, &service{}, func(c *zerobus.Config) { c.Transport = "workspace" })
		p.hooks[pagePath] = gone
		b := newClient()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := b.WriteLatest(ctx, rows(1)); err == nil || p.asked(summary) > 0 {
			t.Errorf("Write: %v after %d looks, want none", err, p.asked(summary))
		}
		if s := b.State(); s.Name != zerobus.Blocked || !strings.Contains(s.Remedy, "zerobus.transport to auto") {
			t.Errorf("state %+v, want it blocked with the remedy", s)
		}
	})
}

// TestConcurrentDecisions has many callers decide at once: they share one decision.
func TestConcurrentDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, newClient := placed(t, &service{}, nil)
		p.hooks[pagePath] = gone
		b := newClient()
		var running sync.WaitGroup
		for range 16 {
			running.Go(func() {
				if err := b.Decide(t.Context()); err != nil {
					t.Error(err)
				}
				b.State()
			})
		}
		running.Wait()
		if n := p.asked(pagePath); n != 1 {
			t.Errorf("the page's path was asked %d times, want once", n)
		}
	})
}
