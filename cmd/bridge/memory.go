package main

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/internal/ops"
)

// memoryPlan says in memory's words what the configuration says.
func memoryPlan(c *config.Config, brokers, partitions int) memory.Plan {
	return memory.Plan{
		MaxBuffered: int64(c.Delivery.MaxBuffered), MaxBytes: int64(c.Delivery.MaxBytes), FetchMaxBytes: int64(c.Kafka.FetchMaxBytes),
		Brokers: brokers, Partitions: partitions,
	}
}

// sized keeps the process within the bound for what it now has to do.
func (b *bridge) sized(brokers, partitions int) {
	if !b.keeper.SetPlan(memoryPlan(b.cfg, brokers, partitions)) {
		return
	}
	s := b.keeper.State()
	fields := []zap.Field{zap.Int("partitions", partitions), zap.Int("brokers", brokers),
		zap.Int64("bound_mib", memory.MiB(s.Bound)), zap.Int64("soft_limit_mib", memory.MiB(s.SoftLimit))}
	if s.Exceeded != nil {
		b.log.Warn("the memory limit is below what this member may need", append(fields, zap.Error(s.Exceeded))...)
		return
	}
	b.log.Info("memory planned", fields...)
}

// memoryStatus says in ops's words how much memory the process may take.
func (b *bridge) memoryStatus() ops.MemoryStatus {
	s := b.keeper.State()
	out := ops.MemoryStatus{BoundBytes: s.Bound, SoftLimitBytes: s.SoftLimit, CgroupBytes: s.Cgroup}
	if s.Exceeded != nil {
		out.Warning = s.Exceeded.Error()
	}
	return out
}

// checkMemory compares what one member may need, given all partitions, with the
// limit of the control group that the check runs in.
func (b *bridge) checkMemory(ctx context.Context) (string, error) {
	brokers, partitions, err := b.cluster.Size(ctx)
	if err != nil {
		return "", err
	}
	plan, cgroup := memoryPlan(b.cfg, brokers, partitions), memory.CgroupLimit()
	if err := plan.Fits(cgroup); err != nil {
		return "", warning(err.Error())
	}
	limit := "no memory limit here"
	if cgroup > 0 {
		limit = fmt.Sprintf("the limit here is %d MiB", memory.MiB(cgroup))
	}
	return fmt.Sprintf("up to %d MiB for a member with all %d partitions; %s", memory.MiB(plan.Bound()), partitions, limit), nil
}
