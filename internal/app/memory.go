package app

import (
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/pipeline"
)

// memoryLimit keeps the process within the memory bound of its integrations.
type memoryLimit struct {
	log    *zap.Logger
	keeper *memory.Keeper

	mu     sync.Mutex // guards the fields below
	wanted []config.Integration
	plans  map[string]memory.Plan // of each that is enabled
	logged memory.State
	timer  *time.Timer // of the next line; nil without one
	ended  bool        // nothing is logged any more
}

// plannedAfter is how long after a change a larger bound is logged: integrations that
// start together have one line, not one each.
const plannedAfter = 5 * time.Second

func newMemoryLimit(log *zap.Logger) *memoryLimit {
	return &memoryLimit{log: log, keeper: memory.NewKeeper()}
}

// plan plans for the integrations that are enabled, and returns how many these are.
func (l *memoryLimit) plan(wanted []config.Integration) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	plans := make(map[string]memory.Plan)
	for _, i := range wanted {
		if i.Enabled {
			was := l.plans[i.Name]
			plans[i.Name] = pipeline.MemoryPlan(i.Config, was.Brokers, was.Partitions)
		}
	}
	l.wanted, l.plans = wanted, plans
	l.keeper.SetPlan(memory.Total(maps.Values(l.plans)))
	return len(plans)
}

// resize adapts the limit to the brokers and assigned partitions of one integration.
func (l *memoryLimit) resize(name string, brokers, partitions int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, enabled := l.plans[name]
	if !enabled {
		return // it drains
	}
	one.Brokers, one.Partitions = brokers, partitions
	l.plans[name] = one
	switch {
	case !l.keeper.SetPlan(memory.Total(maps.Values(l.plans))) || l.ended:
	case l.logged.Warning == "" && l.keeper.State().Warning != "":
		l.report()
	case l.timer == nil:
		l.timer = time.AfterFunc(plannedAfter, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.timer = nil; !l.ended && l.keeper.State().Bound > l.logged.Bound {
				l.report()
			}
		})
	}
}

// report logs the plan. The caller holds mu.
func (l *memoryLimit) report() {
	plan, s := memory.Total(maps.Values(l.plans)), l.keeper.State()
	l.logged = s
	fields := []zap.Field{zap.Int("integrations", plan.Integrations), zap.Int("partitions", plan.Partitions), zap.Int("brokers", plan.Brokers),
		zap.Int64("bound_mib", memory.MiB(s.Bound)), zap.Int64("soft_limit_mib", memory.MiB(s.SoftLimit))}
	if s.Warning != "" {
		l.log.Warn("the memory limit is below what this member may need", append(fields, zap.String("error", s.Warning))...)
		return
	}
	l.log.Info("memory planned", fields...)
}

// end ends the log of the plan.
func (l *memoryLimit) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended = true; l.timer != nil {
		l.timer.Stop()
	}
}

// descriptorsNeeded estimates how many file descriptors the process needs.
func (l *memoryLimit) descriptorsNeeded() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, enabled := ownDescriptors, 0
	for _, i := range l.wanted {
		if !i.Enabled {
			continue
		}
		plan := l.plans[i.Name]
		n += descriptorsOf(i.Config, plan.Partitions)
		if enabled++; enabled > 1 {
			n += plan.Brokers + moreDescriptors
		}
	}
	return n
}
