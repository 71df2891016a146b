package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/oracle"
)

// shortTransactions makes one transaction after the other; two of three are aborted.
func shortTransactions(r *run, f fault) error {
	for n, end := 0, time.Now().Add(f.Length); time.Now().Before(end) && r.ctx.Err() == nil; n++ {
		if err := r.transaction(1+(f.Target+7*n)%40, 0, n%3 == 2); err != nil {
			return err
		}
	}
	return nil
}

// openTransaction keeps a transaction open for the fault's length. Members that read
// committed events wait for it.
func openTransaction(r *run, f fault) error { return r.transaction(30, f.Length, f.Target%2 == 0) }

// transactionTimeout is when Kafka aborts a transaction whose producer is away.
const transactionTimeout = 40 * time.Second

// transaction produces events in a transaction of its own, keeps it open, and
// commits or aborts it. The ledger gets how it ended in Kafka.
func (r *run) transaction(events int, stayOpen time.Duration, commit bool) error {
	id := r.ledger.Begin()
	if id >= maxTransaction {
		return errors.New("there were as many transactions as event numbers allow")
	}
	name := fmt.Sprintf("chaos-%d", id)
	cl, err := r.rig.client(kgo.DefaultProduceTopic(topic), kgo.TransactionalID(name), kgo.TransactionTimeout(transactionTimeout), byNumber(r.gen))
	if err != nil {
		return fmt.Errorf("making a transactional producer: %w", err)
	}
	defer cl.Close()
	// Not the faults' context: a transaction that was begun is brought to its end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.life), 2*patience)
	defer cancel()
	if err := cl.BeginTransaction(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	whole := true
	var mu sync.Mutex // guards whole
	for i := range min(uint32(events), 1<<transactionShift) {
		number := transactionNumbers + id<<transactionShift + i
		cl.Produce(ctx, r.gen.record(number), func(rec *kgo.Record, err error) {
			if err == nil {
				r.ledger.Acknowledged(oracle.Event{Number: number, Partition: rec.Partition, Offset: rec.Offset})
				return
			}
			mu.Lock()
			defer mu.Unlock()
			whole = false
		})
	}
	err = cl.Flush(ctx)
	mu.Lock()
	commit = commit && whole && err == nil
	mu.Unlock()
	sleep(r.ctx, stayOpen)
	if commit {
		r.ledger.Commit(id)
	}
	if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
		if commit, err = r.transactionResult(ctx, name); err != nil {
			return fmt.Errorf("reading how a transaction ended: %w", err)
		}
	}
	r.ledger.Ended(id, commit)
	return nil
}

// transactionResult asks Kafka how a transaction ended whose producer got no answer.
func (r *run) transactionResult(ctx context.Context, name string) (committed bool, err error) {
	for {
		all, err := r.rig.adm.DescribeTransactions(ctx, name)
		if t := all[name]; err == nil && t.Err == nil {
			switch t.State {
			case "CompleteCommit":
				return true, nil
			case "CompleteAbort", "Empty", "Dead":
				return false, nil
			}
		}
		if !sleep(ctx, 500*time.Millisecond) {
			return false, errors.Join(ctx.Err(), err)
		}
	}
}

// arrayRecords produces arrays beside the other events.
func arrayRecords(r *run, f fault) error {
	ctx, cancel := context.WithTimeout(r.ctx, f.Length)
	defer cancel()
	r.producer.produceArrays(ctx)
	return nil
}

// recordsDeleted keeps members from the brokers until there is something they have
// not read, and deletes half of that in one partition. In another it deletes what is
// committed, which is no loss.
func recordsDeleted(r *run, f fault) error {
	r.reports.Lock()
	defer r.reports.Unlock()
	return oneBrokerAway(func(r *run, f fault) error {
		return r.withoutBrokers(func() error {
			r.last(f)
			return r.deleteRecords(f)
		})
	})(r, f)
}

// withoutBrokers calls do while members reach no broker, and gives them time to read
// before another fault may do the same.
func (r *run) withoutBrokers(do func() error) error {
	var lifts []func()
	for _, p := range r.rig.networks {
		lifts = append(lifts, p.add(weather{cut: true}))
	}
	err := do()
	for _, lift := range lifts {
		lift()
	}
	sleep(r.ctx, 3*time.Second)
	return err
}

func (r *run) deleteRecords(f fault) error {
	var ends map[int32]int64
	err := r.retry("reading the ends of partitions", func(ctx context.Context) (err error) {
		ends, err = r.ends(ctx, topic)
		return err
	})
	if err != nil {
		return err
	}
	unread := int32(f.Target % len(ends))
	read := (unread + 1) % int32(len(ends))
	var offsets kadm.Offsets
	if next, _ := r.ledger.Position(unread); ends[unread] > next {
		offsets.AddOffset(topic, unread, next+(ends[unread]-next+1)/2, -1)
	}
	if _, committed := r.ledger.Position(read); committed > 0 {
		offsets.AddOffset(topic, read, committed, -1)
	}
	offsets.Each(func(o kadm.Offset) { r.ledger.Deleting(o.Partition, o.At) })
	return r.retry("deleting records", func(ctx context.Context) error {
		deleted, err := r.rig.adm.DeleteRecords(ctx, offsets)
		deleted.Each(func(a kadm.DeleteRecordsResponse) { err = errors.Join(err, a.Err) })
		return err
	})
}

const (
	// deliveredWithin is how long the events of a topic may take before it is
	// deleted; after that it stays.
	deliveredWithin = 15 * time.Second

	recreatedPartitions = 2
	recreatedRate       = 20   // events a second
	recreatedMost       = 2000 // events that follow at once on a recreation
)

// recreation is the topic that is deleted and created again, and its producer.
type recreation struct {
	r      *run
	wg     sync.WaitGroup
	cancel context.CancelFunc

	mu          sync.Mutex // held while events are produced and while the topic is away
	cl          *kgo.Client
	incarnation uint32
	late        bool // its events had not arrived when it was to be recreated last

	counting sync.Mutex // guards next
	next     []uint32   // by incarnation: the number of its next event
}

func newRecreation(r *run) (*recreation, error) {
	t := &recreation{r: r, next: []uint32{recreatedNumbers}, cancel: func() {}}
	return t, t.connect()
}

// connect makes a producer that knows no earlier incarnation.
func (t *recreation) connect() (err error) {
	t.cl, err = t.r.rig.client(
		kgo.DefaultProduceTopic(recreated), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProduceRequestTimeout(10*time.Second),
		kgo.UnknownTopicRetries(-1), byNumber(t.r.gen),
	)
	if err != nil {
		return fmt.Errorf("making the producer of the recreated topic: %w", err)
	}
	return nil
}

// start produces until stop.
func (t *recreation) start(ctx context.Context) {
	ctx, t.cancel = context.WithCancel(ctx)
	t.wg.Go(func() {
		for sleep(ctx, time.Second/4) {
			t.mu.Lock()
			t.produce(recreatedRate / 4)
			t.mu.Unlock()
		}
	})
}

// produce writes events and waits until they are acknowledged. The caller holds mu.
func (t *recreation) produce(events int) {
	for range events {
		t.counting.Lock()
		number := t.next[t.incarnation]
		t.next[t.incarnation]++
		t.counting.Unlock()
		// Not the run's context: what was sent may be kept.
		t.cl.Produce(context.Background(), t.r.gen.record(number), func(rec *kgo.Record, err error) { //nolint:forbidigo // see above
			partition, perr := t.r.gen.ledgerPartition(recreated, rec.Partition, number)
			switch {
			case errors.Is(err, kgo.ErrClientClosed):
			case err != nil || perr != nil:
				t.r.v.Add(oracle.RuleKafka, "event %d of topic %s could not be produced: %v", number, recreated, errors.Join(err, perr))
			default:
				t.r.ledger.Acknowledged(oracle.Event{Number: number, Partition: partition, Offset: rec.Offset})
			}
		})
	}
	_ = t.cl.Flush(context.Background()) //nolint:forbidigo // ends with the client, at the latest
}

// produced reports whether an event of a number was produced.
func (t *recreation) produced(number uint32) bool {
	i, _ := incarnationOf(number)
	t.counting.Lock()
	defer t.counting.Unlock()
	return i < uint32(len(t.next)) && number < t.next[i]
}

// number returns that of the next event.
func (t *recreation) number() uint32 {
	t.counting.Lock()
	defer t.counting.Unlock()
	return t.next[len(t.next)-1]
}

// last returns the incarnation that exists, or is about to.
func (t *recreation) last() int32 {
	t.counting.Lock()
	defer t.counting.Unlock()
	return int32(len(t.next) - 1)
}

// delivered reports whether every event of an incarnation is a row.
func (t *recreation) delivered(incarnation uint32) bool {
	for p := range int32(recreatedPartitions) {
		if !t.r.ledger.Delivered(recreatedFrom + 10*int32(incarnation) + p) {
			return false
		}
	}
	return true
}

// stop ends the producing and waits until everything is acknowledged.
func (t *recreation) stop() {
	t.cancel()
	t.wg.Wait()
}

func (t *recreation) close() {
	t.cancel()
	t.cl.Close() // ends a wait for acknowledgements
	t.wg.Wait()
}

// topicRecreated deletes the topic once all its events have arrived, creates it
// again, and has more events follow than it had: a member that continues at the old
// offset misses some.
var topicRecreated = oneBrokerAway(func(r *run, f fault) error {
	t := r.recreate
	t.mu.Lock()
	defer t.mu.Unlock()
	limit := deliveredWithin
	if t.late {
		limit = time.Second // what came too late before is awaited at the end
	}
	t.late = t.incarnation == maxIncarnation || !until(r.ctx, limit, func() bool { return t.delivered(t.incarnation) })
	if t.late {
		r.logf("topic %s stays: it has events that are not delivered", recreated)
		return nil
	}
	if err := r.deleteAndCreate(f, recreated, recreatedPartitions); err != nil {
		return err
	}
	t.counting.Lock()
	had := t.next[t.incarnation] - recreatedNumbers - t.incarnation<<incarnationShift
	t.incarnation++
	t.next = append(t.next, recreatedNumbers+t.incarnation<<incarnationShift)
	t.counting.Unlock()
	t.cl.Close()
	if err := t.connect(); err != nil {
		return err
	}
	t.produce(int(min(had+100, recreatedMost)))
	return nil
})

// deleteAndCreate has a topic be away for the fault's length.
func (r *run) deleteAndCreate(f fault, name string, partitions int32) error {
	err := r.retry("deleting topic "+name, func(ctx context.Context) error {
		_, err := r.rig.adm.DeleteTopic(ctx, name)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return nil // a deletion without an answer
		}
		return err
	})
	if err != nil {
		return err
	}
	r.last(f)
	return r.retry("creating topic "+name+" again", func(ctx context.Context) error {
		_, err := r.rig.adm.CreateTopic(ctx, partitions, -1, nil, name)
		if errors.Is(err, kerr.TopicAlreadyExists) {
			return nil // a creation without an answer
		}
		return err
	})
}

// dlqRecreated deletes the dead-letter topic, once all it has was read and while no
// member can write to it, and creates it again.
var dlqRecreated = oneBrokerAway(func(r *run, f fault) error {
	r.dlq.Lock()
	defer r.dlq.Unlock()
	return r.withoutBrokers(func() error {
		sleep(r.ctx, time.Second) // what brokers have received is written
		if !until(r.ctx, deliveredWithin, func() bool { return r.deadLettersRead(r.ctx, r.source) }) {
			r.logf("topic %s stays: it has dead letters that are not read", deadLetters)
			return nil
		}
		if err := r.deleteAndCreate(f, deadLetters, partitions); err != nil {
			return err
		}
		r.reader.close()
		if err := r.reader.open(); err != nil {
			return err
		}
		r.reader.start(r.life)
		return nil
	})
})
