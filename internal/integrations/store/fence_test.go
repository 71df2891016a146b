package store_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafkatest"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

var changes = flag.Int("changes", 1, "changes of each writer of TestWritersAtOnce")

// latencies are the times that changes took.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

func (l *latencies) String() string {
	if len(l.all) == 0 {
		return "none"
	}
	slices.Sort(l.all)
	return fmt.Sprintf("p50 %v, max %v", l.all[len(l.all)/2].Round(time.Millisecond), l.all[len(l.all)-1].Round(time.Millisecond))
}

// Several writers change one record. No revision is acknowledged twice, and none is
// skipped, with a pause between tries and without. The figures are in
// docs/decisions/0007-store.md; the test prints them with -v.
func TestWritersAtOnce(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		for _, writers := range []int{6, 12} {
			for _, backOff := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d writers, back-off %v", writers, backOff), func(t *testing.T) { writersAtOnce(t, b, writers, backOff) })
			}
		}
	})
}

func writersAtOnce(t *testing.T, b kafkatest.Broker, writers int, backOff bool) {
	each := *changes
	o := options(b, kafkatest.Name(t))
	first := open(t, o)
	update(t, first, "install", installing("orders"))
	var alone, contended latencies
	for range 8 {
		begin := time.Now()
		update(t, first, "alone", renaming("orders", "alone"))
		alone.add(time.Since(begin))
	}
	var again, gaveUp, unknown atomic.Int64
	var mu sync.Mutex
	acknowledged := map[int64]int{}
	var wg sync.WaitGroup
	for i := range writers {
		s := open(t, o)
		pause := s.PauseFunc()
		s.Pause(func(try int) time.Duration {
			again.Add(1)
			if backOff {
				return pause(try)
			}
			return 0
		})
		wg.Go(func() {
			for n := range each {
				var revision int64
				begin := time.Now()
				_, err := s.Update(within(t), "change", func(now store.State) ([]store.Write, error) {
					revision = now.Find("orders").Revision + 1
					return renaming("orders", fmt.Sprintf("%d of %d", n, i))(now)
				})
				switch {
				case errors.Is(err, store.ErrOutcome): // a busy machine: it may be written
					unknown.Add(1)
					continue
				case errors.Is(err, store.ErrUnavailable):
					gaveUp.Add(1)
					continue
				case err != nil:
					t.Errorf("writer %d: %v", i, err)
				}
				contended.add(time.Since(begin))
				mu.Lock()
				acknowledged[revision]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	after, err := first.Read(within(t))
	must(t, err)
	total := after.Records[0].Revision
	missing := int64(0)
	for r := int64(10); r <= total; r++ {
		if acknowledged[r] > 1 {
			t.Errorf("revision %d was acknowledged %d times, want once", r, acknowledged[r])
		}
		if acknowledged[r] == 0 {
			missing++
		}
	}
	if done := int64(writers*each) - gaveUp.Load() - unknown.Load(); total != 9+done+missing || int64(len(acknowledged)) != done || missing > unknown.Load() {
		t.Errorf("got revision %d and %d acknowledged changes, want %d of each above 9; %d are unknown", total, len(acknowledged), done, unknown.Load())
	}
	attempts := again.Load() + int64(len(acknowledged))
	t.Logf("%d changes in %d attempts, %d%% fenced, %d gave up after 5 s; alone %v; contended %v",
		len(acknowledged), attempts, 100*again.Load()/max(attempts, 1), gaveUp.Load(), &alone, &contended)
}

// A writer that dies between produce and commit leaves nothing, and the next one does not
// wait for its transaction to time out.
func TestWriterIsKilled(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		o := options(b, kafkatest.Name(t))
		s := open(t, o)
		update(t, s, "r1", installing("orders"))
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "STORE_TEST_WRITER="+strings.Join(b.Addrs(), ",")+" "+o.Topic)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
		if line != "produced\n" {
			t.Fatalf("the writer printed %q, %v", line, err)
		}
		begin := time.Now()
		state := update(t, s, "r3", renaming("orders", "after"))
		took := time.Since(begin)
		if slugs(state) != "orders@2" || state.Records[0].Name != "after" {
			t.Errorf("got %s, want orders@2", slugs(state))
		}
		t.Logf("the next change took %v", took.Round(time.Millisecond))
		entries, err := s.Audit(within(t), 10, func(e *store.Entry) bool { return e.RequestID == "killed" })
		if err != nil || len(entries) != 0 {
			t.Errorf("got %v, %v, want no audit entry of the killed writer", entries, err)
		}
	})
}

// writer is the process that is killed.
func writer(broker, topic string) {
	s := store.New(store.Options{Topic: topic, Connection: kafka.Connection{Brokers: strings.Split(broker, ",")}, Log: zap.NewNop()})
	s.BeforeCommit(func(int64, int16) {
		fmt.Println("produced")
		select {} // until it is killed
	})
	_, err := s.Update(context.Background(), "killed", renaming("orders", "killed"))
	fmt.Println(err)
}
