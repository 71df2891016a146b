package zerobus

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Watch reads the table's columns every Config.ColumnsRefresh and calls
// onChange, from its own goroutine and one call at a time, whenever they are
// others than before: than those given to Encoding at first. A reading that a
// refused row led to counts, too. err is nil where the columns that rows carry
// (SetRowColumns) still fit, else a *SchemaError; writing is blocked only once the
// service refuses rows for it.
//
// What to do in onChange: compile rows for the new columns, then call Encoding
// and SetRowColumns. Watch returns when ctx ends.
func (c *Client) Watch(ctx context.Context, onChange func(cols []Column, err error)) {
	told := c.drift.baseline()
	silent := false // reading fails, and that was said
	every := c.set.ColumnsRefresh
	// Up to a tenth later each time, so that many bridges do not ask Unity
	// Catalog at once.
	timer := time.NewTimer(every + c.jitter(every/10))
	defer timer.Stop()
	if every == 0 {
		timer.Stop() // for good
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.drift.news:
			cols := c.drift.last()
			if slices.Equal(cols, told) {
				continue
			}
			told = cols
			c.log.Info("the table's columns have changed", zap.Int("columns", len(cols)))
			onChange(slices.Clone(cols), fit(c.set.table, c.columns.expect(), cols))
		case <-timer.C:
			timer.Reset(every + c.jitter(every/10))
			_, err := c.Columns(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !silent:
				c.log.Info("the table's columns cannot be read for the moment; rows go on as they are", zap.Error(err))
			}
			silent = err != nil
		}
	}
}

// drift compares what rows are made for with what was read since.
type drift struct {
	news chan struct{} // holds an element when latest may be others than before

	mu     sync.Mutex // guards the fields below
	inUse  []Column   // given to Encoding; nil: not known
	latest []Column   // the last that were read
}

func newDrift() *drift { return &drift{news: make(chan struct{}, 1)} }

func (d *drift) use(cols []Column) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inUse = slices.Clone(cols)
}

func (d *drift) baseline() []Column {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inUse
}

func (d *drift) last() []Column {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.latest
}

// saw notes columns that were read.
func (d *drift) saw(cols []Column) {
	d.mu.Lock()
	d.latest = slices.Clone(cols)
	d.mu.Unlock()
	select {
	case d.news <- struct{}{}:
	default:
	}
}
