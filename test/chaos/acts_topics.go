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
)

// shortTransactions makes one transaction after the other; two of three are
// aborted.
func (r *run) shortTransactions(d *doing) error {
	for n, end := 0, time.Now().Add(d.Length); time.Now().Before(end) && r.ctx.Err() == nil; n++ {
		if err := r.transaction(1+(d.Target+7*n)%40, 0, n%3 == 2); err != nil {
			return err
		}
	}
	return nil
}

// openTransaction keeps a transaction open for the fault's length. Members that
// read committed events wait behind it.
func (r *run) openTransaction(d *doing) error {
	return r.transaction(30, d.Length, d.Target%2 == 0)
}

// transactionTimeout is when Kafka aborts a transaction whose producer is away.
const transactionTimeout = 40 * time.Second

// transaction produces events in a transaction of its own, keeps it open, and
// commits or aborts it. What Kafka made of it is entered, not what was asked.
func (r *run) transaction(events int, stayOpen time.Duration, commit bool) error {
	id := r.ledger.begin()
	if id >= maxTransaction {
		return errors.New("there were as many transactions as event numbers allow")
	}
	name := fmt.Sprintf("chaos-%d", id)
	cl, err := r.rig.client(kgo.DefaultProduceTopic(topic), kgo.TransactionalID(name), kgo.TransactionTimeout(transactionTimeout), byNumber(r.ledger.maker))
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
		cl.Produce(ctx, r.ledger.maker.record(number), func(rec *kgo.Record, err error) {
			if err == nil {
				r.ledger.acked(number, rec.Partition, rec.Offset)
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
	hold(r.ctx, stayOpen)
	if commit {
		r.ledger.committing(id)
	}
	if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
		if commit, err = r.outcome(ctx, name); err != nil {
			return fmt.Errorf("finding out how a transaction ended: %w", err)
		}
	}
	r.ledger.ended(id, commit)
	return nil
}

// outcome asks Kafka how a transaction ended whose producer was not answered.
func (r *run) outcome(ctx context.Context, name string) (committed bool, err error) {
	for {
		all, err := r.rig.adm.DescribeTransactions(ctx, name)
		switch t := all[name]; {
		case err == nil && t.Err == nil && t.State == "CompleteCommit":
			return true, nil
		case err == nil && t.Err == nil && (t.State == "CompleteAbort" || t.State == "Empty" || t.State == "Dead"):
			return false, nil
		}
		if !hold(ctx, 500*time.Millisecond) {
			return false, errors.Join(ctx.Err(), err)
		}
	}
}

// arrayRecords produces arrays beside the other events.
func (r *run) arrayRecords(d *doing) error {
	for end := time.Now().Add(d.Length); time.Now().Before(end) && hold(r.ctx, 50*time.Millisecond); {
		r.producer.array(r.ctx)
	}
	return nil
}

// recordsDeleted keeps members from the brokers until there is something they
// have not read, and deletes half of that in one partition. In another it
// deletes what is committed, which is nobody's loss.
func (r *run) recordsDeleted(d *doing) error {
	r.reports.Lock()
	defer r.reports.Unlock()
	done, ok := r.turn()
	if !ok {
		return nil
	}
	defer done()
	return r.withoutBrokers(func() error {
		r.last(d)
		return r.deleteRecords(d)
	})
}

// withoutBrokers does something while members reach no broker, and gives them
// time to read before another fault may do the same.
func (r *run) withoutBrokers(do func() error) error {
	var lifts []func()
	for _, p := range r.rig.networks {
		lifts = append(lifts, p.add(weather{cut: true}))
	}
	err := do()
	for _, lift := range lifts {
		lift()
	}
	hold(r.ctx, 3*time.Second)
	return err
}

func (r *run) deleteRecords(d *doing) error {
	var ends map[int32]int64
	err := r.retry(func(ctx context.Context) (err error) {
		ends, err = r.ends(ctx, topic)
		return err
	})
	if err != nil {
		return fmt.Errorf("asking for the ends of partitions: %w", err)
	}
	unread := int32(d.Target % len(ends))
	read := (unread + 1) % int32(len(ends))
	var offsets kadm.Offsets
	if high, _ := r.ledger.highest(unread); ends[unread] > high {
		offsets.AddOffset(topic, unread, high+(ends[unread]-high+1)/2, -1)
	}
	if _, committed := r.ledger.highest(read); committed > 0 {
		offsets.AddOffset(topic, read, committed, -1)
	}
	offsets.Each(func(o kadm.Offset) { r.ledger.deleting(o.Partition, o.At) })
	err = r.retry(func(ctx context.Context) error {
		deleted, err := r.rig.adm.DeleteRecords(ctx, offsets)
		deleted.Each(func(a kadm.DeleteRecordsResponse) { err = errors.Join(err, a.Err) })
		return err
	})
	if err != nil {
		return fmt.Errorf("deleting records: %w", err)
	}
	return nil
}

// deliveredWithin is how long a topic that is to be deleted is given to be
// delivered; if it is not, it stays.
const deliveredWithin = 15 * time.Second

const (
	recreatedPartitions = 2
	recreatedRate       = 20 // events a second
	// recreatedMost bounds how many events follow at once on a recreation.
	recreatedMost = 2000
)

// recreation is the topic that is deleted and created again, and its producer.
type recreation struct {
	rig    *rig
	ledger *ledger
	v      *violations
	wg     sync.WaitGroup
	cancel context.CancelFunc

	mu          sync.Mutex // held while events are produced and while the topic is away
	cl          *kgo.Client
	incarnation uint32
	late        bool // its events had not arrived when it was to be recreated last

	counting sync.Mutex // guards next
	next     []uint32   // by incarnation: the number of its next event
}

func newRecreation(r *rig, l *ledger, v *violations) (*recreation, error) {
	t := &recreation{rig: r, ledger: l, v: v, next: []uint32{recreatedNumbers}, cancel: func() {}}
	return t, t.connect()
}

// connect makes a producer that knows nothing of an earlier incarnation.
func (t *recreation) connect() error {
	cl, err := t.rig.client(
		kgo.DefaultProduceTopic(recreated), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProduceRequestTimeout(10*time.Second),
		kgo.UnknownTopicRetries(-1), byNumber(t.ledger.maker),
	)
	if err != nil {
		return fmt.Errorf("making the producer of the recreated topic: %w", err)
	}
	t.cl = cl
	return nil
}

// start produces until stop.
func (t *recreation) start(ctx context.Context) {
	ctx, t.cancel = context.WithCancel(ctx)
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		for hold(ctx, time.Second/4) {
			t.mu.Lock()
			t.produce(recreatedRate / 4)
			t.mu.Unlock()
		}
	}()
}

// produce writes events and waits until they are acknowledged. The caller holds
// mu.
func (t *recreation) produce(events int) {
	for range events {
		t.counting.Lock()
		number := t.next[t.incarnation]
		t.next[t.incarnation]++
		t.counting.Unlock()
		// Not the run's context: what was sent may be kept.
		t.cl.Produce(context.Background(), t.ledger.maker.record(number), func(rec *kgo.Record, err error) { //nolint:forbidigo // see above
			book, berr := bookOf(recreated, rec.Partition, number)
			switch {
			case errors.Is(err, kgo.ErrClientClosed):
			case err != nil || berr != nil:
				t.v.add(rulePromise, "event %d of topic %s could not be produced: %v", number, recreated, errors.Join(err, berr))
			default:
				t.ledger.acked(number, book, rec.Offset)
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

// last returns the incarnation that there is now, or is about to be.
func (t *recreation) last() int32 {
	t.counting.Lock()
	defer t.counting.Unlock()
	return int32(len(t.next) - 1)
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

// topicRecreated deletes the topic once all it holds has arrived, creates it
// again, and has more events follow than it held: whoever goes on at an offset
// of before misses some.
func (r *run) topicRecreated(d *doing) error {
	done, ok := r.turn()
	if !ok {
		return nil
	}
	defer done()
	t := r.recreate
	t.mu.Lock()
	defer t.mu.Unlock()
	limit := deliveredWithin
	if t.late {
		limit = time.Second // what came too late before is waited for at the end
	}
	t.late = t.incarnation == maxIncarnation || !r.until(r.ctx, limit, func() bool { return r.ledger.complete(t.incarnation) })
	if t.late {
		r.say("topic %s stays: it would take along what is not delivered", recreated)
		return nil
	}
	if err := r.deleteAndCreate(d, recreated, recreatedPartitions); err != nil {
		return err
	}
	t.counting.Lock()
	held := t.next[t.incarnation] - recreatedNumbers - t.incarnation<<incarnationShift
	t.incarnation++
	t.next = append(t.next, recreatedNumbers+t.incarnation<<incarnationShift)
	t.counting.Unlock()
	t.cl.Close()
	if err := t.connect(); err != nil {
		return err
	}
	t.produce(int(min(held+100, recreatedMost)))
	return nil
}

// deleteAndCreate has a topic be away for the fault's length.
func (r *run) deleteAndCreate(d *doing, name string, partitions int32) error {
	err := r.retry(func(ctx context.Context) error {
		_, err := r.rig.adm.DeleteTopic(ctx, name)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return nil // a deletion that was not answered
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("deleting topic %s: %w", name, err)
	}
	r.last(d)
	err = r.retry(func(ctx context.Context) error {
		_, err := r.rig.adm.CreateTopic(ctx, partitions, -1, nil, name)
		if errors.Is(err, kerr.TopicAlreadyExists) {
			return nil // a creation that was not answered
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("creating topic %s again: %w", name, err)
	}
	return nil
}

// lettersRecreated deletes the dead-letter topic, once all it holds was read and
// while no member can write to it, and creates it again.
func (r *run) lettersRecreated(d *doing) error {
	done, ok := r.turn()
	if !ok {
		return nil
	}
	defer done()
	r.closing.Lock()
	defer r.closing.Unlock()
	return r.withoutBrokers(func() error {
		hold(r.ctx, time.Second) // what brokers have taken is written
		read := func() bool {
			ends, err := r.ends(r.ctx, letters)
			return err == nil && r.reader.passed(ends)
		}
		if !r.until(r.ctx, deliveredWithin, read) {
			r.say("topic %s stays: it would take along what is not read", letters)
			return nil
		}
		if err := r.deleteAndCreate(d, letters, partitions); err != nil {
			return err
		}
		return r.reader.reopen(r.life)
	})
}
