package consumer

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"
)

// watch looks up, every few seconds, what polling does not tell: whether the
// brokers answer, whether the topics exist, and where the partitions end even
// while their fetches are paused.
func (g *Group) watch(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		g.dog.look(g.stuck(time.Now()))
		g.look(ctx)
		select {
		case <-tick.C:
		case <-g.lookNow:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *Group) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, watchInterval)
	defer cancel()
	g.unhalt()
	g.follow(g.cl)
	ends, err := g.cluster.endOffsets(ctx)
	if err != nil {
		var failure *KafkaError
		if errors.As(err, &failure) && ctx.Err() != context.Canceled {
			g.trouble.add(reasonKafka, failure)
		}
		if errors.Is(err, kerr.TopicAuthorizationFailed) {
			g.followTopics(ctx) // the other topics
		}
		return
	}
	g.trouble.clear(reasonKafka)
	g.followTopics(ctx)
	g.trouble.expire(reasonFetch, 3*watchInterval)

	var missing []string
	for _, topic := range g.cfg.Topics {
		if !exists(ends[topic]) {
			missing = append(missing, topic)
		}
	}
	if len(missing) > 0 {
		list := strings.Join(missing, ", ")
		g.trouble.add(reasonTopic, &KafkaError{Doing: "looking for topic " + list, Err: errors.New("it does not exist yet"),
			Remedy: "create it or correct kafka.topics; reading begins by itself when it appears"})
	} else if g.trouble.clear(reasonTopic) {
		g.cl.ForceMetadataRefresh() // or it would be noticed half a minute later
	}

	g.emptied(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	ends.Each(func(o kadm.ListedOffset) {
		if p := g.parts[topicPartition{o.Topic, o.Partition}]; p != nil && o.Err == nil {
			p.end.Store(o.Offset)
		}
	})
}

// exists tells an absent topic from one whose leaders are away.
func exists(partitions map[int32]kadm.ListedOffset) bool {
	for _, o := range partitions {
		if !errors.Is(o.Err, kerr.UnknownTopicOrPartition) && o.Partition >= 0 {
			return true
		}
	}
	return false
}

// Reason codes of a group that is not ready.
const (
	reasonKafka  = "kafka_unreachable"
	reasonTopic  = "topic_missing"
	reasonFetch  = "fetch_failing"
	reasonMember = "not_joined"
	reasonParts  = "partition_blocked"
	reasonStuck  = "partition_stuck"
)

// troubles is what keeps the group from being ready. One failure is one log
// line when it begins and one when it ends, however often it is met.
type troubles struct {
	log *zap.Logger

	mu  sync.Mutex // guards now
	now map[string]trouble
}

type trouble struct {
	err  *KafkaError
	seen time.Time // last met
}

func (t *troubles) add(code string, e *KafkaError) {
	t.mu.Lock()
	_, known := t.now[code]
	if t.now == nil {
		t.now = make(map[string]trouble)
	}
	t.now[code] = trouble{err: e, seen: time.Now()}
	t.mu.Unlock()
	if !known {
		t.log.Warn("kafka trouble; waiting for it to pass", zap.String("code", code), zap.Error(e))
	}
}

// clear ends a trouble and tells whether there was one.
func (t *troubles) clear(code string) bool {
	t.mu.Lock()
	_, known := t.now[code]
	delete(t.now, code)
	t.mu.Unlock()
	if known {
		t.log.Info("kafka trouble is over", zap.String("code", code))
	}
	return known
}

func (t *troubles) list() map[string]*KafkaError {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]*KafkaError, len(t.now))
	for code, tr := range t.now {
		all[code] = tr.err
	}
	return all
}

// expire clears a trouble that was not met for a while.
func (t *troubles) expire(code string, after time.Duration) {
	t.mu.Lock()
	tr, known := t.now[code]
	t.mu.Unlock()
	if known && time.Since(tr.seen) > after {
		t.clear(code)
	}
}

// commitLog writes one line when commits begin to fail and one when they work
// again.
type commitLog struct {
	log *zap.Logger

	mu      sync.Mutex // guards the fields below
	failing error
	last    time.Time // of the last accepted commit
}

func (c *commitLog) note(err error) {
	c.mu.Lock()
	before := c.failing
	c.failing = err
	if err == nil {
		c.last = time.Now()
	}
	c.mu.Unlock()
	switch {
	case err != nil && before == nil:
		c.log.Warn("committing offsets fails; nothing is lost, but what is delivered meanwhile is delivered again after a restart", zap.Error(err))
	case err == nil && before != nil:
		c.log.Info("committing offsets works again")
	}
}
