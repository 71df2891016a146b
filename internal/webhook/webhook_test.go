package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/setting"
	"github.com/datafly/bridge/internal/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0123456789abcdef"

// receiver is the other side, and the states that are observed.
type receiver struct {
	t      *testing.T
	answer func(n int) (status int, header http.Header) // of the request n, from 0; status 0: no answer
	takes  time.Duration                                // each answer

	mu       sync.Mutex // guards the fields below
	states   map[string]webhook.State
	requests []*http.Request
	messages []webhook.Message
	times    []time.Time
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	time.Sleep(r.takes) //nolint:forbidigo // virtual time
	r.mu.Lock()
	defer r.mu.Unlock()
	var m webhook.Message
	if err := json.Unmarshal(body, &m); err != nil {
		r.t.Errorf("got %s: %v", body, err)
	}
	n := len(r.requests)
	req.Body = io.NopCloser(bytes.NewReader(body))
	r.requests, r.messages, r.times = append(r.requests, req), append(r.messages, m), append(r.times, time.Now())
	status, header := http.StatusOK, http.Header{}
	if r.answer != nil {
		status, header = r.answer(n)
	}
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: status, Header: header, Body: http.NoBody, Request: req}, nil
}

func (r *receiver) set(integration, state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.states == nil {
		r.states = make(map[string]webhook.State)
	}
	if r.states[integration] = (webhook.State{Integration: integration, State: state, Reason: "why <!here>", Remedy: "do & see"}); state == "" {
		delete(r.states, integration)
	}
}

func (r *receiver) now() (all []webhook.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.states {
		all = append(all, s)
	}
	return all
}

// sent returns what was sent, each as integration:previous>state.
func (r *receiver) sent() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, m := range r.messages {
		all = append(all, m.Integration+":"+m.Previous+">"+m.State)
	}
	return strings.Join(all, " ")
}

var usual = webhook.Settings{URL: "https://chat.example/services/T0KEN", Secret: secret,
	States: []string{"delivering", "idle", "catching up", "falling behind", "blocked", "failed"}}

// run runs a Notifier in a bubble while f runs.
func (r *receiver) run(s webhook.Settings, log *zap.Logger, f func(*webhook.Notifier)) {
	n := webhook.New(webhook.Config{Settings: func() webhook.Settings { return s }, Deployment: "eu", Instance: "me", States: r.now, Log: log, Transport: r})
	ctx, cancel := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx) })
	f(n)
	cancel()
	running.Wait()
}

// pass lets time pass.
func pass(d time.Duration) { time.Sleep(d); synctest.Wait() } //nolint:forbidigo // virtual time

func TestChangesAreReported(t *testing.T) {
	for _, tc := range []struct {
		name, states string // state/seconds in turn
		only         []string
		want         string
	}{
		{"healthy at the start", "starting/3 idle/60 delivering/60 catching up/20", nil, ""},
		{"blocked at the start", "blocked/30", nil, "x:>blocked"},
		{"blocked and back", "delivering/20 blocked/30 catching up/30 delivering/30", nil, "x:delivering>blocked x:blocked>catching up"},
		{"a short trouble", "delivering/20 blocked/5 delivering/30", nil, ""},
		{"healthy in turns", "blocked/30 idle/4 delivering/4 idle/4 delivering/4", nil, "x:>blocked x:blocked>idle"},
		{"failures in turn", "failed/20 starting/50 failed/20 starting/50 failed/20", nil, "x:>failed"},
		{"worse", "falling behind/20 blocked/20 failed/20", nil, "x:>falling behind x:falling behind>blocked x:blocked>failed"},
		{"not reported", "delivering/20 falling behind/30 blocked/20 delivering/20 blocked/20", []string{"blocked"}, "x:falling behind>blocked x:delivering>blocked"},
		{"removed and added", "blocked/20 /20 blocked/20", nil, "x:>blocked x:>blocked"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{t: t}
				s := usual
				if tc.only != nil {
					s.States = tc.only
				}
				r.run(s, zap.NewNop(), func(n *webhook.Notifier) {
					state := ""
					for _, word := range strings.Fields(tc.states) {
						word, seconds, last := strings.Cut(word, "/")
						if state = strings.TrimSpace(state + " " + word); !last {
							continue
						}
						r.set("x", state)
						d, err := time.ParseDuration(seconds + "s")
						if err != nil {
							t.Fatal(err)
						}
						pass(d)
						state = ""
					}
					if got := n.Status(); int(got.Sent) != len(r.messages) || got.Failed+got.Dropped != 0 {
						t.Errorf("got %+v, want each of %d sent", got, len(r.messages))
					}
				})
				if got := r.sent(); got != tc.want {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			})
		})
	}
}

func TestMessage(t *testing.T) {
	fromFile := usual
	fromFile.URL, fromFile.URLFile = "", filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(fromFile.URLFile, []byte("https://chat.example/from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{t: t}
		began := time.Now()
		r.set("x", "blocked")
		r.run(fromFile, zap.NewNop(), func(*webhook.Notifier) { pass(12 * time.Second) })
		m, req := r.messages[0], r.requests[0]
		if m.Type != "integration.state_changed" || m.Deployment != "eu" || m.Instance != "me" || m.Reason != "why <!here>" || m.Remedy != "do & see" ||
			!m.Since.Equal(began.Add(time.Second)) || !m.Time.Equal(began.Add(11*time.Second)) || !strings.HasPrefix(m.ID, "evt_") {
			t.Errorf("got %+v", m)
		}
		if want := "eu: integration x is blocked since " + m.Since.Format(time.RFC3339) + "\nwhy &lt;!here&gt;\ndo &amp; see"; m.Text != want {
			t.Errorf("got text %q, want %q", m.Text, want)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := req.Header.Get(webhook.SignatureHeader), webhook.Sign(secret, r.times[0], body); got != want || req.Method != http.MethodPost || req.URL.Path != "/from-file" || req.Header.Get("Content-Type") != "application/json" {
			t.Errorf("got %s with signature %q, want %q", req.Method, got, want)
		}
	})
}

// A receiver ignores an id that it knows. So the changes of one minute have different
// ones, and the same from each member.
func TestIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute))) //nolint:forbidigo // virtual time
		r := &receiver{t: t}
		r.run(usual, zap.NewNop(), func(*webhook.Notifier) {
			r.run(usual, zap.NewNop(), func(*webhook.Notifier) {
				for _, state := range []string{"blocked", "delivering", "blocked", "delivering"} {
					r.set("x", state)
					pass(12 * time.Second)
				}
			})
		})
		count := map[string]int{}
		for _, m := range r.messages {
			count[m.ID]++
		}
		if len(r.messages) != 8 || len(count) != 4 {
			t.Errorf("got %d messages with %d ids, want 4 changes by 2 members: %s", len(r.messages), len(count), r.sent())
		}
	})
}

// While a receiver is slow, changes are seen all the same.
func TestASlowReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{t: t, takes: 4 * time.Second}
		for i := range 20 {
			r.set(fmt.Sprint(i), "blocked")
		}
		r.run(usual, zap.NewNop(), func(*webhook.Notifier) {
			pass(13 * time.Second)
			r.set("x", "failed")
			pass(30 * time.Second)
			r.set("x", "delivering")
			pass(2 * time.Minute)
		})
		if got := r.sent(); !strings.Contains(got, "x:>failed") || len(r.messages) != 22 {
			t.Errorf("got %d messages: %s; want x, which had failed for 30 seconds", len(r.messages), got)
		}
	})
}

// The value is what another implementation of HMAC-SHA256 returns: openssl dgst -hmac.
func TestSign(t *testing.T) {
	if got, want := webhook.Sign("key", time.Unix(1, 0), []byte("{}")), "t=1,v1="+"1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFailures(t *testing.T) {
	after := http.Header{"Retry-After": {"20"}}
	for _, tc := range []struct {
		name                string
		answer              func(n int) (int, http.Header)
		delivered, requests int
		gap                 time.Duration // at least, between the first two requests
		line                string
	}{
		{"it comes back", func(n int) (int, http.Header) { return map[bool]int{true: 0, false: 204}[n < 3], nil }, 1, 4, 800 * time.Millisecond, "connection refused"},
		{"overloaded", func(n int) (int, http.Header) { return map[bool]int{true: 429, false: 200}[n == 0], after }, 1, 2, 16 * time.Second, "HTTP 429"},
		{"refused", func(int) (int, http.Header) { return 404, nil }, 0, 1, 0, "HTTP 404"},
		{"redirected", func(int) (int, http.Header) { return 308, http.Header{"Location": {"https://elsewhere.example"}} }, 0, 1, 0, "redirects are not followed"},
		{"down for long", func(int) (int, http.Header) { return 503, nil }, 0, -1, 800 * time.Millisecond, "HTTP 503"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{t: t, answer: tc.answer}
				core, logs := observer.New(zap.InfoLevel)
				r.set("x", "blocked")
				r.run(usual, zap.New(core), func(n *webhook.Notifier) {
					pass(time.Hour)
					got := n.Status()
					if int(got.Sent) != tc.delivered || int(got.Dropped) != 1-tc.delivered || got.Queued != 0 {
						t.Errorf("got %+v, want %d sent, else given up", got, tc.delivered)
					}
				})
				if n := len(r.requests); tc.requests >= 0 && n != tc.requests || tc.requests < 0 && (n < 30 || n > 50) {
					t.Errorf("got %d requests, want %d, or one a minute for half an hour", n, tc.requests)
				}
				if len(r.times) > 1 && r.times[1].Sub(r.times[0]) < tc.gap {
					t.Errorf("got the second after %v, want %v at least", r.times[1].Sub(r.times[0]), tc.gap)
				}
				lines := logs.All()
				if len(lines) != 1+tc.delivered || !strings.Contains(fmt.Sprint(lines[0].ContextMap()), tc.line) || strings.Contains(fmt.Sprint(lines[0].ContextMap()), "T0KEN") {
					t.Errorf("got %v, want one line when it begins, with %q and without the URL, and one when it ends", lines, tc.line)
				}
			})
		})
	}
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{t: t, answer: func(int) (int, http.Header) { return 0, nil }}
		for i := range 250 {
			r.set(fmt.Sprint(i), "blocked")
		}
		r.run(usual, zap.NewNop(), func(n *webhook.Notifier) {
			pass(15 * time.Second)
			if got := n.Status(); got.Queued != 100 || got.Dropped != 150 {
				t.Errorf("got %+v, want 100 that wait and 150 dropped", got)
			}
		})
	})
}

func TestSettings(t *testing.T) {
	type config struct {
		Webhook webhook.Settings `yaml:"webhook"`
	}
	schema := setting.SchemaOf[config]()
	for _, tc := range []struct {
		name string
		s    webhook.Settings
		want string // empty: none
	}{
		{"none", webhook.Settings{}, ""},
		{"usual", webhook.Settings{URL: "https://chat.example/x", Secret: secret}, ""},
		{"no URL", webhook.Settings{URL: "T0KEN"}, "must be an http or https URL"},
		{"user", webhook.Settings{URL: "https://a:T0KEN@chat.example/x"}, "without a user"},
		{"short secret", webhook.Settings{URL: "https://chat.example/x", Secret: "T0KEN"}, "at least 16 characters"},
		{"secret alone", webhook.Settings{Secret: secret}, "nothing to sign"},
		{"state", webhook.Settings{URL: "https://chat.example/x", States: []string{"fine"}}, "is not a state"},
		{"both", webhook.Settings{URL: "https://chat.example/x", URLFile: "f"}, "together"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := config{tc.s}
			problems := fmt.Sprint(schema.Complete(&c))
			if tc.want == "" && problems != "[]" || !strings.Contains(problems, tc.want) || strings.Contains(problems, "T0KEN") {
				t.Errorf("got %s, want %q and no secret", problems, tc.want)
			}
			if tc.name == "none" && !slices.Contains(c.Webhook.States, "catching up") {
				t.Errorf("got states %q", c.Webhook.States)
			}
		})
	}
}
