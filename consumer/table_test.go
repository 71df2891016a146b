package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/twmb/franz-go/pkg/kgo"
)

// table is a sink that polices the contract and can be told to misbehave. Rows
// are "<partition>:<offset>:<text>", made by toRow.
type table struct {
	t *testing.T

	mu      sync.Mutex
	rows    []string
	writes  int
	busy    map[string]bool                                               // partitions with a Write in flight
	onWrite func(ctx context.Context, n int, rows []string) (error, bool) // error, and whether the rows are kept all the same
}

func newTable(t *testing.T) *table { return &table{t: t, busy: map[string]bool{}} }

type refusal struct{ code string }

func (r *refusal) Error() string             { return "the row is refused: " + r.code }
func (r *refusal) Refused() (string, string) { return r.code, "event_name" }

func (tab *table) Write(ctx context.Context, rows [][]byte) error {
	texts := make([]string, len(rows))
	for i, r := range rows {
		texts[i] = string(r)
	}
	if len(rows) == 0 {
		tab.t.Error("Write was called without rows")
		return nil
	}
	part, _, _ := strings.Cut(texts[0], ":")

	tab.mu.Lock()
	if tab.busy[part] {
		tab.t.Errorf("partition %s has two Writes in flight", part)
	}
	tab.busy[part] = true
	tab.writes++
	n, hook := tab.writes, tab.onWrite
	tab.mu.Unlock()
	defer func() {
		tab.mu.Lock()
		tab.busy[part] = false
		tab.mu.Unlock()
	}()

	var err error
	keep := true
	if hook != nil {
		if err, keep = hook(ctx, n, texts); err == nil {
			keep = true
		}
	}
	if keep {
		tab.mu.Lock()
		tab.rows = append(tab.rows, texts...)
		tab.mu.Unlock()
	}
	return err
}

func (tab *table) set(hook func(ctx context.Context, n int, rows []string) (error, bool)) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.onWrite = hook
}

func (tab *table) snapshot() []string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return append([]string(nil), tab.rows...)
}

// distinct counts the different rows.
func (tab *table) distinct() int {
	seen := map[string]bool{}
	for _, r := range tab.snapshot() {
		seen[r] = true
	}
	return len(seen)
}

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

var errEnded = errors.New("context ended")

// nobody observes nothing.
type nobody struct{}

func (nobody) EventsRead(string, int32, int, int)                   {}
func (nobody) RowsDelivered(string, int32, int, int, time.Duration) {}
func (nobody) EventRejected(string, string)                         {}
func (nobody) EventFiltered(string, string, int)                    {}
func (nobody) DeadLettered(string, int)                             {}
func (nobody) BatchHalved(string)                                   {}
func (nobody) Committed(error)                                      {}
func (nobody) Rebalanced(string, int)                               {}
func (nobody) Forget(string, int32)                                 {}
