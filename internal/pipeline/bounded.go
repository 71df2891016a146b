package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
)

// ErrIncomplete ends a bounded run that was stopped before its end. Exit code 0
// is for one that is complete, or a scheduler would take it for done.
var ErrIncomplete = errors.New("stopped before every partition had reached its end; start it again with the same --group to resume")

// bound fixes where the run begins and ends. The ends are nil for a run without.
func (p *Pipeline) bound(ctx context.Context) (ends *consumer.StopOffsets, err error) {
	from, until := p.cfg.From, p.cfg.Until
	if from == nil && until == nil {
		return nil, nil //nolint:nilnil // an open run has no ends
	}
	begun := from == nil
	err = p.dependency("kafka_unreachable").await(ctx, permanentInKafka, func(ctx context.Context) error {
		if !begun {
			if err := p.begin(ctx); err != nil {
				return err
			}
			begun = true
		}
		if until == nil {
			return nil
		}
		ends, err = p.cluster.StopOffsets(ctx, *until)
		return err
	})
	if ends != nil {
		at := ends.Progress()
		p.log.Info("bounded run: started; it ends when the group has reached the end of every partition", zap.String("group", p.kafka.Group),
			zap.Stringer("until", until), zap.Int("partitions", at.Partitions), zap.Int("reached", at.Reached), zap.Int64("events", at.Total))
	}
	return ends, err
}

// begin commits where the group begins, once.
func (p *Pipeline) begin(ctx context.Context) error {
	begun, kept, err := p.cluster.CommitStartOffsets(ctx, *p.cfg.From)
	if err != nil {
		return err
	}
	if kept > 0 {
		p.log.Warn("--from is not used for partitions in which the group has committed: the group resumes there; use a new --group for another part of the log",
			zap.String("group", p.kafka.Group), zap.Int("partitions", kept))
	}
	p.log.Info("beginning at --from", zap.String("group", p.kafka.Group), zap.Stringer("from", p.cfg.From), zap.Int("partitions", begun))
	return nil
}

// finishBounded logs how a bounded run ended.
func (p *Pipeline) finishBounded(ends *consumer.StopOffsets) error {
	at := ends.Progress()
	t := p.deps.Metrics.Totals()
	p.log.Info("bounded run: over", zap.Bool("complete", ends.Reached()), zap.Int("partitions", at.Partitions), zap.Int("reached", at.Reached),
		zap.Int64("events_read", t.EventsRead), zap.Int64("rows", t.RowsDelivered), zap.Int64("dead_letters", t.DeadLetters),
		zap.Int64("filtered", t.EventsFiltered), zap.Duration("duration", time.Since(p.started).Round(time.Millisecond)))
	if !ends.Reached() {
		return fmt.Errorf("%d of %d partitions: %w", at.Partitions-at.Reached, at.Partitions, ErrIncomplete)
	}
	return nil
}
