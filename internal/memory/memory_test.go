package memory_test

import (
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/datafly/bridge/internal/memory"
)

const mib = 1 << 20

// defaults are those of the configuration, with one broker.
func defaults(partitions int) memory.Plan {
	return memory.Plan{MaxBuffered: 96 * mib, MaxBytes: 4 * mib, FetchMaxBytes: 4 * mib, Brokers: 1, Partitions: partitions}
}

// shared are the defaults for several integrations, with one broker.
func shared(integrations, partitions int) memory.Plan {
	p := defaults(partitions)
	p.Integrations = integrations
	return p
}

// One integration needs what a bridge without others needs.
func TestBoundOfOneIntegration(t *testing.T) {
	for partitions, want := range map[int]int64{4: 321, 16: 378, 300: 435} {
		if one, none := shared(1, partitions), defaults(partitions); memory.MiB(one.Bound()) != want || one.Bound() != none.Bound() || one.FetchMax() != 4*mib || one.Fetched() != 8*mib {
			t.Errorf("%d partitions: got a bound of %d MiB and fetches of %d bytes, want %d MiB and 4 MiB", partitions, memory.MiB(one.Bound()), one.FetchMax(), want)
		}
	}
}

// The clients of all integrations together prefetch no more than one client would,
// until each has the least that there is.
func TestFetchesShrinkWithTheIntegrations(t *testing.T) {
	for _, n := range []int{1, 2, 5, 20, 64} {
		if got := int64(n) * shared(n, n).Fetched(); got > 8*mib || got < 7*mib {
			t.Errorf("%d integrations: the clients may hold %d bytes, want 8 MiB", n, got)
		}
	}
	if got := shared(1000, 1000).FetchMax(); got != 64<<10 {
		t.Errorf("1000 integrations: got fetches of %d bytes, want 64 KiB", got)
	}
	small := shared(1000, 1000)
	if small.FetchMaxBytes = 4096; small.FetchMax() != 4096 {
		t.Errorf("got fetches of %d bytes, want no more than the 4096 configured", small.FetchMax())
	}
}

func TestTotal(t *testing.T) {
	one, two := defaults(4), defaults(6)
	one.MaxBytes, one.Brokers, two.Brokers = 8*mib, 3, 0 // the second has not found them yet
	want := memory.Plan{MaxBuffered: 96 * mib, MaxBytes: 8 * mib, FetchMaxBytes: 4 * mib, Brokers: 3, Partitions: 10, Integrations: 2}
	if got := memory.Total(slices.Values([]memory.Plan{one, two})); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := memory.Total(slices.Values([]memory.Plan{one})); got.Bound() != one.Bound() {
		t.Errorf("a single integration: got %d bytes, want its own %d", got.Bound(), one.Bound())
	}
}

func TestBoundGrowsWithWhatIsToDo(t *testing.T) {
	base := defaults(16)
	for name, more := range map[string]func(*memory.Plan){
		"max_buffered":    func(p *memory.Plan) { p.MaxBuffered *= 2 },
		"fetch_max_bytes": func(p *memory.Plan) { p.FetchMaxBytes *= 2 },
		"brokers":         func(p *memory.Plan) { p.Brokers = 3 },
		"partitions":      func(p *memory.Plan) { p.Partitions = 300 },
		"integrations":    func(p *memory.Plan) { p.Integrations = 2 },
	} {
		p := base
		if more(&p); p.Bound() <= base.Bound() {
			t.Errorf("%s: got a bound of %d MiB, want more than %d", name, memory.MiB(p.Bound()), memory.MiB(base.Bound()))
		}
	}
	unknown := base
	if unknown.Brokers = 0; unknown.Bound() != base.Bound() {
		t.Errorf("no broker known: got %d, want %d as with one", unknown.Bound(), base.Bound())
	}
}

func TestSoftLimitLeavesRoomBelowBothBounds(t *testing.T) {
	for _, cgroup := range []int64{0, 64 * mib, 256 * mib, 512 * mib, 4096 * mib} {
		for _, partitions := range []int{0, 4, 300} {
			p := defaults(partitions)
			got := p.SoftLimit(cgroup)
			if got <= 0 || got >= p.Bound() || cgroup > 0 && got >= cgroup {
				t.Errorf("%d partitions in %d MiB: got a soft limit of %d MiB, want one below that and the bound of %d MiB",
					partitions, cgroup/mib, got/mib, memory.MiB(p.Bound()))
			}
		}
	}
}

func TestFits(t *testing.T) {
	if err := shared(20, 300).Fits(512 * mib); err == nil || !strings.Contains(err.Error(), "300 partitions of 20 integrations") {
		t.Errorf("20 integrations: got %v, want them named", err)
	}
	p := defaults(300)
	for _, limit := range []int64{0, p.Bound(), 512 * mib} {
		if err := p.Fits(limit); err != nil {
			t.Errorf("limit of %d MiB: got %v, want none", limit/mib, err)
		}
	}
	err := p.Fits(256 * mib)
	if err == nil {
		t.Fatal("256 MiB: got no error")
	}
	for _, want := range []string{"256 MiB", "300 partitions", "delivery.max_buffered", "kafka.fetch_max_bytes", "raise the limit"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}
}

func TestCgroupLimit(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, tc := range map[string]struct {
		files fstest.MapFS
		want  int64
	}{
		"no control groups": {fstest.MapFS{}, 0},
		"version 2, in a container": {fstest.MapFS{
			"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("536870912\n")}, 512 * mib},
		"version 2, no limit": {fstest.MapFS{
			"proc/self/cgroup": file("0::/a\n"), "sys/fs/cgroup/a/memory.max": file("max\n")}, 0},
		"version 2, the lowest on the way counts": {fstest.MapFS{
			"proc/self/cgroup":             file("0::/a/b\n"),
			"sys/fs/cgroup/a/memory.max":   file("268435456\n"),
			"sys/fs/cgroup/a/b/memory.max": file("536870912\n")}, 256 * mib},
		"version 1": {fstest.MapFS{
			"proc/self/cgroup": file("5:cpu:/\n4:memory:/pod\n0::/\n"),
			"sys/fs/cgroup/memory/pod/memory.limit_in_bytes": file("536870912\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     file("9223372036854771712\n")}, 512 * mib},
		"version 1, the path is the host's": {fstest.MapFS{
			"proc/self/cgroup":                           file("4:memory:/docker/0123\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("536870912\n")}, 512 * mib},
		"version 1, no limit": {fstest.MapFS{
			"proc/self/cgroup":                           file("4:memory:/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n")}, 0},
		"nonsense": {fstest.MapFS{
			"proc/self/cgroup":         file("::\nx\n0::/../..\n" + strings.Repeat("a", 1<<20)),
			"sys/fs/cgroup/memory.max": file("-1 or so\n")}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := memory.CgroupLimitIn(tc.files); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestKeeperFollowsThePlan(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	debug.SetMemoryLimit(math.MaxInt64)
	t.Setenv("GOMEMLIMIT", "")
	k := memory.NewKeeper()
	limit := func() int64 { return debug.SetMemoryLimit(-1) }
	if !k.SetPlan(defaults(4)) || k.SetPlan(defaults(4)) {
		t.Error("want a change with the first plan, and none with the same")
	}
	if limit() != math.MaxInt64 || k.State().SoftLimit != 0 {
		t.Errorf("before Enforce: got a limit of %d, want none", limit())
	}
	k.Enforce()
	few := limit()
	k.SetPlan(defaults(300))
	if many := limit(); few >= defaults(4).Bound() || many <= few || k.State().SoftLimit != many {
		t.Errorf("got %d for 4 partitions and %d for 300, want both below their bounds", few, many)
	}
	if got := k.State().Bound; got != defaults(300).Bound() {
		t.Errorf("got a bound of %d, want %d", got, defaults(300).Bound())
	}
	k.Release()
	if limit() != math.MaxInt64 {
		t.Errorf("after Release: got %d, want no limit", limit())
	}

	t.Setenv("GOMEMLIMIT", "409MiB")
	theirs := memory.NewKeeper()
	theirs.Enforce()
	theirs.SetPlan(defaults(4))
	if limit() != math.MaxInt64 {
		t.Errorf("with GOMEMLIMIT: got %d, want what the operator has set", limit())
	}
}
