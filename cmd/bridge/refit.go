package main

import (
	"errors"

	"go.uber.org/zap"

	"github.com/datafly/bridge/zerobus"
)

// refit compiles the blueprint anew for columns that have changed: an optional
// column that appeared is filled from now on, one that left is left out. What
// does not fit is told and the old rows go on: the service says whether it
// takes them. misfit says how the columns do not fit these.
//
// A column whose values now look different is such a case, too, although the
// blueprint would go by the table's type: events made for a STRING are no
// BIGINT, and would be rejected one and all. Whether the new type is meant is
// for the operator to say.
func (b *bridge) refit(clusterID string, columns []zerobus.Column, misfit error) {
	const unfit = "the table has changed and the blueprint no longer fits it; rows go on as before"
	var how *zerobus.SchemaError
	if errors.As(misfit, &how) && len(how.Changed) > 0 {
		b.log.Error(unfit, zap.Error(how))
		return
	}
	m, err := b.compile(clusterID, columns)
	if err != nil {
		b.log.Error(unfit, zap.Error(err))
		return
	}
	b.adopt(m)
	b.log.Info("rows are made for the table's new columns from now on", zap.Strings("left_out", m.OmittedColumns()))
}
