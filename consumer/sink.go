package consumer

import (
	"context"

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
	// and says that at least one of the rows can never be ingested; none of
	// the rows may be assumed durable then. One has the method
	//
	//	Stale() bool
	//
	// and says that the table's columns have changed since the rows were
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
// [Batch.Empty], and says there with
// [Batch.SetSchemaVersion] which they are.
type Mapper func(rec *kgo.Record, out *Batch)
