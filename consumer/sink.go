package consumer

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Sink makes rows durable.
type Sink interface {
	// Write returns no error only once every row is durable in the table. It
	// retries what is worth retrying for as long as ctx lives; blocked
	// states (wrong grants, a missing table) are waited out inside it.
	//
	// The errors it returns are of three kinds. One has the method
	//
	//	Refused() (code, column string)
	//
	// and means that at least one of the rows can never be ingested; none of
	// the rows may be assumed durable then. One has the method
	//
	//	Stale() bool
	//
	// and means that the table's columns have changed since the rows were
	// made: the records are to be mapped again. Any other error means that
	// ctx ended, and whether the rows are durable is unknown.
	//
	// Write must not keep rows, or what they point to, after it returned.
	// One partition has at most one Write in flight; different partitions
	// call concurrently.
	//
	// schemaVersion is what the Mapper set with [Batch.SetSchemaVersion] for these
	// rows. attempts is how many requests the sink has sent, for a
	// [BatchObserver]; it is valid with an error too.
	Write(ctx context.Context, schemaVersion int64, rows [][]byte) (attempts int, err error)

	// Probe is Write for rows among which some were refused: the partition
	// splits them until the refused row is alone in its Probe. A sink whose
	// connection suffers from a refusal (a shared stream that ends with it)
	// sends probes where they do not disturb other partitions.
	Probe(ctx context.Context, schemaVersion int64, rows [][]byte) (attempts int, err error)
}

// refused is what a Write error is when some of its rows can never be
// ingested. code is a metric label from a closed set; column may be empty.
type refused interface {
	error
	Refused() (code, column string)
}

// stale is what a Write error is when its rows were made for columns that the
// table no longer has.
type stale interface {
	error
	Stale() bool
}

// Mapper turns one record into what it became: for each event in the record,
// in order, it calls exactly one of out.Row, out.Reject and out.Filter. It must
// not keep the record. A Mapper is used by one goroutine at a time.
//
// A Mapper whose rules can change while it is used takes new ones only when
// [Batch.Empty], and sets their version there with [Batch.SetSchemaVersion].
type Mapper func(rec *kgo.Record, out *Batch)

// RowSender sends runs of rows, named by their index, to a sink that may refuse
// some of them.
type RowSender interface {
	// SendRows sends rows lo up to, and without, hi: with Write at first, with
	// Probe once one of them is known to be refused.
	SendRows(lo, hi int, probe bool) error
	// RefuseRow takes a row that was refused alone, with the sink's error. An error
	// ends the search.
	RefuseRow(row int, code, column string, err error) error
}

// SendAll has s send the rows that are not resolved, in order and in Writes of at
// most maxRows rows and maxBytes bytes, but of one row at least. What is refused is
// split, and sent again, until the refused row is alone: one among n costs at most
// 2*ceil(log2 n) Probes. s resolves rows as it goes.
func SendAll(s RowSender, rows [][]byte, resolved []bool, maxRows int, maxBytes int64) error {
	for lo := 0; lo < len(rows); {
		if resolved[lo] {
			lo++
			continue
		}
		hi, size := lo+1, len(rows[lo])
		for hi < len(rows) && !resolved[hi] && hi-lo < maxRows && int64(size+len(rows[hi])) <= maxBytes {
			size += len(rows[hi])
			hi++
		}
		if err := sendSplitting(s, lo, hi, false); err != nil {
			return err
		}
		lo = hi
	}
	return nil
}

func sendSplitting(s RowSender, lo, hi int, probe bool) error {
	err := s.SendRows(lo, hi, probe)
	var no refused
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &no):
		return err
	case hi-lo == 1:
		code, column := no.Refused()
		return s.RefuseRow(lo, code, column, err)
	}
	mid := lo + (hi-lo)/2
	if err := sendSplitting(s, lo, mid, true); err != nil {
		return err
	}
	return sendSplitting(s, mid, hi, true)
}
