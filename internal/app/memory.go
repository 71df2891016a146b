package app

import (
	"maps"
	"sync"

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
}

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
	plan := memory.Total(maps.Values(l.plans))
	if !l.keeper.SetPlan(plan) {
		return
	}
	s := l.keeper.State()
	fields := []zap.Field{zap.Int("integrations", plan.Integrations), zap.Int("partitions", plan.Partitions), zap.Int("brokers", plan.Brokers),
		zap.Int64("bound_mib", memory.MiB(s.Bound)), zap.Int64("soft_limit_mib", memory.MiB(s.SoftLimit))}
	if s.Warning != "" {
		l.log.Warn("the memory limit is below what this member may need", append(fields, zap.String("error", s.Warning))...)
		return
	}
	l.log.Info("memory planned", fields...)
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
