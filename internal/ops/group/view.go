// Package group shows the state of a whole deployment from any of its members. Groups,
// members, offsets and lag come from Kafka. The rest comes over HTTP from the ops
// endpoints of the peers, which are asked for themselves only, so no request causes a
// second one.
package group

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/ops"
)

// Bounds of the look-ups, which begin only when somebody asks.
const (
	refresh       = 2 * time.Second  // between the beginnings of two look-ups
	peersTimeout  = time.Second      // for all peers together, DNS included
	kafkaTimeout  = 5 * time.Second  // of a look-up; its result serves the next request
	kafkaPatience = time.Second      // of a request for it
	keep          = 10 * time.Second // how old a result may be after a look-up failed
	parallel      = 32               // peers asked at a time
	maxBody       = 4 << 20          // of a peer's status: about 6,000 partitions
)

// Integration is one that the configuration enables.
type Integration struct {
	Name, Group string
	Topics      []string
}

// Kafka looks groups up; see [kafka.Client].
type Kafka interface {
	Groups(context.Context, []kafka.GroupQuery) ([]kafka.GroupState, error)
}

// Config of a View. All but Peers, Token and Resolve are required.
type Config struct {
	Peers []string // ops.peers
	// Token returns the token that the peers require; nil if none is configured.
	Token        func() (string, error)
	Self         ops.Source           // the state of this process
	Address      func() string        // of the ops endpoints of this process
	Integrations func() []Integration // enabled now
	Kafka        Kafka
	// Resolve returns the addresses of a name. Default nil: DNS.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// View is the group as this process sees it. Its methods are safe for concurrent use.
type View struct {
	cfg       Config
	transport *http.Transport
	kafka     lookUp[map[string]kafka.GroupState] // by group
	peers     lookUp[[]answer]

	alive  context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // look-ups that run

	// Owned by the look-up of the peers.
	self   map[string]bool      // addresses of this process
	silent map[string]time.Time // since when an address does not answer
}

// New returns a view. It does no I/O and starts no goroutine.
func New(cfg Config) *View {
	if cfg.Resolve == nil {
		cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	v := &View{cfg: cfg, self: make(map[string]bool), transport: newTransport()}
	v.kafka = lookUp[map[string]kafka.GroupState]{do: v.askKafka, limit: kafkaTimeout}
	v.peers = lookUp[[]answer]{do: v.askPeers, limit: peersTimeout}
	v.alive, v.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // bounded by Close
	return v
}

// Close ends the look-ups. Nobody may ask any more. A broker that accepts a connection
// and does not answer delays it for 10 seconds, unless the client is closed before.
func (v *View) Close() {
	v.cancel()
	v.work.Wait()
}

// Status returns the state of the group, at most 2 seconds old. It implements
// ops.GroupSource.
func (v *View) Status(ctx context.Context) ops.GroupStatus {
	var peers result[[]answer]
	var both sync.WaitGroup
	both.Go(func() { peers = v.peers.get(ctx, v, peersTimeout+500*time.Millisecond) })
	facts := v.kafka.get(ctx, v, kafkaPatience)
	both.Wait()
	return join(v.cfg.Self(), v.cfg.Address(), v.cfg.Integrations(), len(v.cfg.Peers) > 0, peers.value, facts)
}

func (v *View) askKafka(ctx context.Context) (map[string]kafka.GroupState, error) {
	var queries []kafka.GroupQuery
	for _, i := range v.cfg.Integrations() {
		queries = append(queries, kafka.GroupQuery{Group: i.Group, Topics: i.Topics})
	}
	states, err := v.cfg.Kafka.Groups(ctx, queries)
	if err != nil {
		return nil, err
	}
	found := make(map[string]kafka.GroupState, len(states))
	for i, s := range states {
		found[queries[i].Group] = s
	}
	return found, nil
}

// result is what a look-up found: value was true at the time at, unless that is zero.
// err is why it is missing or old, since when.
type result[T any] struct {
	value T
	at    time.Time
	err   error
	since time.Time
}

// lookUp keeps the result of a look-up. One begins when somebody asks and the last one
// began refresh ago, and never while another runs: requests do not pile up behind one
// that hangs.
type lookUp[T any] struct {
	do    func(context.Context) (T, error)
	limit time.Duration

	mu      sync.Mutex
	running chan struct{} // closed when the look-up that runs ends; nil: none runs
	began   time.Time     // of the last look-up
	last    result[T]
}

// get returns the result of the present look-up, or after patience that of the last one
// with an error.
func (l *lookUp[T]) get(ctx context.Context, v *View, patience time.Duration) result[T] {
	l.mu.Lock()
	if l.running == nil && time.Since(l.began) >= refresh && v.alive.Err() == nil {
		running := make(chan struct{})
		l.running, l.began = running, time.Now()
		v.work.Go(func() { l.run(v.alive, running) })
	}
	running := l.running
	l.mu.Unlock()
	if running != nil {
		patient, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		select {
		case <-running:
		case <-patient.Done():
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.last
	if l.running == running && running != nil && r.err == nil {
		r.err, r.since = fmt.Errorf("no answer within %v", patience), l.began
	}
	if r.err != nil && time.Since(r.at) > keep {
		return result[T]{err: r.err, since: r.since}
	}
	return r
}

func (l *lookUp[T]) run(ctx context.Context, running chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, l.limit)
	defer cancel()
	value, err := l.do(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	defer close(running)
	l.running = nil
	switch {
	case err == nil:
		l.last = result[T]{value: value, at: time.Now()}
	case l.last.err == nil:
		l.last.since = l.began
		fallthrough
	default:
		l.last.err = err
	}
}
