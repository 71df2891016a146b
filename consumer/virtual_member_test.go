//go:build synctests

package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/consumer"
)

// vmember is a member of the group in a world of its own network.
type vmember struct {
	*consumer.Group
	w       *world
	name    string
	counts  *counts
	logs    *observer.ObservedLogs
	cluster *consumer.Cluster
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // of Run, once done is closed

	mu     sync.Mutex
	script script
	fixed  chan struct{} // closed when the sink is
	cut    bool          // its network is
	stray  bool          // its network was cut, or its heartbeats refused: it may write beside a new owner
	killed bool
	conns  map[net.Conn]bool
	writes int
	seen   map[int32]sight // by partition; owned by look
}

// sight is what was marked at a moment, and the commits that had gone well.
type sight struct {
	stay    *assignment
	marked  int64
	commits int
}

// script decides a Write of a member; nil takes the rows. The last func makes them
// durable without an acknowledgement.
type script func(ctx context.Context, m *vmember, rows []vrow, land func()) error

// join starts a member.
func (w *world) join(adjust ...func(*consumer.Config)) *vmember {
	w.t.Helper()
	m := &vmember{w: w, name: fmt.Sprintf("member %d", len(w.members)), done: make(chan struct{}), fixed: make(chan struct{}), conns: map[net.Conn]bool{}}
	cfg := w.cfg
	cfg.Dial = m.dial
	for _, f := range adjust {
		f(&cfg)
	}
	core, logs := observer.New(zap.InfoLevel)
	m.logs = logs
	w.t.Cleanup(func() {
		if w.t.Failed() {
			for _, e := range logs.All() {
				w.t.Logf("%s %s %s %s %v", m.name, e.Time.Format("04:05.000"), e.Level.CapitalString(), e.Message, e.ContextMap())
			}
		}
	})
	var err error
	if m.cluster, err = consumer.NewCluster(cfg, zap.New(core)); err != nil {
		w.t.Fatal(err)
	}
	m.counts = newCounts()
	m.Group = consumer.NewGroup(cfg, m.cluster, m, func() consumer.Mapper { return w.mapper(m) }, m.counts, zap.New(core))
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(m.done)
		m.err = m.Run(ctx)
	}()
	w.members = append(w.members, m)
	return m
}

// joined waits until the member has as many partitions.
func (m *vmember) joined(partitions int) *vmember {
	m.w.t.Helper()
	m.w.until(fmt.Sprintf("%s has %d partitions", m.name, partitions), 2*time.Minute, func() bool { return len(m.Status().Partitions) == partitions })
	return m
}

// dialRefused is how long a dial takes to be refused while the network is cut.
// Some loops of the client have no other pause, and must let time pass.
const dialRefused = 20 * time.Millisecond

func (m *vmember) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut {
		m.mu.Unlock()
		_ = wait(ctx, dialRefused)
		m.mu.Lock()
		// As the system returns it: what is no network error the client takes
		// for final.
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	conn, err := m.w.net.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if m.w.latency > 0 {
		conn = &slowConn{conn, m.w.latency}
	}
	m.conns[conn] = true
	return conn, nil
}

// slowConn takes a moment for what is written.
type slowConn struct {
	net.Conn
	latency time.Duration
}

func (c *slowConn) Write(b []byte) (int, error) {
	<-time.After(c.latency)
	return c.Conn.Write(b)
}

// sever cuts the member off from the brokers.
func (m *vmember) sever() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut, m.stray = true, true
	for conn := range m.conns {
		conn.Close()
	}
	clear(m.conns)
}

// kill ends the member without a word to anyone: nobody hears of it any more,
// and nothing of it is delivered. What is left of it ends with the world, over a network
// that works: without one, franz-go 1.22.2 leaves the goroutine behind that
// tried to leave the group.
func (m *vmember) kill() {
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	m.sever()
}

func (m *vmember) strayed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stray
}

func (m *vmember) ended() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.done:
		return true
	default:
		return m.killed
	}
}

// act sets how the member's Writes fare from now on.
func (m *vmember) act(s script) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.script = s
}

// fix ends the member's faults.
func (m *vmember) fix() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.killed {
		m.script, m.cut = nil, false
		close(m.fixed)
		m.fixed = make(chan struct{})
	}
}

// fixSink removes the faults of the member's sink.
func (m *vmember) fixSink() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.script = nil
	close(m.fixed)
	m.fixed = make(chan struct{})
}

// stop ends the member as a signal does and returns how long that took.
func (m *vmember) stop() time.Duration {
	m.w.t.Helper()
	began := time.Now()
	m.cancel()
	<-m.done
	took := time.Since(began)
	if m.err != nil {
		m.w.t.Errorf("%s: Run returned %v, want nil after its context ended", m.name, m.err)
	}
	s := m.Status()
	if s.Running || len(s.Partitions) > 0 || s.BufferedBytes != 0 || m.HeldBySlow() != 0 {
		m.w.t.Errorf("%s: status after Run: got %+v and %d bytes of slow partitions, want nothing left", m.name, s, m.HeldBySlow())
	}
	if s.Ledger.Unaccounted != 0 || s.Ledger.InFlight != 0 {
		m.w.t.Errorf("%s: the ledger does not balance after Run: %+v", m.name, s.Ledger)
	}
	m.cluster.Close()
	return took
}

// Write implements consumer.Sink. Texts that begin with poison are refused.
func (m *vmember) Write(ctx context.Context, _ int64, raw [][]byte) (int, error) {
	a, rows := m.w.parse(raw)
	m.w.begin(a)
	defer m.w.end(a)
	m.mu.Lock()
	m.writes++
	decide, killed := m.script, m.killed
	m.mu.Unlock()
	if killed {
		<-ctx.Done()
		return 1, ctx.Err()
	}
	if decide != nil {
		if err := decide(ctx, m, rows, func() { m.w.land(a, rows, false) }); err != nil {
			var no *refusal
			if errors.As(err, &no) {
				m.w.loosen(a)
				if len(rows) == 1 {
					m.w.refused(a, rows[0]) // under the skip policy that may be its end
				}
			}
			return 1, err
		}
	}
	for _, r := range rows {
		if strings.HasPrefix(r.text, "poison") {
			if len(rows) == 1 {
				m.w.refused(a, r)
			}
			return 1, &refusal{"test"}
		}
	}
	if m.isKilled() {
		<-ctx.Done()
		return 1, ctx.Err()
	}
	m.w.land(a, rows, true)
	return 1, nil
}

func (m *vmember) isKilled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.killed
}

// Probe is Write.
func (m *vmember) Probe(ctx context.Context, schemaVersion int64, rows [][]byte) (int, error) {
	return m.Write(ctx, schemaVersion, rows)
}

// takes is a script of a sink that takes its time.
func takes(d time.Duration) script {
	return func(ctx context.Context, _ *vmember, _ []vrow, _ func()) error { return wait(ctx, d) }
}

// hangs is a script of a sink that does not answer until it is fixed.
func hangs(ctx context.Context, m *vmember, _ []vrow, _ func()) error {
	m.mu.Lock()
	fixed := m.fixed
	m.mu.Unlock()
	select {
	case <-fixed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refuses is a script of a sink whose table takes no row.
func refuses(context.Context, *vmember, []vrow, func()) error { return &refusal{"schema_mismatch"} }

// loses is a script of a sink that takes the rows, loses the acknowledgement,
// and writes them again when it is fixed.
func loses(ctx context.Context, m *vmember, rows []vrow, land func()) error {
	land()
	return hangs(ctx, m, rows, land)
}
