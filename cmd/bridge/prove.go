package main

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
)

// prove waits for Kafka and the table, fits the blueprint to the table and
// makes sure rejects have somewhere to go. What waiting cannot mend is
// returned at once.
func (b *bridge) prove(ctx context.Context) error {
	kafka := b.waitFor("kafka_unreachable")
	clusterID, err := b.cluster.Reach(ctx, kafka.failed)
	if err != nil {
		return err
	}
	kafka.over()

	letters := b.waitFor("dead_letter_topic")
	err = letters.until(ctx, b.cluster.EnsureDeadLetters, func(err error) bool {
		var failure *consumer.KafkaError
		return errors.As(err, &failure) && failure.Permanent
	})
	if err != nil {
		return err
	}

	sink := b.waitFor("sink_unreachable")
	return sink.until(ctx, func(ctx context.Context) error { return b.fit(ctx, clusterID) }, func(err error) bool {
		var bad *pipeline.BlueprintMismatch
		return zerobus.IsPermanent(err) || errors.As(err, &bad)
	})
}

// fit holds the blueprint against the table and proves that rows may be
// written to it.
func (b *bridge) fit(ctx context.Context, clusterID string) error {
	if err := b.client.Token(ctx); err != nil {
		return err
	}
	table, _, err := pipeline.ReadColumns(ctx, b.client)
	if err != nil {
		return err
	}
	m, err := b.schema.SetTable(clusterID, table)
	if err != nil {
		return err
	}
	if err := b.client.Preflight(ctx); err != nil {
		return err
	}
	if left := m.OmittedColumns(); len(left) > 0 {
		why := "the table does not have them"
		if table == nil {
			why = "the table's columns cannot be read"
		}
		b.log.Info("optional columns are left out", zap.Strings("columns", left), zap.String("because", why))
	}
	return nil
}

// unreadColumns says that the blueprint is not compared with the table, and which
// grants would let it.
func unreadColumns(hidden *zerobus.ColumnsUnreadable) string {
	return "the table's columns cannot be read, so the blueprint is not compared with them: " + hidden.Error()
}

// wait is one thing start-up waits for: one log line when it begins, one when
// it is over, and a reason at /readyz in between.
type wait struct {
	b     *bridge
	code  string
	began time.Time
}

func (b *bridge) waitFor(code string) *wait { return &wait{b: b, code: code} }

func (w *wait) failed(err error) {
	w.b.waiting.Store(&ops.Reason{Code: w.code, Text: err.Error(), Remedy: "start-up goes on by itself when this is mended"})
	if w.began.IsZero() {
		w.began = time.Now()
		w.b.log.Warn("start-up waits", zap.String("code", w.code), zap.Error(err))
	}
}

func (w *wait) over() {
	w.b.waiting.Store(nil)
	if !w.began.IsZero() {
		w.b.log.Info("start-up goes on", zap.String("code", w.code), zap.Duration("waited", time.Since(w.began)))
	}
}

const (
	proveTimeout = 45 * time.Second // one try of one step
	provePause   = 3 * time.Second
)

// until repeats step until it succeeds, ctx ends, or it fails for good.
func (w *wait) until(ctx context.Context, step func(context.Context) error, permanent func(error) bool) error {
	for {
		trying, cancel := context.WithTimeout(ctx, proveTimeout)
		err := step(trying)
		cancel()
		if err == nil {
			w.over()
			return nil
		}
		if permanent(err) || ctx.Err() != nil {
			return err
		}
		w.failed(err)
		select {
		case <-time.After(provePause):
		case <-ctx.Done():
			return err
		}
	}
}
