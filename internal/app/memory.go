package app

import (
	"sync"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/pipeline"
)

// memoryLimit keeps the process within the memory bound of its pipelines.
type memoryLimit struct {
	log    *zap.Logger
	keeper *memory.Keeper

	mu    sync.Mutex // guards the fields below
	plans []memory.Plan
}

func newMemoryLimit(log *zap.Logger, pipelines []pipeline.Config) *memoryLimit {
	l := &memoryLimit{log: log, keeper: memory.NewKeeper()}
	for _, p := range pipelines {
		l.plans = append(l.plans, pipeline.MemoryPlan(p.Settings, 0, 0))
	}
	l.keeper.SetPlan(l.total())
	return l
}

// total sums the plans: the pipelines share a buffer, and each has fetches of its own.
func (l *memoryLimit) total() (sum memory.Plan) {
	sum.MaxBuffered = l.plans[0].MaxBuffered
	if len(l.plans) > 1 {
		sum.MaxBuffered += sum.MaxBuffered / 2 // see consumer.Budget
	}
	for _, p := range l.plans {
		sum.Brokers += p.Brokers
		sum.Partitions += p.Partitions
		sum.MaxBytes, sum.FetchMaxBytes = max(sum.MaxBytes, p.MaxBytes), max(sum.FetchMaxBytes, p.FetchMaxBytes)
	}
	return sum
}

// resize adapts the limit to the brokers and assigned partitions of one pipeline.
func (l *memoryLimit) resize(i, brokers, partitions int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.plans[i].Brokers, l.plans[i].Partitions = brokers, partitions
	plan := l.total()
	if !l.keeper.SetPlan(plan) {
		return
	}
	s := l.keeper.State()
	fields := []zap.Field{zap.Int("partitions", plan.Partitions), zap.Int("brokers", plan.Brokers),
		zap.Int64("bound_mib", memory.MiB(s.Bound)), zap.Int64("soft_limit_mib", memory.MiB(s.SoftLimit))}
	if s.Warning != "" {
		l.log.Warn("the memory limit is below what this member may need", append(fields, zap.String("error", s.Warning))...)
		return
	}
	l.log.Info("memory planned", fields...)
}
