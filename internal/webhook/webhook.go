// Package webhook reports changes of the state of integrations by HTTP, to chat tools and
// to programs. See docs/webhooks.md.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/plaintext"
)

const (
	// every is the time between two looks at the states, and hold is how long a state has
	// to last before it is reported.
	every, hold = time.Second, 10 * time.Second
	// timeout bounds one request; looks at the states wait for one, not for more.
	timeout = 5 * time.Second
	// minBackoff and maxBackoff bound the pause after a request that failed. It doubles
	// with each failure, and its last fifth is random.
	minBackoff, maxBackoff = time.Second, time.Minute
	// life is how long a message is tried; maxQueued is how many messages wait.
	life, maxQueued = 30 * time.Minute, 100
	// maxText bounds the reason and the remedy of a message, each, in bytes.
	maxText = 1000
)

// SignatureHeader holds the signature of a request: t=<Unix time>,v1=<hexadecimal HMAC-SHA256
// of "<Unix time>.<body>">.
const SignatureHeader = "Bridge-Signature"

// State is the state of one integration at one moment.
type State struct {
	Integration string // slug
	State       string
	Reason      string
	Remedy      string
	Since       time.Time // zero: when it was first seen
}

// Message is the JSON of a request.
type Message struct {
	// ID is the same for members that see the same change in the same minute.
	ID          string    `json:"id"`
	Type        string    `json:"type"` // integration.state_changed
	Time        time.Time `json:"time"`
	Deployment  string    `json:"deployment"`
	Instance    string    `json:"instance"` // of the member that reports
	Integration string    `json:"integration"`
	State       string    `json:"state"`
	Previous    string    `json:"previous,omitempty"` // that was reported or seen before; empty: none
	Since       time.Time `json:"since"`
	Reason      string    `json:"reason,omitempty"`
	Remedy      string    `json:"remedy,omitempty"`
	Text        string    `json:"text"` // for people, as chat tools show it
}

// Config of a Notifier. All but Transport are required.
type Config struct {
	Settings             func() Settings // in force
	Deployment, Instance string
	States               func() []State // of all integrations, now
	Log                  *zap.Logger
	Transport            http.RoundTripper // nil: the network
}

// Notifier reports changes. Run may be called once; Status is safe for concurrent use.
type Notifier struct {
	cfg  Config
	http *http.Client
	seen map[string]*seen // by integration
	next time.Time        // of a request
	fail int              // requests in succession that failed

	mu     sync.Mutex // guards the fields below
	queue  []Message
	status ops.WebhookStatus
}

// seen is what was last seen of an integration.
type seen struct {
	state    string // healthy for each of the healthy ones
	since    time.Time
	reported string // the state that was reported or, if it is healthy, seen; empty: none

	minute int64          // Unix time; of messages
	times  map[string]int // messages of that minute, by state
}

// New returns a Notifier. It does no I/O and starts no goroutine.
func New(cfg Config) *Notifier {
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	}
	return &Notifier{cfg: cfg, seen: make(map[string]*seen), http: &http.Client{Transport: cfg.Transport, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Status returns the counts of requests and messages since the start.
func (n *Notifier) Status() ops.WebhookStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.status
	s.Queued = len(n.queue)
	return s
}

// Run looks at the states and sends the messages until ctx ends. Messages that wait then
// are dropped.
func (n *Notifier) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			n.observe(now, n.cfg.States())
			for began := time.Now(); len(n.queue) > 0 && !time.Now().Before(n.next) && time.Since(began) < every && ctx.Err() == nil; {
				n.deliver(ctx)
			}
		case <-ctx.Done():
			if left := len(n.queue); left > 0 {
				n.cfg.Log.Warn("webhook messages dropped at the stop", zap.Int("messages", left))
			}
			return
		}
	}
}

const healthy = "healthy"

// kind returns the state, or healthy for one of the healthy ones.
func kind(state string) string {
	switch state {
	case ops.VerdictDelivering, ops.VerdictIdle, ops.VerdictCatchingUp, "":
		return healthy
	}
	return state
}

// observe queues a message for each state that has lasted and differs from the one that
// was reported.
func (n *Notifier) observe(now time.Time, states []State) {
	listed := n.cfg.Settings().States
	known := make(map[string]*seen, len(states))
	for _, s := range states {
		was := n.seen[s.Integration]
		if was == nil {
			was = &seen{}
		}
		known[s.Integration] = was
		if k := kind(s.State); was.state != k {
			was.state, was.since = k, now
		}
		wanted := slices.Contains(listed, s.State)
		switch {
		case now.Sub(was.since) < hold || !wanted && (s.State == ops.VerdictStarting || s.State == ops.VerdictStopping): // between two failures
		case !wanted || kind(was.reported) == healthy && was.state == healthy:
			was.reported = s.State
		case was.reported != s.State:
			if s.Since.IsZero() {
				s.Since = was.since
			}
			n.add(n.message(now, s, was.reported, was.again(now, s.State)))
			was.reported = s.State
		}
	}
	n.seen = known
}

// again returns how many messages the state had before in the minute of now, and counts one.
func (s *seen) again(now time.Time, state string) int {
	if minute := now.Unix() / 60; s.times == nil || s.minute != minute {
		s.minute, s.times = minute, make(map[string]int)
	}
	s.times[state]++
	return s.times[state] - 1
}

// message returns what is reported of a change. again counts the messages of the same
// minute about the same state: a receiver would take one with their id for a repetition.
func (n *Notifier) message(now time.Time, s State, previous string, again int) Message {
	s.Reason, s.Remedy = bounded(s.Reason), bounded(s.Remedy)
	id := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %d %d", n.cfg.Deployment, s.Integration, s.State, now.Unix()/60, again))
	text := fmt.Sprintf("%s: integration %s is %s since %s", n.cfg.Deployment, s.Integration, s.State, s.Since.UTC().Format(time.RFC3339))
	for _, more := range []string{s.Reason, s.Remedy} {
		if more != "" {
			text += "\n" + more
		}
	}
	// As Slack wants it: otherwise a reason could mention people or hide a link.
	text = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
	return Message{ID: "evt_" + hex.EncodeToString(id[:8]), Type: "integration.state_changed", Time: now.UTC(), Deployment: n.cfg.Deployment, Instance: n.cfg.Instance,
		Integration: s.Integration, State: s.State, Previous: previous, Since: s.Since.UTC(), Reason: s.Reason, Remedy: s.Remedy, Text: text}
}

func bounded(text string) string {
	text = plaintext.Visible(text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}

// add queues a message. The oldest gives way when too many wait.
func (n *Notifier) add(m Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.queue = append(n.queue, m); len(n.queue) > maxQueued {
		n.queue = n.queue[1:]
		n.status.Dropped++
	}
}

// deliver sends the first message. It leaves the queue unless it is to be tried again.
func (n *Notifier) deliver(ctx context.Context) {
	m := n.queue[0]
	again, err := n.send(ctx, m)
	if ctx.Err() != nil {
		return
	}
	again = again && time.Since(m.Time) < life
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.status.Error
	if err == nil {
		n.queue, n.fail = n.queue[1:], 0
		n.status.Sent++
		if n.status.Error = ""; was != "" {
			n.cfg.Log.Info("webhook messages are sent again", zap.Int64("dropped", n.status.Dropped))
		}
		return
	}
	n.status.Failed++
	if n.status.Error = plaintext.ShortLine(err.Error(), maxText); was == "" {
		n.cfg.Log.Warn("webhook message not sent; further failures are counted in bridge_webhook_requests_total",
			zap.String("integration", m.Integration), zap.Bool("tried_again", again), zap.String("error", n.status.Error))
	}
	if !again {
		n.queue = n.queue[1:]
		n.status.Dropped++
	}
	pause := min(minBackoff<<min(n.fail, 16), maxBackoff)
	var refused *refusal
	if errors.As(err, &refused) {
		pause = min(max(pause, refused.after), maxBackoff)
	}
	n.next = time.Now().Add(pause - time.Duration(rand.Int64N(int64(pause/5))))
	n.fail++
}

// refusal is an answer other than 2xx.
type refusal struct {
	status int
	after  time.Duration
}

func (r *refusal) Error() string {
	remedy := "check webhook.url, and what the receiver expects"
	switch {
	case r.status/100 == 3:
		remedy = "redirects are not followed; set webhook.url to the address that it redirects to"
	case r.again():
		remedy = "it is tried again; see whether the receiver works"
	}
	return fmt.Sprintf("the receiver of webhook.url answered with HTTP %d; %s", r.status, remedy)
}

// again reports whether a later attempt may succeed.
func (r *refusal) again() bool {
	return r.status >= 500 || r.status == http.StatusTooManyRequests || r.status == http.StatusRequestTimeout
}

// send sends a message once. again reports whether a later attempt may succeed. No error
// holds the URL.
func (n *Notifier) send(ctx context.Context, m Message) (again bool, err error) {
	s := n.cfg.Settings()
	source, _ := s.URLSource()
	text, err := source.Read()
	if err != nil {
		return true, err
	}
	to, err := parse(text)
	if err != nil {
		return true, fmt.Errorf("webhook.url %w; copy it from the tool that receives the messages", err)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return false, fmt.Errorf("encoding a webhook message: %w; report this as a bug", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return false, errors.New("the request to webhook.url cannot be made; check the URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "datafly-bridge")
	if source, signed := s.secretSource(); signed {
		secret, err := source.Read()
		if err != nil {
			return true, err
		}
		req.Header.Set(SignatureHeader, Sign(secret, time.Now(), body))
	}
	resp, err := n.http.Do(req)
	if err != nil {
		var sent *url.Error
		if errors.As(err, &sent) {
			err = sent.Err // without the URL
		}
		return true, fmt.Errorf("sending to webhook.url: %w; check that the receiver can be reached", err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // the answer means nothing
	if resp.StatusCode/100 != 2 {
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // a date or nothing: 0
		r := &refusal{status: resp.StatusCode, after: time.Duration(min(max(seconds, 0), 3600)) * time.Second}
		return r.again(), r
	}
	return false, nil
}

// Sign returns the value of SignatureHeader for a body.
func Sign(secret string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
