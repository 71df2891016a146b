// Package memory knows how much memory the bridge takes, and keeps the process
// to it. The bound that the documentation publishes, the soft limit of the Go
// runtime and the warnings all come from [Plan.Bound].
package memory

import "fmt"

const mebi = 1 << 20

// What the bound is made of besides settings; docs/performance.md says how each
// was measured.
const (
	// Ratio is how much larger than on the wire fetched events may be. What
	// decompresses to more is fetched in smaller answers.
	Ratio = 7
	// perPartition is a partition's goroutine, mapper, connection and share of
	// batches.
	perPartition = mebi / 5
	// base is a process that has nothing to do.
	base = 96 * mebi
	// outside is what the resident set may hold above the soft limit: the
	// program's code, which the Go runtime does not count, and what is
	// allocated before a collection that the limit has begun is over.
	outside = 64 * mebi
)

// Plan is what the memory of one member of the group depends on, sizes in bytes.
type Plan struct {
	MaxBuffered   int64 // delivery.max_buffered
	MaxBytes      int64 // delivery.max_bytes
	FetchMaxBytes int64 // kafka.fetch_max_bytes
	Brokers       int   // of the cluster; 0 counts as 1
	Partitions    int   // assigned to this member
}

// Bound returns the resident memory to plan with, in bytes.
func (p Plan) Bound() int64 {
	return 2*(p.MaxBuffered+p.rows()) + 2*p.Fetched() + int64(p.Partitions)*perPartition + base
}

// rows returns the bytes of rows that are written at a time: no more than a
// full write of each partition, and no more than all buffered events make.
func (p Plan) rows() int64 {
	return min(int64(p.Partitions)*p.MaxBytes, p.MaxBuffered*45/100)
}

// Fetched returns the bytes of events, decompressed, that the Kafka client may
// hold besides those that are buffered.
func (p Plan) Fetched() int64 {
	return int64(max(p.Brokers, 1)) * p.FetchMaxBytes * Ratio
}

// SoftLimit returns the limit for the Go runtime with which the process stays
// within the bound, and within the limit of its control group if there is one;
// 0 is none.
func (p Plan) SoftLimit(cgroup int64) int64 {
	limit := p.Bound() - outside
	if cgroup > 0 {
		limit = min(limit, cgroup-min(max(cgroup/8, outside), cgroup/2))
	}
	return limit
}

// Fits returns an error with the keys to lower where the bound is above the
// limit of the control group; 0 is none.
func (p Plan) Fits(cgroup int64) error {
	bound := p.Bound()
	if cgroup <= 0 || bound <= cgroup {
		return nil
	}
	return fmt.Errorf("up to %d MiB are needed for %d partitions and %d brokers, and the memory limit of the control group is %d MiB; raise the limit, or lower delivery.max_buffered (%d MiB) or kafka.fetch_max_bytes (%.3g MiB)",
		MiB(bound), p.Partitions, max(p.Brokers, 1), MiB(cgroup), MiB(p.MaxBuffered), float64(p.FetchMaxBytes)/mebi)
}

// MiB rounds bytes up to MiB.
func MiB(n int64) int64 { return (n + mebi - 1) / mebi }
