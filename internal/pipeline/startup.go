package pipeline

import (
	"cmp"
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/zerobus"
)

const (
	// CheckTimeout bounds one try of one start-up check.
	CheckTimeout = 45 * time.Second
	checkPause   = 3 * time.Second // between two tries
)

// start waits for what the pipeline depends on and fixes where the run begins and
// ends: Kafka, the dead-letter topics, the table. The ends are nil for a run
// without. It returns at once what waiting cannot resolve.
func (p *Pipeline) start(ctx context.Context) (*consumer.StopOffsets, error) {
	kafka := p.dependency("kafka_unreachable")
	clusterID, err := p.cluster.Reach(ctx, kafka.failed)
	if err != nil {
		return nil, err
	}
	kafka.available()
	err = p.dependency("dead_letter_topic").await(ctx, permanentInKafka, p.cluster.EnsureDeadLetters)
	if err != nil {
		return nil, err
	}
	err = p.dependency("sink_unreachable").await(ctx, func(err error) bool {
		var bad *BlueprintMismatch
		return zerobus.IsPermanent(err) || errors.As(err, &bad)
	}, func(ctx context.Context) error { return p.schema.CheckTable(ctx, clusterID) })
	if err != nil {
		return nil, err
	}
	for _, i := range p.cfg.Settings.IgnoredWith(p.client.State().Transport) {
		p.log.Warn("setting has no effect", zap.String("key", i.Key), zap.String("because", i.Why), zap.String("remedy", i.Remedy))
	}
	return p.bound(ctx)
}

func permanentInKafka(err error) bool {
	var failure *kafka.Error
	return errors.As(err, &failure) && failure.Permanent
}

// CheckTable checks that rows may be written to the table, and that the blueprint
// fits its columns, and makes rows by them from now on.
func (s *Schema) CheckTable(ctx context.Context, clusterID string) error {
	if err := s.client.Token(ctx); err != nil {
		return err
	}
	undecided := s.client.Decide(ctx) // the form of the rows depends on it
	if undecided != nil && !zerobus.IsPermanent(undecided) {
		return undecided
	}
	table, _, err := ReadColumns(ctx, s.client)
	if err = cmp.Or(err, undecided); err != nil { // a table of the wrong kind is the clearer error
		return err
	}
	m, err := s.SetTable(clusterID, table)
	if err != nil {
		return err
	}
	if err := s.client.Preflight(ctx); err != nil {
		return err
	}
	if omitted := m.OmittedColumns(); len(omitted) > 0 {
		why := "the table does not have them"
		if table == nil {
			why = "the table's columns cannot be read"
		}
		s.log.Info("optional columns omitted", zap.Strings("columns", omitted), zap.String("because", why))
	}
	return nil
}

// dependency is one thing that a start needs. A wait for it has one log line at its
// begin, one at its end, and a reason at /readyz in between.
type dependency struct {
	p     *Pipeline
	code  string
	began time.Time // of the wait; zero without one
}

func (p *Pipeline) dependency(code string) *dependency { return &dependency{p: p, code: code} }

func (d *dependency) failed(err error) {
	d.p.waiting.Store(&consumer.NotReady{Code: d.code, Text: err.Error(), Remedy: "fix this; the start-up resumes automatically"})
	if d.began.IsZero() {
		d.began = time.Now()
		d.p.log.Warn("waiting for dependency", zap.String("code", d.code), zap.Error(err))
	}
}

func (d *dependency) available() {
	d.p.waiting.Store(nil)
	if !d.began.IsZero() {
		d.p.log.Info("dependency available", zap.String("code", d.code), zap.Duration("waited", time.Since(d.began)))
	}
}

// await repeats check until it succeeds, ctx ends, or it fails for good.
func (d *dependency) await(ctx context.Context, permanent func(error) bool, check func(context.Context) error) error {
	for {
		trying, cancel := context.WithTimeout(ctx, CheckTimeout)
		err := check(trying)
		cancel()
		if err == nil {
			d.available()
			return nil
		}
		if permanent(err) || ctx.Err() != nil {
			return err
		}
		d.failed(err)
		select {
		case <-time.After(checkPause):
		case <-ctx.Done():
			return err
		}
	}
}
