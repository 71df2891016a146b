package consumer_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/datafly/bridge/consumer"
	"github.com/twmb/franz-go/pkg/kgo"
)

// table is a sink that checks the contract and can be set to fail. Rows
// are "<partition>:<offset>:<text>", made by toRow. Several members may share
// it: two Writes of one partition at a time are an error then, too.
type table struct {
	t *testing.T

	mu      sync.Mutex
	rows    []string
	writes  int
	busy    map[string]bool // partitions with a Write in flight
	onWrite hook
}

// hook decides a Write: nil keeps the rows, an error refuses them.
type hook func(ctx context.Context, w write) error

// write is one Write as a hook sees it.
type write struct {
	n         int    // from 1, over all partitions
	partition string // of its first row
	rows      []string
}

func newTable(t *testing.T) *table { return &table{t: t, busy: map[string]bool{}} }

type refusal struct{ code string }

func (r *refusal) Error() string             { return "the row is refused: " + r.code }
func (r *refusal) Refused() (string, string) { return r.code, "event_name" }

func (tab *table) Write(ctx context.Context, _ int64, rows [][]byte) (int, error) {
	w := write{rows: make([]string, len(rows))}
	for i, r := range rows {
		w.rows[i] = string(r)
	}
	if len(rows) == 0 {
		tab.t.Error("Write was called without rows")
		return 1, nil
	}
	w.partition, _, _ = strings.Cut(w.rows[0], ":")

	tab.mu.Lock()
	if tab.busy[w.partition] {
		tab.t.Errorf("partition %s has two Writes in flight", w.partition)
	}
	tab.busy[w.partition] = true
	tab.writes++
	w.n = tab.writes
	decide := tab.onWrite
	tab.mu.Unlock()
	defer func() {
		tab.mu.Lock()
		defer tab.mu.Unlock()
		tab.busy[w.partition] = false
	}()

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

func (tab *table) set(h hook) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.onWrite = h
}

// Probe is Write: this sink's wire suffers from nothing.
func (tab *table) Probe(ctx context.Context, schemaVersion int64, rows [][]byte) (int, error) {
	return tab.Write(ctx, schemaVersion, rows)
}

func (tab *table) snapshot() []string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return append([]string(nil), tab.rows...)
}

func (tab *table) count() int {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return len(tab.rows)
}

func (tab *table) requests() int {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return tab.writes
}

// distinct counts the different rows.
func (tab *table) distinct() int {
	seen := map[string]bool{}
	for _, r := range tab.snapshot() {
		seen[r] = true
	}
	return len(seen)
}

// verify compares the rows with what was produced: every text once, offsets of
// each partition rising.
func (tab *table) verify(want []string) {
	tab.t.Helper()
	tab.verifyDelivered(want)
	rows := tab.snapshot()
	if len(rows) != len(want) {
		tab.t.Errorf("got %d rows, want %d: %d are duplicates", len(rows), len(want), len(rows)-tab.distinct())
	}
	last := map[string]int64{}
	for _, row := range rows {
		part, rest, _ := strings.Cut(row, ":")
		number, _, _ := strings.Cut(rest, ":")
		offset, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			tab.t.Fatalf("row %q has no offset: %v", row, err)
		}
		if before, ok := last[part]; ok && offset < before {
			tab.t.Errorf("partition %s: offset %d came after %d", part, offset, before)
			return
		}
		last[part] = offset
	}
}

// verifyDelivered wants every text at least once and nothing else.
func (tab *table) verifyDelivered(want []string) {
	tab.t.Helper()
	seen := map[string]bool{}
	for _, row := range tab.snapshot() {
		seen[textOf(row)] = true
	}
	missing := 0
	for _, text := range want {
		if !seen[text] {
			missing++
		}
		delete(seen, text)
	}
	if missing > 0 {
		tab.t.Errorf("%d of %d events never delivered", missing, len(want))
	}
	for text := range seen {
		tab.t.Errorf("%d rows delivered that should not have, such as %.80q", len(seen), text)
		break
	}
}

func textOf(row string) string { return row[strings.LastIndexByte(row, ':')+1:] }

// toRow is a mapper for tests: "bad..." is rejected, "drop..." filtered,
// "many a b" becomes one row per word.
func toRow(rec *kgo.Record, out *consumer.Batch) {
	text := string(rec.Value)
	if strings.HasPrefix(text, "drop") {
		out.Filter("test")
		return
	}
	words := []string{text}
	if rest, ok := strings.CutPrefix(text, "many "); ok {
		words = strings.Fields(rest)
	}
	for _, w := range words {
		if strings.HasPrefix(w, "bad") {
			out.Reject("bad", "", "the text begins with bad")
			continue
		}
		out.Row(fmt.Appendf(out.Buf(), "%d:%d:%s", rec.Partition, rec.Offset, w))
	}
}

func newToRow() consumer.Mapper { return toRow }
