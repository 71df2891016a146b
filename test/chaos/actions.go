package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/internal/oracle"
)

// last waits for a fault's length.
func (r *run) last(f fault) { sleep(r.ctx, f.Length) }

func memberTerm(r *run, f fault) error {
	if s, _ := r.fleet.pick(f.Target); s != nil {
		r.fleet.restart(r.ctx, s)
	}
	return nil
}

func memberKill(r *run, f fault) error {
	if _, p := r.fleet.pick(f.Target); p != nil {
		p.signal(syscall.SIGKILL)
	}
	return nil
}

func memberFreeze(r *run, f fault) error {
	if _, p := r.fleet.pick(f.Target); p != nil {
		defer p.freeze()()
		r.last(f)
	}
	return nil
}

func memberJoin(r *run, f fault) error {
	s := r.fleet.grow(r.life, true)
	r.last(f)
	r.fleet.set(s, false, logKept)
	r.fleet.restart(r.ctx, s)
	return nil
}

func memberLeave(r *run, f fault) error {
	s, p := r.fleet.pick(f.Target)
	if p == nil || len(r.fleet.running()) < 2 {
		return nil
	}
	r.fleet.set(s, false, logKept)
	r.fleet.terminate(r.ctx, p)
	r.last(f)
	r.fleet.set(s, true, logKept)
	return nil
}

func restartAll(r *run, _ fault) error {
	for _, s := range r.fleet.running() {
		if p := r.fleet.process(s); p != nil {
			p.signal(syscall.SIGTERM)
		}
	}
	return nil
}

// withoutLog starts a member whose log is not kept, and after a while one whose log
// is. It waits until deleted records are reported, because this member's report
// would be missing.
func withoutLog(log logTo) action {
	return func(r *run, f fault) error {
		r.reports.Lock()
		defer r.reports.Unlock()
		if !until(r.ctx, deliveredWithin, func() bool { return !r.ledger.AwaitsReports() }) {
			r.logf("no member loses its log: a report of deleted records is awaited")
			return nil
		}
		s, p := r.fleet.pick(f.Target)
		if p == nil {
			return nil
		}
		r.fleet.set(s, true, log)
		r.fleet.terminate(r.ctx, p)
		r.last(f)
		r.fleet.set(s, true, logKept)
		r.fleet.restart(r.ctx, s)
		return nil
	}
}

const (
	// clients is how many addresses hold connections, idlePerClient how many each:
	// together twice what a member allows in all.
	clients       = 8
	idlePerClient = 64
	// endWithin is how long a process that no longer answers may take to end.
	endWithin = 15 * time.Second
	// reopenAfter is when a connection is opened again that the member has closed.
	reopenAfter = 500 * time.Millisecond
)

// idleConnections has clients hold connections to a member's ops endpoints while
// probes are sent. If the process ends or is frozen meanwhile, that is another
// fault's effect: the probe waits for a frozen one, and no answer of an ended one is
// no violation.
func idleConnections(r *run, f fault) error {
	probe := func(p *process) error { return p.get(r.ctx, "/livez", patience, nil) }
	_, p := r.fleet.pick(f.Target)
	if p == nil || !until(r.ctx, patience, func() bool { return !p.running() || probe(p) == nil }) {
		return nil
	}
	ctx, release := context.WithTimeout(r.ctx, f.Length)
	defer release()
	var holding sync.WaitGroup
	defer holding.Wait()
	for i := range clients * idlePerClient {
		holding.Go(func() { holdConnection(ctx, p.address, i) })
	}
	for sleep(ctx, time.Second) && p.running() {
		err := probe(p)
		if err == nil || r.ctx.Err() != nil {
			continue
		}
		select {
		case <-p.done:
		case <-time.After(endWithin):
			r.v.Add(oracle.RuleProbe, "%s runs and does not answer /livez beside idle connections: %v", p.name, err)
		case <-r.ctx.Done():
		}
		return nil
	}
	return nil
}

// holdConnection keeps the i-th connection open until ctx ends: without a request,
// with half of one, after one, or, one of each client, without reading the answer.
func holdConnection(ctx context.Context, address string, i int) {
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%clients))}, Timeout: patience}
	request := []string{"", "GET /livez HT", "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"}[i/clients%3]
	slow := i < clients
	if slow {
		request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
	}
	for ; ctx.Err() == nil; sleep(ctx, reopenAfter) {
		conn, err := from.DialContext(ctx, "tcp", address)
		if err != nil { // it has ended, or only 127.0.0.1 is the loopback here
			from.LocalAddr = nil
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		_, _ = io.WriteString(conn, request)
		if slow {
			<-ctx.Done()
		} else {
			_, _ = io.Copy(io.Discard, conn)
		}
		stop()
		conn.Close()
	}
}

const (
	// inUseWithin bounds how long a new blueprint may take to show in a member's
	// rows. Files are read every ten seconds without a notification, and the faults
	// last fifteen.
	inUseWithin = 90 * time.Second
	// stuckWithin bounds how long rows that were mapped before may still be under
	// way: blocked, and probed for every half minute.
	stuckWithin = 75 * time.Second
)

// blueprintChanged replaces a blueprint. In half of the cases the member gets a
// signal, else it has to notice.
func blueprintChanged(r *run, f fault) error {
	r.blueprint.Lock()
	defer r.blueprint.Unlock()
	if _, p := r.fleet.pick(f.Target); p != nil {
		return r.replaceBlueprint(p, f.Target/2%2 == 0)
	}
	return nil
}

// blueprintBroken writes half a blueprint, which the member must refuse while it
// continues, and then another whole one.
func blueprintBroken(r *run, f fault) error {
	r.blueprint.Lock()
	defer r.blueprint.Unlock()
	_, p := r.fleet.pick(f.Target)
	if p == nil {
		return nil
	}
	half := strings.TrimRight(blueprint(p.name, 0), "}\n") // a brace is open
	if _, err := r.rig.putBlueprint(p.name, half); err != nil {
		return err
	}
	p.hangUp()
	r.last(f)
	return r.replaceBlueprint(p, false)
}

// replaceBlueprint gives a process another blueprint and waits until its rows show
// it. The caller holds r.blueprint.
func (r *run) replaceBlueprint(p *process, signal bool) error {
	r.edition++
	want, began := r.edition, time.Now()
	for _, src := range r.sources() {
		src.ledger.BlueprintReplaced(p.name)
	}
	if _, err := r.rig.putBlueprint(p.name, blueprint(p.name, want)); err != nil {
		return err
	}
	if signal {
		p.hangUp()
	}
	inUse := func() bool {
		edition, _ := r.ledger.Edition(p.name)
		return edition >= want || !p.running()
	}
	if !until(r.ctx, inUseWithin, inUse) && r.ctx.Err() == nil {
		// A member without partitions writes nothing.
		if edition, at := r.ledger.Edition(p.name); at.After(began.Add(stuckWithin)) {
			r.v.Add(oracle.RuleReload, "%s wrote by edition %d of its blueprint at %s; edition %d is in its file since %s",
				p.name, edition, oracle.Clock(at), want, oracle.Clock(began))
		}
	}
	return nil
}

// network applies weather to proxies for the fault's length.
func network(w weather, to func(*run, fault) []*proxy) action {
	return func(r *run, f fault) error {
		for _, p := range to(r, f) {
			defer p.add(w)()
		}
		r.last(f)
		return nil
	}
}

func oneBroker(r *run, f fault) []*proxy  { return r.rig.networks[f.Target%len(r.rig.networks):][:1] }
func allBrokers(r *run, _ fault) []*proxy { return r.rig.networks }
func sinks(r *run, _ fault) []*proxy      { return r.rig.sinks }

// retry repeats what a cluster in trouble may refuse.
func (r *run) retry(what string, try func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(r.ctx, 2*patience)
	defer cancel()
	for {
		trying, done := context.WithTimeout(ctx, 10*time.Second)
		err := try(trying)
		done()
		if err == nil {
			return nil
		}
		if !sleep(ctx, 500*time.Millisecond) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// oneBrokerAway carries out a fault while no other has a broker away: with two of
// three away, Kafka promises nothing that the bridge could be checked against.
func oneBrokerAway(act action) action {
	return func(r *run, f fault) error {
		select {
		case r.broker <- struct{}{}:
			defer func() { <-r.broker }()
			return act(r, f)
		case <-r.ctx.Done():
			return nil
		}
	}
}

func brokerKill(r *run, f fault) error { return killBroker(r, f, f.Target%r.o.brokers) }

func killBroker(r *run, f fault, i int) error {
	return oneBrokerAway(func(r *run, f fault) error {
		if err := r.rig.cluster.Kill(i); err != nil {
			return err
		}
		r.last(f)
		return r.rig.cluster.Restart(r.ctx, i)
	})(r, f)
}

func coordinatorKill(r *run, f fault) error {
	var node int32
	err := r.retry("finding the group's coordinator", func(ctx context.Context) error {
		c, ok := r.rig.adm.FindGroupCoordinators(ctx, group)[group]
		if !ok {
			return errors.New("no answer")
		}
		node = c.NodeID
		return c.Err
	})
	if err != nil {
		return err
	}
	return killBroker(r, f, int(node)-1)
}

var brokerPause = oneBrokerAway(func(r *run, f fault) error {
	i := f.Target % r.o.brokers
	if err := r.rig.cluster.Pause(i); err != nil {
		return err
	}
	r.last(f)
	return r.rig.cluster.Resume(i)
})

// leaderMove rotates the replicas of every partition by one, so that another is
// preferred, and has it elected.
var leaderMove = oneBrokerAway(func(r *run, _ fault) error {
	err := r.retry("moving leaders", func(ctx context.Context) error {
		topics, err := r.rig.adm.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		var req kadm.AlterPartitionAssignmentsReq
		for _, p := range topics[topic].Partitions.Sorted() {
			if n := len(p.Replicas); n > 1 {
				req.Assign(topic, p.Partition, append(p.Replicas[1:n:n], p.Replicas[0]))
			}
		}
		moved, err := r.rig.adm.AlterPartitionAssignments(ctx, req)
		if err != nil {
			return err
		}
		return moved.Error()
	})
	if err != nil {
		return err
	}
	// Kafka may find that some are where they should be already.
	req := kmsg.NewPtrElectLeadersRequest()
	req.TimeoutMillis = 5000
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	if _, err := req.RequestWith(ctx, r.rig.cl); err != nil && r.ctx.Err() == nil {
		return fmt.Errorf("electing leaders: %w", err)
	}
	return nil
})

// maxPartitions bounds them in a long run.
const maxPartitions = 32

var partitionAdd = oneBrokerAway(func(r *run, _ fault) error {
	// A request that has timed out may have been carried out: the number wanted is
	// fixed before.
	var want int
	return r.retry("adding a partition", func(ctx context.Context) error {
		topics, err := r.rig.adm.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		n := len(topics[topic].Partitions)
		if want == 0 {
			want = min(n+1, maxPartitions)
		}
		if n >= want {
			return nil
		}
		added, err := r.rig.adm.UpdatePartitions(ctx, want, topic)
		if err != nil {
			return err
		}
		return added.Error()
	})
})

// dlqUnavailable has the dead-letter topic refuse every record as too large.
func dlqUnavailable(r *run, f fault) error {
	set := func(op kadm.IncrementalOp) error {
		one := "1"
		c := kadm.AlterConfig{Op: op, Name: "max.message.bytes"}
		if op == kadm.SetConfig {
			c.Value = &one
		}
		return r.retry("configuring the dead-letter topic", func(ctx context.Context) error {
			changed, err := r.rig.adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{c}, deadLetters)
			if err != nil {
				return err
			}
			_, err = changed.On(deadLetters, func(r *kadm.AlterConfigsResponse) error { return r.Err })
			return err
		})
	}
	r.dlq.Lock()
	defer r.dlq.Unlock()
	if err := set(kadm.SetConfig); err != nil {
		return err
	}
	r.last(f)
	return set(kadm.DeleteConfig)
}
