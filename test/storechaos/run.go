package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

const topic = "store-chaos"

func compare(a, b string) int { return cmp.Compare(a, b) }

// options are the command line.
type options struct {
	seed                       uint64
	duration                   time.Duration
	replicas, writers, brokers int
	out                        io.Writer
}

// run is one run of the test.
type run struct {
	options
	cluster *kafkatest.Cluster
	random  *rand.Rand
	self    string
	begin   time.Time

	mu      sync.Mutex
	oracle  *oracle
	faults  map[string]int
	readers sync.WaitGroup
}

// process is a replica that runs.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// chaos runs replicas under faults, and returns what the store did wrong.
func chaos(ctx context.Context, o options) (violations []string, err error) {
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000) + 1
	}
	fmt.Fprintf(o.out, "seed %d, %v, %d replicas with %d writers, %d brokers\n", o.seed, o.duration, o.replicas, o.writers, o.brokers)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cluster, err := kafkatest.Run(ctx, "", kafkatest.Options{Brokers: o.brokers})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	r := &run{options: o, cluster: cluster, random: rand.New(rand.NewPCG(o.seed, 1)), self: self, begin: time.Now(), oracle: newOracle(), faults: map[string]int{}}
	own := store.New(store.Options{Topic: topic, Log: zap.NewNop(), Connection: kafka.Connection{Brokers: cluster.Brokers(), ClientID: "storechaos"}})
	defer own.Close()

	processes := make([]*process, o.replicas)
	defer func() {
		for _, p := range processes {
			if p != nil {
				p.kill()
			}
		}
		r.readers.Wait()
	}()
	for i := range processes {
		if processes[i], err = r.start(ctx, i); err != nil {
			return nil, err
		}
	}
	for end := time.Now().Add(o.duration); time.Now().Before(end); {
		if err := sleep(ctx, time.Duration(1000+r.random.IntN(4000))*time.Millisecond); err != nil {
			return nil, err
		}
		if err := r.fault(ctx, processes); err != nil {
			return nil, err
		}
		_ = r.collect(ctx, own) // again with the next fault if there is no broker now
	}
	if err := cluster.StartAll(ctx); err != nil {
		return nil, err
	}
	if err := sleep(ctx, 2*time.Second); err != nil {
		return nil, err
	}
	for _, p := range processes {
		if _, err := io.WriteString(p.stdin, "stop\n"); err != nil {
			return nil, err
		}
	}
	for waited := time.Now(); !r.idle(); {
		if time.Since(waited) > 2*time.Minute {
			return nil, errors.New("a replica does not end its changes within two minutes")
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
	for i, p := range processes {
		_ = p.stdin.Close()
		_ = p.cmd.Wait() // its last line states whether it ended in order
		processes[i] = nil
	}
	r.readers.Wait()
	if err := r.collect(ctx, own); err != nil {
		return nil, err
	}
	end, err := own.Read(ctx)
	if err != nil {
		return nil, err
	}
	if len(r.oracle.final) != o.replicas {
		violations = append(violations, fmt.Sprintf("%d of %d replicas ended in order", len(r.oracle.final), o.replicas))
	}
	violations = append(violations, r.oracle.violations(versions(end))...)
	fmt.Fprintf(o.out, "faults: %v\n%s\n%d violations after %v\n", r.faults, r.oracle.summary(), len(violations), time.Since(r.begin).Round(time.Second))
	return violations, nil
}

// start starts replica i.
func (r *run) start(ctx context.Context, i int) (*process, error) {
	p := &process{name: fmt.Sprintf("replica-%d", i), cmd: exec.CommandContext(context.WithoutCancel(ctx), r.self)}
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d %s %s", replicaEnv, p.name, r.random.Uint64(), r.writers, topic, strings.Join(r.cluster.Brokers(), ",")))
	p.cmd.Stderr = os.Stderr
	// Its own pipe: what a killed replica printed is read to the end.
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer write.Close()
	p.cmd.Stdout = write
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, read.Close())
	}
	r.readers.Go(func() {
		defer read.Close()
		in := bufio.NewReader(read)
		for {
			text, err := in.ReadBytes('\n')
			if err != nil {
				return // what is left is half a line
			}
			var l line
			if json.Unmarshal(text, &l) == nil {
				r.mu.Lock()
				r.oracle.take(fmt.Sprintf("%s of process %d", p.name, p.cmd.Process.Pid), l)
				r.mu.Unlock()
			}
		}
	})
	return p, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	_ = p.stdin.Close()
}

// idle reports whether every replica has ended its changes.
func (r *run) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.oracle.idle == r.replicas
}

// collect reads the newest entries of the audit log.
func (r *run) collect(ctx context.Context, own *store.Store) error {
	entries, err := own.Audit(ctx, 5000, func(*store.Entry) bool { return true })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.oracle.audit(entries)
	return err
}

// fault kills or stops something and brings it back.
func (r *run) fault(ctx context.Context, processes []*process) error {
	broker := r.random.IntN(r.brokers)
	away := time.Duration(500+r.random.IntN(4500)) * time.Millisecond
	kind := []string{"replica killed", "replica killed", "broker killed", "broker restarted", "broker paused"}[r.random.IntN(5)]
	r.faults[kind]++
	fmt.Fprintf(r.out, "%6.1fs %s\n", time.Since(r.begin).Seconds(), kind)
	switch kind {
	case "replica killed":
		i := r.random.IntN(len(processes))
		processes[i].kill()
		p, err := r.start(ctx, i)
		if err == nil {
			processes[i] = p
		}
		return err
	case "broker killed":
		if err := errors.Join(r.cluster.Kill(broker), sleep(ctx, away)); err != nil {
			return err
		}
		return r.cluster.StartAll(ctx)
	case "broker restarted":
		return r.cluster.Restart(ctx, broker)
	default:
		return errors.Join(r.cluster.Pause(broker), sleep(ctx, away), r.cluster.Resume(broker))
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
