package main

import (
	"context"
	"errors"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

// rulebook is what rows are made from: the blueprint, which a reload may
// replace, and the table's columns, which may change under way. Whoever changes
// either holds the lock until bridge.rules are made of both.
type rulebook struct {
	mu        sync.Mutex // guards the fields below, and every change of bridge.rules
	plan      *mapping.Blueprint
	text      string // digest of the blueprint's text
	clusterID string
	fitted    bool             // rules were made once; the fields below are known
	columns   []zerobus.Column // of the table as last read; nil: they cannot be
	madeFor   []zerobus.Column // those the rules in force were made for
}

func (k *rulebook) blueprint() *mapping.Blueprint {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.plan
}

// settle makes rules of the blueprint and the columns that were just read, and
// has rows made by them.
func (b *bridge) settle(clusterID string, columns []zerobus.Column) (*mapping.Mapping, error) {
	k := &b.book
	k.mu.Lock()
	defer k.mu.Unlock()
	m, err := b.compile(k.plan, clusterID, columns)
	if err != nil {
		return nil, err
	}
	k.clusterID, k.fitted, k.columns = clusterID, true, columns
	b.adopt(m)
	return m, nil
}

// adopt has rows made by m from the next batch on. Called with the book's lock.
func (b *bridge) adopt(m *mapping.Mapping) {
	b.book.madeFor = b.book.columns
	b.rules.Store(&rules{m, b.client.Expect(rowColumns(m))})
}

// refit compiles the blueprint anew for columns that have changed: an optional
// column that appeared is filled from now on, one that left is left out. What
// does not fit is told and the old rows go on: the service says whether it
// takes them. misfit says how the columns do not fit these.
//
// A column whose values now look different is such a case, too, although the
// blueprint would go by the table's type: events made for a STRING are no
// BIGINT, and would be rejected one and all. Whether the new type is meant is
// for the operator to say.
func (b *bridge) refit(columns []zerobus.Column, misfit error) {
	const unfit = "the table has changed and the blueprint no longer fits it; rows go on as before"
	k := &b.book
	k.mu.Lock()
	defer k.mu.Unlock()
	if misfit != nil && slices.Equal(columns, k.madeFor) {
		return // a reload has met these columns first
	}
	k.columns = columns
	var how *zerobus.SchemaError
	if errors.As(misfit, &how) && len(how.Changed) > 0 {
		b.log.Error(unfit, zap.Error(how))
		return
	}
	m, err := b.compile(k.plan, k.clusterID, columns)
	if err != nil {
		b.log.Error(unfit, zap.Error(err))
		return
	}
	b.adopt(m)
	b.log.Info("rows are made for the table's new columns from now on", zap.Strings("left_out", m.OmittedColumns()))
}

// replan puts another blueprint in place of the one in force, if it fits the
// table as last read; text is the digest of its text. With fresh a table that it
// does not fit is read once more: the column it needs may just have been added.
func (b *bridge) replan(ctx context.Context, plan *mapping.Blueprint, text string, fresh bool) error {
	err := b.tryPlan(plan, text)
	var bad *misfit
	if !fresh || !errors.As(err, &bad) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, rereadTimeout)
	defer cancel()
	columns, _, rerr := b.readColumns(ctx)
	if rerr != nil || columns == nil {
		return err
	}
	k := &b.book
	k.mu.Lock()
	k.columns = columns
	k.mu.Unlock()
	return b.tryPlan(plan, text)
}

func (b *bridge) tryPlan(plan *mapping.Blueprint, text string) error {
	k := &b.book
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.fitted { // start-up makes the rules, once it has read the table
		if _, err := plan.Compile(mappingOptions(b.cfg)); err != nil {
			return err
		}
		k.plan, k.text = plan, text
		return nil
	}
	m, err := b.compile(plan, k.clusterID, k.columns)
	if err != nil {
		return err
	}
	k.plan, k.text = plan, text
	b.adopt(m)
	b.log.Info("rows are made by the new blueprint from the next batch on", zap.Strings("left_out", m.OmittedColumns()))
	return nil
}
