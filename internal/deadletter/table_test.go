package deadletter_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
)

// table is a sink that keeps rows and can be set to fail. Rows are
// "<partition>:<offset>:<text>", made by toRow. The tests of consumer hold writers to
// the contract of a sink.
type table struct {
	t *testing.T

	mu      sync.Mutex
	rows    []string
	writes  int
	onWrite hook
}

// hook decides a Write: nil keeps the rows, an error refuses them.
type hook func(ctx context.Context, w write) error

// write is one Write as a hook sees it.
type write struct {
	n    int // from 1
	rows []string
}

func newTable(t *testing.T) *table { return &table{t: t} }

type refusal struct{ code string }

func (r *refusal) Error() string             { return "the row is refused: " + r.code }
func (r *refusal) Refused() (string, string) { return r.code, "event_name" }

func (tab *table) Write(ctx context.Context, _ int64, rows [][]byte) (int, error) {
	if len(rows) == 0 {
		tab.t.Error("Write was called without rows")
	}
	var w write
	for _, r := range rows {
		w.rows = append(w.rows, string(r))
	}
	tab.mu.Lock()
	tab.writes++
	w.n = tab.writes
	decide := tab.onWrite
	tab.mu.Unlock()
	if decide != nil {
		if err := decide(ctx, w); err != nil {
			return 1, err
		}
	}
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.rows = append(tab.rows, w.rows...)
	return 1, nil
}

// Probe is Write: this sink does nothing else for one row.
func (tab *table) Probe(ctx context.Context, schemaVersion int64, rows [][]byte) (int, error) {
	return tab.Write(ctx, schemaVersion, rows)
}

func (tab *table) set(h hook) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.onWrite = h
}

func (tab *table) snapshot() []string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return slices.Clone(tab.rows)
}

func (tab *table) count() int { return len(tab.snapshot()) }

// verify compares the rows with what was produced: every text once.
func (tab *table) verify(want []string) {
	tab.t.Helper()
	var got []string
	for _, row := range tab.snapshot() {
		got = append(got, textOf(row))
	}
	slices.Sort(got)
	wantList(tab.t, "texts of the rows", got, slices.Sorted(slices.Values(want)))
}

func textOf(row string) string { return row[strings.LastIndexByte(row, ':')+1:] }

// toRow is a mapper for tests: "bad..." is rejected, "drop..." filtered,
// "many a b" becomes one row per word.
func toRow(rec *kgo.Record, out *consumer.Batch) { mapperFor("bad", "")(rec, out) }
