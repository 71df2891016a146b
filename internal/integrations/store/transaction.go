package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafka"
)

// transactionTimeout is how long a broker keeps the transaction of a writer that died,
// unless another writer ends it before.
const transactionTimeout = 10 * time.Second

var errNoProducerID = errors.New("the broker gives no producer id")

// transaction is the fence of one attempt: whoever takes it later ends it.
type transaction struct {
	s     *Store
	cl    *kafka.Client
	id    int64
	epoch int16
}

// fence takes the transactional id of the store. What another writer has begun is aborted
// when it returns; what it has committed is complete.
func (s *Store) fence(ctx context.Context) (*transaction, error) {
	cl, err := kafka.NewClient(s.o.Connection, s.o.Log, kgo.WithContext(s.closing),
		kgo.TransactionalID(s.o.Topic), kgo.TransactionTimeout(transactionTimeout), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.RetryTimeout(attemptFor))
	if err != nil {
		return nil, err
	}
	t := &transaction{s: s, cl: cl}
	if t.id, t.epoch, err = cl.ProducerID(ctx); err == nil && t.id < 0 {
		err = errNoProducerID
	}
	if err != nil {
		cl.Close()
		return nil, t.failed("taking transactional id "+s.o.Topic, err, s.o.Topic)
	}
	return t, nil
}

// produce writes records into the transaction. After an error nothing of it is visible.
func (t *transaction) produce(ctx context.Context, records []*kgo.Record) error {
	if err := t.cl.BeginTransaction(); err != nil {
		return t.failed("beginning a transaction", err, t.s.o.Topic)
	}
	type result struct {
		topic string
		err   error
	}
	done := make(chan result, len(records)) // a client that is closed ends what is left
	for _, r := range records {
		t.cl.Produce(ctx, r, func(r *kgo.Record, err error) { done <- result{r.Topic, err} })
	}
	var failed result
	for range records {
		var one result
		select {
		case one = <-done:
		case <-ctx.Done():
			one = result{t.s.o.Topic, ctx.Err()}
		}
		if failed.err == nil && one.err != nil {
			failed = one
		}
	}
	if failed.err == nil {
		// A client that got another producer id would commit without the fence.
		id, epoch, err := t.cl.ProducerID(ctx)
		if err == nil && (id != t.id || epoch != t.epoch) {
			err = kerr.ProducerFenced
		}
		failed = result{t.s.o.Topic, err}
	}
	if failed.err == nil {
		return nil
	}
	if ctx.Err() == nil && t.cl.BufferedProduceRecords() == 0 {
		_ = t.cl.EndTransaction(ctx, kgo.TryAbort) // else the next fence aborts it
	}
	return t.failed("writing to topic "+failed.topic, failed.err, failed.topic)
}

// commit ends the transaction. After an error its outcome is not known: a fenced answer
// may be that to a repeated request.
func (t *transaction) commit(ctx context.Context) error {
	if err := t.cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return &againError{t.cl.Explain("committing to topic "+t.s.o.Topic, err, kafka.Request{Topic: t.s.o.Topic, Operation: kafka.Write, TransactionalID: t.s.o.Topic})}
	}
	return nil
}

// permanent are the answers that do not change when the request is repeated.
var permanent = []error{
	kerr.TopicAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.UnsupportedVersion,
	kerr.InvalidTransactionTimeout, kerr.UnsupportedForMessageFormat, kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord,
	kerr.InvalidTimestamp, kerr.PolicyViolation, kerr.SaslAuthenticationFailed, errNoProducerID,
}

func (t *transaction) failed(op string, err error, topic string) error {
	err = t.cl.Explain(op, err, kafka.Request{Topic: topic, Operation: kafka.Write, TransactionalID: t.s.o.Topic})
	if isAny(err, permanent) {
		return t.s.problemOf(err, kafka.Write)
	}
	return &againError{err}
}

// lost are the answers to a writer that was overtaken.
var lost = []error{
	kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping, kerr.ConcurrentTransactions,
	kerr.TransactionAbortable, kerr.UnknownProducerID, kerr.OutOfOrderSequenceNumber,
}

func isAny(err error, of []error) bool {
	return slices.ContainsFunc(of, func(target error) bool { return errors.Is(err, target) })
}

// noOpenTransaction returns an error while the log ends above its last stable offset: a transaction
// is open, which is that of a later writer or of another application.
func (s *Store) noOpenTransaction(ctx context.Context, cl *kafka.Client) error {
	committed, err := s.offset(ctx, cl, s.o.Topic, stable)
	if err != nil {
		return &againError{err}
	}
	end, err := s.offset(ctx, cl, s.o.Topic, latest)
	if err != nil {
		return &againError{err}
	}
	if end > committed {
		return &againError{s.open(committed, end)}
	}
	return nil
}

func (s *Store) open(stable, end int64) *Problem {
	admin := s.o.Connection.Admin()
	return &Problem{Code: OpenTransaction, Reason: fmt.Sprintf("another application has an open transaction in topic %s: the last stable offset is %d, and the log ends at %d", s.o.Topic, stable, end),
		Remedy: fmt.Sprintf("find its producer with kafka-transactions.sh %s describe-producers --topic %s --partition 0, stop it, and abort it with kafka-transactions.sh %s abort", admin, s.o.Topic, admin)}
}

// resolveBegun looks for the changes whose commit has an unknown outcome. Under a new
// fence, they are in the audit log, or never will be.
func (s *Store) resolveBegun(ctx context.Context, cl *kafka.Client, batch []*change, state State) error {
	for _, c := range batch {
		if !c.begun || c.finished {
			continue
		}
		entry := c.written[len(c.written)-1]
		end, err := s.offset(ctx, cl, s.audit, stable)
		if err != nil {
			return &againError{err}
		}
		if end <= entry.Offset {
			return &againError{&kafka.Error{Op: "reading topic " + s.audit, Err: fmt.Errorf("the last stable offset is %d, at or below the entry at %d", end, entry.Offset), Remedy: "stop the application that has an open transaction there"}}
		}
		err = s.readRange(ctx, cl, s.audit, entry.Offset, entry.Offset+1, func(rec *kgo.Record) error {
			if string(rec.Value) == string(entry.Value) {
				c.finish(state, nil)
			}
			return nil
		}, func(*kgo.Record, string) {})
		if err != nil {
			return &againError{err}
		}
		c.begun = false
	}
	return nil
}

// readTo reads until everything below an offset was read. A committed record can be read
// when the broker has marked its transaction as complete.
func (s *Store) readTo(ctx context.Context, end int64) (State, error) {
	for {
		state, err := s.fold(ctx, false)
		if err == nil && state.Revision >= end {
			return state, nil
		}
		if err == nil {
			err = fmt.Errorf("the records below offset %d cannot be read yet", end)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return state, err
		}
	}
}
