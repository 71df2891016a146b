package consumer

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// batchFloor is the least a record batch may decompress to. Producers bound
// their batches before they compress them, to about 1 MiB unless told
// otherwise, so what passes this was made to fill memory: 1 MiB of zstd can
// hold gigabytes.
const batchFloor = 64 << 20

// maxBatch is the most bytes a record batch may decompress to; with recordCost
// for each record it may take twice that.
func (c *Config) maxBatch() int {
	return int(min(max(batchFloor, c.MaxBuffered), 1<<30)) // 1 GiB is the Kafka client's own bound
}

// reasonBatch is the code of a batch that decompresses to more than maxBatch.
const reasonBatch = "batch_too_large"

// halt notes that the client reads a partition no further, because the batch
// that comes next is too large. Nothing of it was delivered and nothing behind
// it is, so unlike other troubles this one does not pass by itself.
func (g *Group) halt(bomb *kgo.ErrDecompressTooLarge) {
	g.mu.Lock()
	if g.halted == nil {
		g.halted = make(map[topicPartition]bool)
	}
	g.halted[topicPartition{bomb.Topic, bomb.Partition}] = true
	g.mu.Unlock()
	g.trouble.add(reasonBatch, g.cfg.oversize(bomb, fmt.Sprintf("the partition stands still, the others go on; if the batch is meant, raise delivery.max_buffered above its size and restart; "+
		"else find out who produced it, stop the bridge and set the group's offset to %d", bomb.NextOffset)))
}

// oversize says which batch is not read.
func (c *Config) oversize(bomb *kgo.ErrDecompressTooLarge, remedy string) *KafkaError {
	return &KafkaError{
		Doing:  fmt.Sprintf("reading %s/%d at offset %d", bomb.Topic, bomb.Partition, bomb.Offset),
		Err:    fmt.Errorf("the batch up to offset %d decompresses to more than %d bytes, or to more than twice that with %d for each record", bomb.NextOffset-1, c.maxBatch(), recordCost),
		Remedy: remedy,
	}
}

// unhalt forgets the partitions that were given up, and the trouble with the
// last of them.
func (g *Group) unhalt() {
	g.mu.Lock()
	for tp := range g.halted {
		if g.parts[tp] == nil {
			delete(g.halted, tp)
		}
	}
	over := len(g.halted) == 0
	g.mu.Unlock()
	if over {
		g.trouble.clear(reasonBatch)
	}
}
