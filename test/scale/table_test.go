package scale_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
)

// table is where every member writes. A row is "<partition> <offset>".
type table struct {
	ack time.Duration // how long a Write takes

	mu    sync.Mutex
	next  []int64 // by partition: the offset after the highest row; all below it are there
	rows  int     // duplicates included
	busy  []bool  // a Write of the partition is in flight
	wrong []string
}

func newTable(partitions int, ack time.Duration) *table {
	return &table{ack: ack, next: make([]int64, partitions), busy: make([]bool, partitions)}
}

func toRow(rec *kgo.Record, out *consumer.Batch) {
	out.Row(fmt.Appendf(out.Buf(), "%d %d", rec.Partition, rec.Offset))
}

// Write keeps the rows and notes what must never happen: a gap in a partition,
// rows out of order within one Write, two Writes of one partition at a time.
func (tab *table) Write(ctx context.Context, _ int64, rows [][]byte) (int, error) {
	var id int
	var first int64
	if _, err := fmt.Sscanf(string(rows[0]), "%d %d", &id, &first); err != nil {
		tab.note("row %q: %v", rows[0], err)
		return 1, nil
	}
	tab.mu.Lock()
	if tab.busy[id] {
		tab.wrong = append(tab.wrong, fmt.Sprintf("partition %d has two Writes in flight", id))
	}
	tab.busy[id] = true
	tab.mu.Unlock()
	defer func() {
		tab.mu.Lock()
		defer tab.mu.Unlock()
		tab.busy[id] = false
	}()

	timer := time.NewTimer(tab.ack)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return 1, ctx.Err()
	}

	tab.mu.Lock()
	defer tab.mu.Unlock()
	for i, row := range rows {
		if want := fmt.Sprintf("%d %d", id, first+int64(i)); string(row) != want {
			tab.wrong = append(tab.wrong, fmt.Sprintf("got row %q behind %d others of its Write, want %q", row, i, want))
		}
	}
	if first > tab.next[id] {
		tab.wrong = append(tab.wrong, fmt.Sprintf("partition %d continues at offset %d, with %d to %d missing", id, first, tab.next[id], first-1))
	}
	tab.next[id] = max(tab.next[id], first+int64(len(rows)))
	tab.rows += len(rows)
	return 1, nil
}

// Probe is Write: no row is ever refused here.
func (tab *table) Probe(ctx context.Context, schemaVersion int64, rows [][]byte) (int, error) {
	return tab.Write(ctx, schemaVersion, rows)
}

func (tab *table) note(format string, args ...any) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.wrong = append(tab.wrong, fmt.Sprintf(format, args...))
}

// distinct counts the different events that were delivered. There are no gaps, so it is
// where the partitions have got to.
func (tab *table) distinct() (n int64) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for _, next := range tab.next {
		n += next
	}
	return n
}

// verify compares the table with how many events each partition was given.
func (tab *table) verify(t *testing.T, each int64) (duplicates int) {
	t.Helper()
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for id, next := range tab.next {
		if next != each {
			t.Errorf("partition %d: got %d events, want %d", id, next, each)
		}
	}
	for i, wrong := range tab.wrong {
		if i == 10 {
			t.Errorf("and %d more of the kind", len(tab.wrong)-i)
			break
		}
		t.Error(wrong)
	}
	return tab.rows - len(tab.next)*int(each)
}
