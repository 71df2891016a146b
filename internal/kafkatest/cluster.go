package kafkatest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// startTimeout bounds the wait for a broker to start. It usually takes a second,
// on a busy machine minutes.
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

// Run starts a cluster and returns once every broker serves clients. ctx applies
// to the start only: the cluster runs until [Cluster.Close]. Its data is in a new
// folder under dir, by default the system's folder for temporary files.
//
// The error wraps [ErrUnavailable] if this machine cannot run Kafka. The error of
// a broker that did not start ends with its log.
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
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not started within %v", startTimeout))
	defer cancel()
	sec, err := NewSecurity(c.dir, o)
	if err != nil {
		return err
	}
	c.security = sec
	for i := range o.brokers() {
		n := &node{id: i + 1, dir: filepath.Join(c.dir, fmt.Sprintf("node%d", i+1)), rt: rt, jvm: o.JVM}
		c.nodes = append(c.nodes, n)
		for _, p := range n.ports() {
			if *p, err = reservePort(); err != nil {
				return err
			}
		}
	}
	for i, n := range c.nodes {
		if o.Advertise != nil {
			n.advertised = o.Advertise(i, n.client.addr())
		}
		n.advertised = cmp.Or(n.advertised, n.client.addr())
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

// Close kills the brokers, waits for them and removes their data. A second call
// does nothing.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		n.kill()
		for _, p := range n.ports() {
			p.release()
		}
	}
	c.nodes = nil
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("removing kafka's data: %w; remove %s", err, c.dir)
	}
	return nil
}

// Brokers returns the bootstrap addresses, host:port, in broker order. A restart
// keeps them.
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
	return append(c.security.ClientOpts(), kgo.SeedBrokers(c.Brokers()...))
}

// Kill ends broker i with SIGKILL, like a crash, and waits until it has ended. It
// does nothing to a broker that does not run, like Stop.
func (c *Cluster) Kill(i int) error {
	return c.with(i, func(n *node) error { n.kill(); return nil })
}

// Stop ends broker i with SIGTERM and waits for its controlled shutdown, at most
// two minutes; then it is killed. A broker of a cluster that has lost its majority
// is killed at once, as it would wait for the others.
func (c *Cluster) Stop(i int) error { return c.with(i, c.stop) }

// Pause stops broker i with SIGSTOP: its connections stay open and nothing
// answers.
func (c *Cluster) Pause(i int) error { return c.with(i, (*node).pause) }

// Resume continues a broker stopped by Pause.
func (c *Cluster) Resume(i int) error { return c.with(i, (*node).resume) }

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
	if len(c.nodes) > 1 && len(c.serving()) <= len(c.nodes)/2 {
		n.kill()
		return nil
	}
	return n.stop()
}

// serving returns the brokers that run and are not paused.
func (c *Cluster) serving() (out []*node) {
	for _, n := range c.nodes {
		if n.cmd != nil && !n.paused {
			out = append(out, n)
		}
	}
	return out
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
		if n.cmd == nil {
			if err := n.start(); err != nil {
				return err
			}
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

// waitReady returns once every running broker answers a metadata request that
// lists all running brokers and, when none is missing, a leader for every
// partition.
func (c *Cluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %v", startTimeout))
	defer cancel()
	for _, n := range c.serving() {
		if err := c.waitNode(ctx, n); err != nil {
			return fmt.Errorf("waiting for broker %d at %s: %w; end of its log:\n%s", n.id, n.client.addr(), err, n.tail(40))
		}
	}
	return nil
}

func (c *Cluster) waitNode(ctx context.Context, n *node) error {
	opts := append(c.security.ClientOpts(),
		kgo.SeedBrokers(n.client.addr()),
		kgo.DialTimeout(2*time.Second),
		kgo.RequestRetries(0),
		kgo.RetryTimeout(2*time.Second))
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		last := c.probe(ctx, cl)
		if last == nil {
			return nil
		}
		if n.died() {
			n.kill() // reaps it
			return errors.New("the process ended while starting")
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return errors.Join(err, last)
		}
	}
}

// probe asks the client's one seed broker, and returns what is missing.
func (c *Cluster) probe(ctx context.Context, cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := metadata(ctx, cl.SeedBrokers()[0])
	if err != nil {
		return err
	}
	listed := make(map[int32]bool)
	for _, b := range resp.Brokers {
		listed[b.NodeID] = true
	}
	live := make(map[int32]bool)
	for _, n := range c.serving() {
		live[int32(n.id)] = true
		if !listed[int32(n.id)] {
			return fmt.Errorf("broker %d is not in the metadata", n.id)
		}
	}
	if len(live) < len(c.nodes) {
		return nil // partitions of the missing brokers may have no leader
	}
	return leaders(resp, live)
}

// leaders returns an error for a partition without a leader among the live
// brokers; nil means all brokers.
func leaders(resp *kmsg.MetadataResponse, live map[int32]bool) error {
	for _, t := range resp.Topics {
		name := ""
		if t.Topic != nil {
			name = *t.Topic
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", name, err)
		}
		for _, p := range t.Partitions {
			if p.Leader < 0 || live != nil && !live[p.Leader] {
				return fmt.Errorf("partition %s/%d has no leader", name, p.Partition)
			}
		}
	}
	return nil
}

// metadata asks one broker about the topics, or about all if none is given.
func metadata(ctx context.Context, b *kgo.Broker, topics ...string) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, t := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, rt)
	}
	resp, err := b.Request(ctx, req)
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.MetadataResponse), nil
}
