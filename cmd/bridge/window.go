package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
)

// windowFlags are --from and --until of bridge run, as given.
type windowFlags struct{ from, until string }

func (f *windowFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.from, "from", "", "begin here where the group has committed nothing: earliest, an RFC 3339 time, or a time before now (-2h); needs --group")
	cmd.Flags().StringVar(&f.until, "until", "", "end, with exit code 0, when the group has delivered all before this: now, an RFC 3339 time, or a time before now (-1h); needs --group")
}

// window is the part of the log that a run is limited to; nil fields are open.
type window struct{ from, until *consumer.Position }

const (
	fromForms  = formEarliest
	untilForms = formNow
)

// read returns the window the command line asks for; nil if it asks for none.
// cfg is what was loaded from o.
func (f *windowFlags) read(cfg *config.Config, o config.Options, now time.Time) (*window, error) {
	if f.from == "" && f.until == "" {
		return nil, nil //nolint:nilnil // no window is what was asked for
	}
	w := &window{}
	if f.from != "" {
		p, err := parsePosition(f.from, fromForms, now)
		if err != nil {
			return nil, fmt.Errorf("--from %w", err)
		}
		w.from = &p
	}
	if f.until != "" {
		p, err := parsePosition(f.until, untilForms, now)
		if err != nil {
			return nil, fmt.Errorf("--until %w", err)
		}
		w.until = &p
	}
	switch {
	case w.from == nil && cfg.Kafka.Start == "latest":
		return nil, errors.New("--until reads nothing while kafka.start is latest; add --from")
	case w.from != nil && w.until != nil && w.from.Kind == consumer.AtTime && w.until.Kind == consumer.AtTime && !w.from.Time.Before(w.until.Time):
		return nil, fmt.Errorf("--until %s is not after --from %s; exchange them", w.until, w.from)
	}
	return w, ownGroup(cfg, o)
}

// ownGroup holds a run of a window to a group of its own: as a member of the
// live group it would take partitions from the deployment, and stop with them.
func ownGroup(cfg *config.Config, o config.Options) error {
	_, given := o.Flags["group"]
	delete(o.Flags, "group")
	var sets []string
	for _, set := range o.Sets {
		if key, _, _ := strings.Cut(set, "="); strings.TrimSpace(key) == "kafka.group" {
			given = true
			continue
		}
		sets = append(sets, set)
	}
	o.Sets, o.Partial = sets, true
	live, err := config.Load(o)
	if err != nil {
		return err
	}
	if !given || live.Kafka.Group == cfg.Kafka.Group {
		return fmt.Errorf("--from and --until need a group of their own; add --group with another name than %s, which is the live deployment's", live.Kafka.Group)
	}
	return nil
}

// load reads the configuration and the window of bridge run.
func (f *windowFlags) load(cmd *cobra.Command) (*config.Config, *window, error) {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return nil, nil, err
	}
	w, err := f.read(cfg, config.FromFlags(cmd.Flags(), os.Environ()), time.Now())
	if err != nil {
		return nil, nil, &usageError{err}
	}
	return cfg, w, nil
}

// begin fixes where the run begins and ends. The ends are nil for a run
// without.
func (w *window) begin(ctx context.Context, b *bridge, cfg *consumer.Config) (ends *consumer.StopOffsets, err error) {
	if w == nil {
		return nil, nil //nolint:nilnil // a run without a window has no ends
	}
	if w.from != nil {
		cfg.Start = "earliest"
		if w.from.Kind == consumer.AtTime {
			cfg.StartAt = w.from.Time
		}
	}
	waiting, pinned := b.waitFor("kafka_unreachable"), false
	err = waiting.until(ctx, func(ctx context.Context) error {
		if w.from != nil && !pinned {
			if err := w.pin(ctx, b); err != nil {
				return err
			}
			pinned = true
		}
		if w.until == nil {
			return nil
		}
		ends, err = b.cluster.StopOffsets(ctx, *w.until)
		return err
	}, func(err error) bool {
		var failure *consumer.KafkaError
		return errors.As(err, &failure) && failure.Permanent
	})
	if ends != nil {
		p := ends.Progress()
		b.log.Info("bounded run: ends when the group has reached the end of every partition", zap.String("group", b.cfg.Kafka.Group),
			zap.Stringer("until", w.until), zap.Int("partitions", p.Partitions), zap.Int("reached", p.Reached), zap.Int64("events", p.Total))
	}
	return ends, err
}

// pin commits where the group begins, once.
func (w *window) pin(ctx context.Context, b *bridge) error {
	begun, kept, err := b.cluster.CommitStartOffsets(ctx, *w.from)
	if err != nil {
		return err
	}
	if kept > 0 {
		b.log.Warn("--from is not used for partitions in which the group has committed: it goes on there; for another part of the log take a new --group",
			zap.String("group", b.cfg.Kafka.Group), zap.Int("partitions", kept))
	}
	b.log.Info("beginning at --from", zap.String("group", b.cfg.Kafka.Group), zap.Stringer("from", w.from), zap.Int("partitions", begun))
	return nil
}

// errCut ends a bounded run that was told to stop: exit code 0 is for one that
// is through, or a scheduler would take it for done.
var errCut = errors.New("stopped before every partition had reached its end; start it again with the same --group and it goes on")

// outcome says how a bounded run ended.
func (b *bridge) outcome(ends *consumer.StopOffsets) error {
	p := ends.Progress()
	t := b.counts.Totals()
	b.log.Info("bounded run: over", zap.Bool("complete", ends.Reached()), zap.Int("partitions", p.Partitions), zap.Int("reached", p.Reached),
		zap.Int64("events_read", t.EventsRead), zap.Int64("rows", t.RowsDelivered), zap.Int64("dead_letters", t.DeadLetters),
		zap.Int64("filtered", t.EventsFiltered), zap.Duration("duration", time.Since(b.started).Round(time.Millisecond)))
	if !ends.Reached() {
		return fmt.Errorf("%d of %d partitions: %w", p.Partitions-p.Reached, p.Partitions, errCut)
	}
	return nil
}
