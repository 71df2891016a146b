package zerobus_test

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/datafly/bridge/zerobus"
)

// TestAFoundEndpointIsLookedAtAgain has the endpoint that the workspace named answer 501, or
// answer for another workspace, while the page's path is served again: rows go there. One that
// the configuration names is kept.
func TestAFoundEndpointIsLookedAtAgain(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{"501": failsWith(501, "NOT_IMPLEMENTED", "no"), "another workspace": failsWith400} {
		for _, endpoint := range []string{"", "http://127.0.0.1:8091"} {
			t.Run(name+" "+endpoint, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, newClient := placed(t, &service{}, func(c *zerobus.Config) {
						if c.Endpoint = endpoint; endpoint != "" {
							c.WorkspaceID = "7"
						}
					})
					p.hooks[pagePath], p.dialing = gone, refusesToDial
					b := newClient()
					if err := b.Decide(t.Context()); err != nil || b.State().Transport != "rest" {
						t.Fatal(err, b.State())
					}
					if _, err := b.Encoding(tableColumns); err != nil {
						t.Fatal(err)
					}
					p.set(func() { p.hooks = map[string]http.HandlerFunc{restPath: answer} })
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
					defer cancel()
					err := b.WriteLatest(ctx, rows(1))
					if moved := b.State().Transport == "workspace"; moved != (endpoint == "") || moved != (err == nil) {
						t.Errorf("Write: %v over %s; want the workspace: %v", err, b.State().Transport, endpoint == "")
					}
					if endpoint == "" { // both take JSON, so rows encoded before the move are taken
						if _, err := b.Write(ctx, b.SetRowColumns(tableColumns), rows(1)); err != nil {
							t.Errorf("Write of rows encoded before: %v", err)
						}
					}
				})
			})
		}
	}
}

// TestOnlyTheNetworkIsPatienceFor fails for many minutes by what another route does not help
// against, or with an answer in between. The route stays, and nothing is asked again.
func TestOnlyTheNetworkIsPatienceFor(t *testing.T) {
	lost := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for name, tc := range map[string]struct {
		path string
		hook http.HandlerFunc
		rest time.Duration // between writes that succeed; 0: none succeeds
	}{
		"busy":                {restPath, failsWith(503, "", ""), 0},
		"slow down":           {restPath, failsWith(429, "", ""), 0},
		"no token":            {"/oidc/v1/token", lost, 0},
		"answers between":     {restPath, lost, 90 * time.Second},
		"404 of another form": {restPath, failsWith(404, "ENDPOINT_NOT_FOUND", "no"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, newClient := placed(t, &service{}, nil)
				p.hooks[pagePath], p.dialing = gone, refusesToDial
				b := newClient()
				if err := b.Decide(t.Context()); err != nil || b.State().Transport != "rest" {
					t.Fatal(err, b.State())
				}
				asked := p.asked(pagePath)
				if strings.HasPrefix(tc.path, "/oidc") {
					<-time.After(2 * time.Hour) // tokens expire
				}
				for range 4 {
					p.set(func() { p.hooks[tc.path] = tc.hook })
					ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(tc.rest, 5*time.Minute))
					if err := b.WriteLatest(ctx, rows(1)); err == nil {
						t.Error("the row was delivered")
					}
					cancel()
					if tc.rest > 0 {
						p.set(func() { delete(p.hooks, tc.path) })
						if err := b.WriteLatest(t.Context(), rows(1)); err != nil {
							t.Error(err)
						}
					}
				}
				if n := p.asked(pagePath) - asked; n != 0 {
					t.Errorf("the workspace was asked %d times for another route", n)
				}
			})
		})
	}
}

// TestLookingAgainIsNoLoop finds the same route after two minutes: it is tried for two more
// before the next look.
func TestLookingAgainIsNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, newClient := placed(t, &service{}, nil)
		p.hooks[pagePath], p.dialing = gone, refusesToDial
		b := newClient()
		if err := b.Decide(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.set(func() {
			p.hooks[restPath] = func(w http.ResponseWriter, r *http.Request) {
				if r.ContentLength > 2 { // an empty batch passes
					panic(http.ErrAbortHandler)
				}
				io.WriteString(w, "{}")
			}
		})
		asked := p.asked(pagePath)
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
		defer cancel()
		if err := b.WriteLatest(ctx, rows(1)); err == nil {
			t.Error("the row was delivered")
		}
		if n := p.asked(pagePath) - asked; n < 2 || n > 6 {
			t.Errorf("looked again %d times in 12 minutes, want every two", n)
		}
	})
}

// TestAChoiceIsForOneConfiguration has clients of one process that differ in what a choice
// depends on: none adopts that of another.
func TestAChoiceIsForOneConfiguration(t *testing.T) {
	for name, change := range map[string]func(*zerobus.Config){
		"table that gRPC cannot name": func(c *zerobus.Config) { c.Table = "strøm" },
		"client":                      func(c *zerobus.Config) { c.ClientID = "another" },
		"endpoint":                    func(c *zerobus.Config) { c.Endpoint, c.WorkspaceID = "http://127.0.0.1:8091", "7" },
		"workspace id":                func(c *zerobus.Config) { c.WorkspaceID = "8" },
		"transport":                   func(c *zerobus.Config) { c.Transport = "rest" },
		"workspace":                   func(c *zerobus.Config) { c.WorkspaceURL = "http://127.0.0.1:8081" },
		"ingest path":                 func(c *zerobus.Config) { c.IngestPath = "/own" },
		"scope":                       func(c *zerobus.Config) { c.Scope = "another" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				other := false
				p, newClient := placed(t, &service{}, func(c *zerobus.Config) {
					if other {
						change(c)
					}
				})
				p.hooks[pagePath], p.hooks["/own"] = gone, gone
				one := newClient()
				if err := one.Decide(t.Context()); err != nil {
					t.Fatal(err)
				}
				other = true
				before := len(p.requests)
				two := newClient()
				_ = two.Decide(t.Context()) // the workspace may not know this client
				if len(p.requests) == before && two.State().Transport == one.State().Transport && two.State().TransportReason == one.State().TransportReason {
					t.Errorf("the choice of another was adopted: %+v", two.State())
				}
			})
		})
	}
}

// TestAnAbandonedDecisionIsTakenOver has the caller that decides give up: another that waits
// decides itself.
func TestAnAbandonedDecisionIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, newClient := placed(t, &service{}, nil)
		first := true
		p.hooks[pagePath] = func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			hang := first
			first = false
			p.mu.Unlock()
			if hang {
				<-r.Context().Done()
				return
			}
			io.WriteString(w, `{"records_ingested":0}`)
		}
		b := newClient()
		var running sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		running.Go(func() {
			if err := b.Decide(ctx); err == nil {
				t.Error("the decision was not abandoned")
			}
		})
		<-time.After(time.Millisecond)
		running.Go(func() {
			if err := b.Decide(t.Context()); err != nil {
				t.Errorf("the second caller: %v", err)
			}
		})
		running.Wait()
	})
}

// TestThrottledIsAnAnswer takes a service that asks to slow down over gRPC for one that gRPC
// reaches.
func TestThrottledIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, newClient := placed(t, &service{handle: func(int, *served) error { return status.Error(codes.ResourceExhausted, "slow down") }}, nil)
		p.hooks[pagePath] = gone
		b := newClient()
		if err := b.Decide(t.Context()); err != nil || b.State().Transport != "grpc" || p.asked(restPath) > 0 {
			t.Errorf("Decide: %v, %s after %d requests by REST; want grpc", err, b.State().Transport, p.asked(restPath))
		}
	})
}
