package kafkatest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// Options say what kind of Kafka a test needs. The zero value is one broker
// without TLS and SASL.
type Options struct {
	// Brokers is 1 or 3. Default 1. Each broker is also a KRaft controller.
	Brokers int

	// Config is added to every broker's server.properties and wins over what
	// this package puts there. kfake heeds the keys it knows.
	Config map[string]string

	// JVM is appended to the arguments of java, for example "-Xmx2g" in a
	// benchmark. Default heap: 384 MiB.
	JVM []string

	// TLS has clients connect over TLS; see [Security.CAFile].
	TLS bool

	// ClientCert has the brokers demand a client certificate. Needs TLS.
	ClientCert bool

	// SASL is the mechanism clients authenticate with: PLAIN, SCRAM-SHA-256,
	// SCRAM-SHA-512 or OAUTHBEARER (Apache only, with the tokens of
	// [UnsecuredToken]). Empty: none.
	SASL string

	// Advertise names the address by which clients are told to reach broker i,
	// counted from 0, which listens on addr: that of a proxy, say. It is called
	// once per broker before the first one starts. Nil, or "": addr itself, by
	// which this package reaches the broker in any case.
	Advertise func(i int, addr string) string

	// Private gives the test a cluster of its own under [Each], which it may
	// stop and restart. Price: one or two seconds on Apache Kafka.
	Private bool
}

func (o Options) brokers() int { return max(o.Brokers, 1) }

func (o Options) validate() error {
	if n := o.brokers(); n != 1 && n != 3 {
		return fmt.Errorf("kafkatest: %d brokers; use 1 or 3", n)
	}
	if o.ClientCert && !o.TLS {
		return errors.New("kafkatest: ClientCert without TLS; set TLS too")
	}
	switch o.SASL {
	case "", Plain, ScramSHA256, ScramSHA512, OAuthBearer:
		return nil
	}
	return fmt.Errorf("kafkatest: unknown SASL mechanism %q; use %s, %s, %s or %s",
		o.SASL, Plain, ScramSHA256, ScramSHA512, OAuthBearer)
}

// startTimeout bounds the wait for a broker that was just started. One second
// is usual; a machine that does much else needs minutes.
const startTimeout = 5 * time.Minute

// A Cluster is a running Apache Kafka. Brokers are counted from 0; broker i has
// the node id i+1. Its methods may be called from any goroutine; those that
// change the cluster wait for each other.
type Cluster struct {
	dir      string // holds everything on disk, removed by Close
	security Security

	mu    sync.Mutex // held while nodes are started and stopped
	nodes []*node
}

// Run starts a cluster and returns once every broker serves clients. ctx governs
// the start only: the cluster runs until [Cluster.Close]. Its data lives in a
// new folder under dir, by default the system's folder for temporary files.
//
// The error wraps [ErrUnavailable] when this machine cannot run Kafka at all; the
// error of a broker that did not start ends with its log.
func Run(ctx context.Context, dir string, o Options) (*Cluster, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	rt, err := findRuntime(ctx)
	if err != nil {
		return nil, err
	}
	dir, err = os.MkdirTemp(dir, "kafka-"+Version+"-")
	if err != nil {
		return nil, fmt.Errorf("making kafka's data folder: %w; check the folder for temporary files", err)
	}
	c := &Cluster{dir: dir}
	if err := c.start(ctx, rt, o); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, rt runtime, o Options) error {
	sec, err := newSecurity(c.dir, o)
	if err != nil {
		return err
	}
	c.security = sec
	for i := range o.brokers() {
		n := &node{id: i + 1, dir: filepath.Join(c.dir, fmt.Sprintf("node%d", i+1)), rt: rt, jvm: o.JVM}
		c.nodes = append(c.nodes, n)
		if err := n.reservePorts(); err != nil {
			return err
		}
	}
	for i, n := range c.nodes {
		n.advertised = n.client.addr()
		if o.Advertise == nil {
			continue
		}
		if addr := o.Advertise(i, n.client.addr()); addr != "" {
			n.advertised = addr
		}
	}
	id := clusterID()
	eg, egctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes {
		eg.Go(func() error {
			if err := n.format(egctx, id, properties(n, c.nodes, o, sec), sec); err != nil {
				return err
			}
			return n.start()
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	return c.waitReady(ctx)
}

// Close kills the brokers, waits for them and removes their data. Closing twice
// is fine.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		n.kill()
		n.releasePorts()
	}
	c.nodes = nil
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("removing kafka's data: %w; remove %s", err, c.dir)
	}
	return nil
}

// Brokers returns the bootstrap addresses, host:port, in broker order. They stay
// the same while brokers are stopped and restarted.
func (c *Cluster) Brokers() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.client.addr())
	}
	return addrs
}

// Security returns what a client needs besides the addresses.
func (c *Cluster) Security() Security { return c.security }

// ClientOpts returns the options with which a kgo client connects.
func (c *Cluster) ClientOpts() []kgo.Opt {
	return append(c.security.opts(), kgo.SeedBrokers(c.Brokers()...))
}

// Kill ends broker i with SIGKILL, as a crash would, and waits until it is gone.
// Killing a broker that does not run is fine, as for Stop.
func (c *Cluster) Kill(i int) error {
	return c.with(i, func(n *node) error { n.kill(); return nil })
}

// Stop ends broker i with SIGTERM and waits for its controlled shutdown, at most
// 30 seconds; then it is killed. So is, at once, a broker of a cluster that has
// lost its majority, as it would wait for the others.
func (c *Cluster) Stop(i int) error {
	return c.with(i, c.stop)
}

// Pause freezes broker i with SIGSTOP: its connections stay open and nothing
// answers.
func (c *Cluster) Pause(i int) error {
	return c.with(i, (*node).pause)
}

// Resume wakes a broker frozen by Pause.
func (c *Cluster) Resume(i int) error {
	return c.with(i, (*node).resume)
}

// Restart stops broker i as Stop does if it runs, starts it on the same data and
// the same port, and returns once it serves clients.
func (c *Cluster) Restart(ctx context.Context, i int) error {
	return c.with(i, func(n *node) error {
		if err := c.stop(n); err != nil {
			return err
		}
		if err := n.start(); err != nil {
			return err
		}
		return c.waitReady(ctx)
	})
}

func (c *Cluster) stop(n *node) error {
	serving := 0
	for _, other := range c.nodes {
		if other.running() && !other.paused {
			serving++
		}
	}
	if len(c.nodes) > 1 && serving <= len(c.nodes)/2 {
		n.kill()
		return nil
	}
	return n.stop()
}

// KillAll ends every broker with SIGKILL.
func (c *Cluster) KillAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		n.kill()
	}
}

// StartAll starts every broker that does not run and returns once all of them
// serve clients.
func (c *Cluster) StartAll(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		if n.running() {
			continue
		}
		if err := n.start(); err != nil {
			return err
		}
	}
	return c.waitReady(ctx)
}

func (c *Cluster) with(i int, f func(*node) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i < 0 || i >= len(c.nodes) {
		return fmt.Errorf("kafkatest: no broker %d in a cluster of %d; count from 0", i, len(c.nodes))
	}
	return f(c.nodes[i])
}

// clusterID makes an id in Kafka's form, 16 bytes in unpadded URL base64. The
// first bit is zero, as an id that begins with a dash would be taken for a flag.
func clusterID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	id[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(id[:])
}
