package consumer_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
)

// rulesOf is a mapper for tests whose rules can change: "<column>..." is rejected
// for that column while the column is bad, "poison..." for no column, "drop..." is
// filtered, and anything else is a row.
type rulesOf struct {
	bad     atomic.Pointer[map[string]string] // code by column
	version atomic.Int64
}

func newRules(bad map[string]string) *rulesOf {
	r := new(rulesOf)
	r.change(bad)
	return r
}

func (r *rulesOf) change(bad map[string]string) {
	r.bad.Store(&bad)
	r.version.Add(1)
}

func (r *rulesOf) mapper() consumer.Mapper {
	var bad map[string]string
	return func(rec *kgo.Record, out *consumer.Batch) {
		if out.Empty() {
			bad = *r.bad.Load()
			out.SetSchemaVersion(r.version.Load())
		}
		text := string(rec.Value)
		column := strings.TrimRight(text, "0123456789")
		code, is := bad[column]
		switch {
		case column == "poison":
			out.Reject("not_json", "", "the record is not JSON")
		case column == "drop":
			out.Filter("test")
		case is:
			out.Reject(code, column, "column "+column+" cannot hold a string")
		default:
			out.Row(fmt.Appendf(out.Buf(), "0:%d:%s", rec.Offset, text))
		}
	}
}

// pattern makes events: "amount*3 ok*2" is three for column amount, two rows.
func pattern(spec string, times int) []string {
	var all []string
	for range times {
		for _, part := range strings.Fields(spec) {
			name, count, _ := strings.Cut(part, "*")
			n := 1
			if count != "" {
				fmt.Sscan(count, &n)
			}
			for range n {
				all = append(all, fmt.Sprintf("%s%06d", name, len(all)))
			}
		}
	}
	return all
}

// recordsOf are pushed together, so that what is one batch does not depend on
// how fast they are taken.
func recordsOf(first int64, texts []string) []*kgo.Record {
	var recs []*kgo.Record
	for i, text := range texts {
		recs = append(recs, &kgo.Record{Topic: "lab", Offset: first + int64(i), Value: []byte(text)})
	}
	return recs
}

// A reject of the mapper that half of the last events share, by column and code,
// is a fault of the mapping: nothing is dead-lettered or committed meanwhile.
// Events that are bad alone are dead-lettered as ever.
func TestMappingFaultBlocks(t *testing.T) {
	all := map[string]string{"amount": "type_mismatch", "at": "bad_timestamp"}
	for _, tc := range []struct {
		name   string
		policy string
		events []string
		blocks bool
	}{
		{"every event", consumer.PolicySkip, pattern("amount*300", 1), true},
		{"50 of 50", consumer.PolicySkip, pattern("amount*50", 1), true},
		{"49 of 49", consumer.PolicySkip, pattern("amount*49", 1), false},
		{"half, spread", consumer.PolicySkip, pattern("amount ok", 200), true},
		{"a third", consumer.PolicySkip, pattern("amount ok*2", 200), false},
		{"after a long good time", consumer.PolicySkip, pattern("ok*2000 amount*100", 1), true},
		{"99 after a long good time", consumer.PolicySkip, pattern("ok*2000 amount*99", 1), false},
		{"two causes, neither half", consumer.PolicySkip, pattern("amount*2 at*2 ok", 100), false},
		{"two causes, one half", consumer.PolicySkip, pattern("amount*3 at ok", 100), true},
		{"no JSON at all", consumer.PolicySkip, pattern("poison*300", 1), false},
		{"no JSON hides nothing", consumer.PolicySkip, pattern("poison*3 amount", 100), true},
		{"filtered events hide nothing", consumer.PolicySkip, pattern("drop*3 amount", 100), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rules, tab, counts := newRules(all), newTable(t), newCounts()
				cfg := labConfig()
				cfg.Rejects.Policy = tc.policy
				l, err := consumer.NewLab(cfg, tab, rules.mapper(), counts, nopLog)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				l.Push(recordsOf(0, tc.events)...)
				synctest.Wait()
				_ = wait(t.Context(), 5*time.Minute)
				s := l.Status()
				if got := s.State == consumer.StateBlocked; got != tc.blocks {
					t.Fatalf("blocked: got %v (%s), want %v", got, s.Reason, tc.blocks)
				}
				if !tc.blocks {
					if want := int64(len(tc.events)); s.Marked != want {
						t.Errorf("marked %d, want %d: bad events are passed by the policy", s.Marked, want)
					}
					return
				}
				if !strings.Contains(s.Reason, "column amount (type_mismatch)") {
					t.Errorf("reason %q, want the column and the code", s.Reason)
				}

				// The mapping is fixed: what was held back becomes rows, once.
				rules.change(map[string]string{"at": "bad_timestamp"})
				_ = wait(t.Context(), time.Minute)
				if s = l.Status(); s.Marked != int64(len(tc.events)) {
					t.Fatalf("marked %d after the mapping was fixed, want %d (%s %s)", s.Marked, len(tc.events), s.State, s.Reason)
				}
				rows := 0
				for _, text := range tc.events {
					if strings.HasPrefix(text, "amount") || strings.HasPrefix(text, "ok") {
						rows++
					}
				}
				// What came before the rule could report was passed by the policy.
				passed := counts.get(func() int { return counts.rejected["type_mismatch"] })
				if passed > 99 {
					t.Errorf("%d events were rejected for what was a fault of the mapping, want at most 99", passed)
				}
				if tab.count() != rows-passed || tab.distinct() != rows-passed {
					t.Errorf("%d rows, %d of them different, want %d", tab.count(), tab.distinct(), rows-passed)
				}
				if l := s.Ledger; l.Unaccounted != 0 {
					t.Errorf("the ledger is out by %d: %+v", l.Unaccounted, l)
				}
			})
		})
	}
}

// Better events behind the bad ones are a reason to continue, and the bad ones are
// passed by the policy; another fault of the mapping takes the place of one that
// was fixed.
func TestMappingFaultEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules, tab, counts := newRules(map[string]string{"amount": "type_mismatch", "at": "bad_timestamp"}), newTable(t), newCounts()
		l, err := consumer.NewLab(labConfig(), tab, rules.mapper(), counts, nopLog)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		offset := int64(0)
		push := func(texts ...string) {
			l.Push(recordsOf(offset, texts)...)
			offset += int64(len(texts))
			_ = wait(t.Context(), 2*time.Minute)
		}
		reason := func(want string) {
			t.Helper()
			if s := l.Status(); want != "" && (s.State != consumer.StateBlocked || !strings.Contains(s.Reason, want)) || want == "" && s.State == consumer.StateBlocked {
				t.Fatalf("state %s, reason %q, want %q", s.State, s.Reason, want)
			}
		}
		push(pattern("amount*60", 1)...)
		reason("column amount (type_mismatch)")
		push(pattern("ok*50", 1)...)
		reason("column amount (type_mismatch)") // still more than half
		push(pattern("ok*20", 1)...)
		reason("")
		if got := counts.get(func() int { return counts.rejected["type_mismatch"] }); got != 60 || tab.count() != 70 {
			t.Errorf("%d rejected and %d rows, want 60 and 70", got, tab.count())
		}

		push(pattern("amount*200 at*200", 1)...)
		reason("column amount")
		rules.change(map[string]string{"at": "bad_timestamp"})
		_ = wait(t.Context(), time.Minute)
		reason("column at (bad_timestamp)")
		rules.change(nil)
		_ = wait(t.Context(), time.Minute)
		reason("")
		s := l.Status()
		if late := s.Ledger.Skipped - 60; s.Marked != offset || late > 99 || int64(tab.count()) != 470-late || tab.distinct() != tab.count() {
			t.Errorf("marked %d of %d, %d skipped, %d rows (%d different), want 60 skipped, at most 99 more, and the rest as rows", s.Marked, offset, s.Ledger.Skipped, tab.count(), tab.distinct())
		}
	})
}

// A table that refuses rows and a mapping that is then changed for the worse:
// the new mapping's rejects are held to the same rule.
func TestMappingFaultBehindASchemaFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules, tab, counts := newRules(nil), newTable(t), newCounts()
		tab.set(func(context.Context, write) error { return &refusal{"schema_mismatch"} })
		l, err := consumer.NewLab(labConfig(), tab, rules.mapper(), counts, nopLog)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.Push(recordsOf(0, pattern("amount*100", 1))...)
		_ = wait(t.Context(), time.Minute)
		if s := l.Status(); !strings.Contains(s.Reason, "the table refuses") {
			t.Fatalf("reason %q, want the table's refusal", s.Reason)
		}
		rules.change(map[string]string{"amount": "type_mismatch"})
		_ = wait(t.Context(), 5*time.Minute)
		if s := l.Status(); s.State != consumer.StateBlocked || !strings.Contains(s.Reason, "column amount (type_mismatch)") {
			t.Fatalf("state %s, reason %q, want the mapping's fault", s.State, s.Reason)
		}
		tab.set(nil)
		rules.change(nil)
		_ = wait(t.Context(), time.Minute)
		if s := l.Status(); s.Marked != 100 || tab.count() != 100 || s.Ledger.Skipped != 0 {
			t.Errorf("marked %d, %d rows, %d skipped, want 100 rows and nothing skipped", s.Marked, tab.count(), s.Ledger.Skipped)
		}
	})
}
