package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/consumer"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := consumer.NewBudget(100).Group()
		if err := b.Wait(t.Context()); err != nil {
			t.Errorf("with room: got %v", err)
		}
		b.Take(150) // one poll past the limit
		passed := make(chan error, 1)
		go func() { passed <- b.Wait(t.Context()) }()
		synctest.Wait()
		b.Give(50)
		synctest.Wait()
		select {
		case <-passed:
			t.Error("passed at the limit")
		default:
		}
		b.Give(1)
		if err := <-passed; err != nil {
			t.Errorf("below the limit: got %v", err)
		}

		// A token of an earlier crossing does not let a later wait pass.
		b.Take(1)
		b.Give(1)
		b.Take(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("at the limit: got %v, want the context's end", err)
		}
		b.Give(100)
		if b.Tight() {
			t.Error("tight when empty")
		}
	})
}

func TestBudgetShares(t *testing.T) {
	b := consumer.NewBudget(1200).Group()
	for n, want := range map[int]int64{1: 1200, 2: 800, 3: 600, 5: 400, 1_000_000: 1} {
		if got := b.Share(n); got != want {
			t.Errorf("share of one of %d: got %d, want %d", n, got, want)
		}
		if got := b.Share(n); n > 1 && (got >= 1200 || got*int64(n) < 1200) {
			t.Errorf("share of one of %d: got %d, want less than all, and all together no less than all", n, got)
		}
	}
	if b.Take(600); b.Tight() {
		t.Error("tight at half")
	}
	if b.Take(1); !b.Tight() {
		t.Error("not tight past half")
	}
}

// A group that holds all it can leaves its even share to each other group.
func TestGroupsShareABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := consumer.NewBudget(1200)
		first := shared.Group()
		if got := first.Room(); got != 1200 {
			t.Errorf("room of the only group: got %d, want 1200", got)
		}
		second, third := shared.Group(), shared.Group()
		first.Take(800)
		if got := []int64{first.Room(), second.Room(), third.Room()}; !slices.Equal(got, []int64{0, 400, 400}) {
			t.Errorf("room beside a group at twice its share: got %v, want 0, 400 and 400", got)
		}
		second.Take(400)
		if got := []int64{second.Room(), third.Room(), second.Share(1)}; !slices.Equal(got, []int64{0, 400, 400}) {
			t.Errorf("at the limit: got room %v, want 0, 400, and a share of 400", got)
		}
		passed := make(chan int, 2)
		for i, group := range []consumer.GroupBudget{first, second} {
			go func() {
				if group.Wait(t.Context()) == nil {
					passed <- i
				}
			}()
		}
		synctest.Wait()
		first.Give(100)
		if a, b := <-passed, <-passed; a == b {
			t.Errorf("after bytes of one group are given back: group %d twice, want both to continue", a)
		}
		first.Take(100)
		go func() {
			if first.Wait(t.Context()) == nil {
				passed <- 0
			}
		}()
		synctest.Wait()
		third.Leave()
		second.Leave()
		second.Give(400)
		<-passed
	})
}

// fill takes single bytes while there is room and returns how many.
func fill(g consumer.GroupBudget) (n int64) {
	for ; g.Room() > 0; n++ {
		g.Take(1)
	}
	return n
}

// Groups that are announced before they start have their even share whatever the
// order, also where those before them are stalled.
func TestReservedShares(t *testing.T) {
	const limit, groups = 1200, 6
	shared := consumer.NewBudget(limit)
	shared.Reserve(groups)
	total := int64(0)
	for i := range groups {
		g := shared.Group()
		if got := g.Share(1); got != limit/groups {
			t.Fatalf("group %d of %d: got an even share of %d, want %d", i+1, groups, got, limit/groups)
		}
		got := fill(g)
		if total += got; got < limit/groups || got > 2*limit/groups {
			t.Errorf("group %d: got %d bytes, want its even share of %d to twice that", i+1, got, limit/groups)
		}
	}
	if total > limit*3/2 {
		t.Errorf("got %d bytes in all, want at most one and a half times the limit of %d", total, limit)
	}
	// Fewer than those that run count as those that run.
	shared.Reserve(1)
	if got := shared.Group().Share(1); got != limit/(groups+1) {
		t.Errorf("got an even share of %d, want one for each group that runs", got)
	}
}

// Groups that are added one by one, while those before them are stalled with all
// they could take, may each take an event; all together hold no more than
// one and a half times the limit and an event each.
func TestGroupsAddedWhileOthersAreStalled(t *testing.T) {
	const limit, groups, event = 1 << 20, 50, 1000
	shared := consumer.NewBudget(limit)
	total := int64(0)
	for i := range groups {
		g := shared.Group()
		if g.Room() <= 0 {
			t.Fatalf("group %d: no room for an event", i+1)
		}
		for g.Room() > 0 {
			g.Take(event)
			total += event
		}
		if most := int64(limit*3/2 + (i+1)*event); total > most {
			t.Fatalf("%d groups hold %d bytes, want at most %d", i+1, total, most)
		}
	}
}

// An event that is larger than the share is admitted alone.
func TestEventLargerThanTheShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, event = 1000, 5000
		shared := consumer.NewBudget(limit)
		shared.Reserve(10)
		for range 10 {
			g := shared.Group()
			for range 3 {
				admitted := make(chan error, 1)
				go func() { admitted <- g.Wait(t.Context()) }()
				synctest.Wait()
				select {
				case err := <-admitted:
					if err != nil {
						t.Fatal(err)
					}
				default:
					t.Fatal("a group that holds nothing has to wait")
				}
				g.Take(event)
				go func() { admitted <- g.Wait(t.Context()) }()
				synctest.Wait()
				if len(admitted) > 0 {
					t.Fatal("a second event is admitted beside one that is larger than the share")
				}
				g.Give(event)
				if err := <-admitted; err != nil {
					t.Fatal(err)
				}
			}
			g.Take(event) // and it is stalled
		}
	})
}

// What clients fetch ahead for the room there is stays within the bound as well, whoever holds what.
func TestPrefetchStaysWithinTheBudget(t *testing.T) {
	const limit, groups = 1200, 4
	shared := consumer.NewBudget(limit)
	shared.Reserve(groups)
	var all []consumer.GroupBudget
	for range groups {
		all = append(all, shared.Group())
	}
	held := int64(0)
	check := func(when string) {
		t.Helper()
		total := held
		for _, g := range all {
			total += max(g.Prefetch(), 0)
		}
		if total > limit*3/2 {
			t.Errorf("%s: got %d bytes held or to be fetched, want at most %d", when, total, limit*3/2)
		}
	}
	check("empty")
	for i, g := range all {
		held += fill(g)
		check(fmt.Sprintf("group %d is full", i+1))
	}
	if got := all[0].Prefetch(); got != 0 {
		t.Errorf("at twice the share: got %d, want 0", got)
	}
	all[0].Take(70)
	if got := all[0].Prefetch(); got != -70 {
		t.Errorf("beyond twice the share: got %d, want the 70 that are too much", got)
	}
	alone := consumer.NewBudget(limit).Group()
	for _, taken := range []int64{0, 500, 1000} { // 0, 500 and 1500 in all
		if alone.Take(taken); alone.Prefetch() != alone.Room() {
			t.Errorf("a group alone: got %d, want all the room of %d", alone.Prefetch(), alone.Room())
		}
	}
}

// Whatever happens, no group waits while it has room, and the bound holds: groups
// with endless events join, leave, deliver and stall, and their number is announced
// or not.
func TestNoGroupWaitsWithRoom(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { runGroups(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

// endless is a group that always has events.
type endless struct {
	consumer.GroupBudget
	sizes []int64 // of its events, in turn
	held  []int64 // events it has taken; the test reads it when the group waits
	leave context.CancelFunc
	done  chan struct{}
}

func (e *endless) run(ctx context.Context) {
	defer close(e.done)
	for n := 0; e.Wait(ctx) == nil; n++ {
		size := e.sizes[n%len(e.sizes)]
		e.Take(size)
		e.held = append(e.held, size)
	}
}

func runGroups(t *testing.T, dice *rand.Rand) {
	const limit, largest = 100_000, 40_000
	shared := consumer.NewBudget(limit)
	var groups []*endless
	join := func() {
		ctx, cancel := context.WithCancel(t.Context())
		e := &endless{GroupBudget: shared.Group(), leave: cancel, done: make(chan struct{})}
		for range 7 {
			e.sizes = append(e.sizes, 1+dice.Int64N(3000))
		}
		if dice.IntN(4) == 0 {
			e.sizes = append(e.sizes, largest)
		}
		groups = append(groups, e)
		go e.run(ctx)
	}
	leave := func(i int) {
		e := groups[i]
		e.leave()
		<-e.done
		for _, size := range e.held {
			e.Give(size)
		}
		e.Leave()
		groups = slices.Delete(groups, i, i+1)
	}
	for step := range 400 {
		switch n := dice.IntN(20); {
		case n == 0 && len(groups) < 25 || len(groups) == 0:
			join()
		case n == 1:
			leave(dice.IntN(len(groups)))
		case n == 2:
			shared.Reserve(dice.IntN(30))
		default: // most deliver nothing; one delivers some
			e := groups[dice.IntN(len(groups))]
			n := dice.IntN(len(e.held) + 1)
			some := e.held[:n]
			e.held = e.held[n:] // before it takes more
			for _, size := range some {
				e.Give(size)
			}
		}
		synctest.Wait()
		total, bound := int64(0), int64(limit+limit/2)
		for i, e := range groups {
			if room := e.Room(); room > 0 {
				t.Fatalf("step %d: group %d of %d waits with room for %d bytes", step, i, len(groups), room)
			}
			bound += e.held[len(e.held)-1] // the event that took the last of the room
			for _, size := range e.held {
				total += size
			}
		}
		if total > bound {
			t.Fatalf("step %d: %d groups hold %d bytes, want at most %d", step, len(groups), total, bound)
		}
	}
	for len(groups) > 0 {
		leave(0)
	}
}

// Whatever the groups take and give back: each may take its even share, and together
// they stay within one and a half times the limit. A single group stays within the limit.
func TestGroupsStayWithinTheirBudget(t *testing.T) {
	const limit = 1 << 20
	dice := rand.New(rand.NewPCG(1, 2))
	for n := 1; n <= 6; n++ {
		shared := consumer.NewBudget(limit)
		groups, own, total := make([]consumer.GroupBudget, n), make([]int64, n), int64(0)
		for i := range groups {
			groups[i] = shared.Group()
		}
		bound := int64(limit + limit/2)
		if n == 1 {
			bound = limit
		}
		for range 20_000 {
			i := dice.IntN(n)
			room := groups[i].Room()
			if even := limit/int64(n) - own[i]; room < even {
				t.Fatalf("%d groups: room for %d bytes, want the even share, %d", n, room, even)
			}
			taken := max(room, 0)
			if dice.IntN(3) == 0 {
				taken = -dice.Int64N(own[i] + 1)
			}
			if taken >= 0 {
				groups[i].Take(taken)
			} else {
				groups[i].Give(-taken)
			}
			own[i], total = own[i]+taken, total+taken
			if total > bound {
				t.Fatalf("%d groups hold %d bytes, want at most %d", n, total, bound)
			}
		}
	}
}
