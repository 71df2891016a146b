package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafkatest"
)

func TestInstallChangeRemove(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		s := open(t, o)
		if state, err := s.Read(within(t)); err != nil || !state.Known || len(state.Records) != 0 || state.StoreID != "" {
			t.Fatalf("a topic that does not exist: got %+v, %v, want a known store without records", state, err)
		}
		first := update(t, s, "r1", installing("orders"))
		if !strings.HasPrefix(first.StoreID, "store_") || slugs(first) != "orders@1" {
			t.Fatalf("got %q and %s, want a store id and orders@1", first.StoreID, slugs(first))
		}
		update(t, s, "r2", installing("carts"))
		update(t, s, "r3", renaming("orders", "Orders"))
		after := update(t, s, "r4", removing("carts"))
		other, err := open(t, o).Read(within(t))
		must(t, err)
		if got := slugs(other); got != "orders@2" || other.Records[0].Name != "Orders" || other.StoreID != first.StoreID || slugs(after) != got {
			t.Errorf("another process reads %s of %s, and the writer has %s; want orders@2 of %s", got, other.StoreID, slugs(after), first.StoreID)
		}
		entries, err := s.Audit(within(t), 10, func(*store.Entry) bool { return true })
		must(t, err)
		var got []string
		for _, e := range entries {
			got = append(got, e.RequestID+" "+e.Action+" "+e.Slug)
			if e.ResourceID != idOf(e.Slug) || e.Time.IsZero() || !strings.HasPrefix(e.ID, "log_") || (e.Record == nil) != (e.Action == "integration.removed") {
				t.Errorf("the entry is not complete: %+v", e)
			}
		}
		if want := "r4 integration.removed carts, r3 integration.updated orders, r2 integration.installed carts, r1 integration.installed orders"; strings.Join(got, ", ") != want {
			t.Errorf("the audit log has %v, want %s", got, want)
		}
		entries, err = s.Audit(within(t), 1, func(e *store.Entry) bool { return e.Slug == "carts" })
		if err != nil || len(entries) != 1 || entries[0].RequestID != "r4" {
			t.Errorf("got %v, %v, want the newest entry of carts", entries, err)
		}
		if p := s.Verify(within(t)); p != nil {
			t.Errorf("a sound store has a problem: %v", p)
		}
	})
}

// What decide returns is the outcome, and nothing else is written.
func TestDecideRefuses(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		s := open(t, options(b, kafkatest.Name(t)))
		before := update(t, s, "r1", installing("orders"))
		if _, err := s.Update(within(t), "r2", installing("orders")); !errors.Is(err, errTaken) {
			t.Errorf("got %v, want the error of decide", err)
		}
		_, err := s.Update(within(t), "r3", func(store.State) ([]store.Write, error) { panic("a fault") })
		if err == nil || !strings.Contains(err.Error(), "a fault") {
			t.Errorf("got %v, want the panic of decide as an error", err)
		}
		for name, change := range map[string]func(*store.Record){
			"a bad slug":     func(r *store.Record) { r.Slug = "A b" },
			"a bad id":       func(r *store.Record) { r.ID = "int_1" },
			"too many bytes": func(r *store.Record) { r.Blueprint = strings.Repeat("x", store.MaxRecordBytes) },
			"no JSON":        func(r *store.Record) { r.Target["x"] = func() {} },
		} {
			_, err := s.Update(within(t), "r4", func(store.State) ([]store.Write, error) {
				r := record("bad")
				change(r)
				return []store.Write{{Record: r, Entry: entry("integration.installed")}}, nil
			})
			if !errors.Is(err, store.ErrRefused) {
				t.Errorf("%s: got %v, want a refusal", name, err)
			}
		}
		_, err = s.Update(within(t), "r5", func(store.State) ([]store.Write, error) {
			e := entry("integration.installed")
			e.Reason = strings.Repeat("x", 1<<20)
			return []store.Write{{Record: record("long"), Entry: e}}, nil
		})
		if !errors.Is(err, store.ErrRefused) {
			t.Errorf("got %v, want a refusal of the audit entry", err)
		}
		after, err := s.Read(within(t))
		must(t, err)
		if slugs(after) != slugs(before) {
			t.Errorf("got %s after refused changes, want %s", slugs(after), slugs(before))
		}
	})
}

// Changes that wait share a transaction, and each has its own verdict.
func TestManyChangesAtOnce(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		s := open(t, options(b, kafkatest.Name(t)))
		update(t, s, "first", installing("first"))
		commits := 0
		s.BeforeCommit(func(int64, int16) { commits++ })
		var wg sync.WaitGroup
		var mu sync.Mutex
		outcomes := map[bool]int{}
		for i := range 200 {
			wg.Go(func() {
				_, err := change(t, s, fmt.Sprint(i), installing([]string{"a", "b", "c", "d"}[i%4]+strings.Repeat("x", i/8)))
				mu.Lock()
				defer mu.Unlock()
				if err != nil && !errors.Is(err, errTaken) {
					t.Errorf("change %d: %v", i, err)
				}
				outcomes[err == nil]++
			})
		}
		wg.Wait()
		state, err := s.Read(within(t))
		must(t, err)
		if len(state.Records) != 101 || outcomes[true] != 100 || outcomes[false] != 100 || commits > 20 {
			t.Errorf("got %d records, %v and %d commits, want 101 records, 100 of each outcome and few commits", len(state.Records), outcomes, commits)
		}
	})
}

func TestFollow(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		f := follow(t, o)
		await.That(t, "the store is known", func() bool { return f.last().Known })
		s := open(t, o)
		update(t, s, "r1", installing("orders"))
		begin := time.Now()
		f.await(t, "orders@1")
		t.Logf("a change of another process was known after %v", time.Since(begin).Round(time.Millisecond))
		update(t, f.Store, "r2", renaming("orders", "Orders")) // its own
		f.await(t, "orders@2")
		update(t, s, "r3", removing("orders"))
		f.await(t, "")
	})
}
