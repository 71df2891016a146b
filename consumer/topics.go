package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// A topic that is deleted and created again keeps its name and gets another id.
// The client keeps the first id and refuses the new topic until it is purged. So no
// event of the one is taken for the other. This file finds such a topic. It delivers
// what is left of the old one and begins with the new one.

// fetchedTopicIDs returns the ids of the topics of a poll.
func fetchedTopicIDs(fetches kgo.Fetches) map[string][16]byte {
	var ids map[string][16]byte
	for i := range fetches {
		for j := range fetches[i].Topics {
			t := &fetches[i].Topics[j]
			if t.TopicID == kafka.NoTopicID {
				continue
			}
			if ids == nil {
				ids = make(map[string][16]byte, 1)
			}
			ids[t.Topic] = t.TopicID
		}
	}
	return ids
}

// unknownTooLong is how long the brokers may refuse the id of a topic that has
// not changed before the topic is purged and subscribed to again. A topic
// that was just created is refused for a moment.
const unknownTooLong = 2 * watchInterval

// topicIDs are the ids that the topics of a name have had.
type topicIDs struct {
	mu      sync.Mutex // guards the fields below
	ids     map[string][]kadm.TopicID
	unknown map[string]refusedID
}

// refusedID is when the brokers began to refuse a topic's id, and did so last.
type refusedID struct{ since, last time.Time }

// current notes the ids of topics that were looked up and returns the newest of
// each. A broker may be out of date: an id that was replaced is not used again.
func (in *topicIDs) current(found map[string]kmsg.MetadataResponseTopic) map[string][16]byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	now := make(map[string][16]byte, len(found))
	for name, t := range found {
		if t.ErrorCode != 0 || t.TopicID == kafka.NoTopicID {
			continue
		}
		id := kadm.TopicID(t.TopicID)
		if in.ids == nil {
			in.ids = make(map[string][]kadm.TopicID)
		}
		if !slices.Contains(in.ids[name], id) {
			in.ids[name] = append(in.ids[name], id)
		}
		now[name] = in.ids[name][len(in.ids[name])-1]
	}
	return now
}

// newest returns the topic's id as it was looked up last; false if it never was.
func (in *topicIDs) newest(topic string) ([16]byte, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	ids := in.ids[topic]
	if len(ids) == 0 {
		return kafka.NoTopicID, false
	}
	return ids[len(ids)-1], true
}

// name returns the topic that has or had an id; "" if it is not known.
func (in *topicIDs) name(id kadm.TopicID) string {
	in.mu.Lock()
	defer in.mu.Unlock()
	for name, ids := range in.ids {
		if slices.Contains(ids, id) {
			return name
		}
	}
	return ""
}

// refused notes that a fetch was refused for the topic's id, and reports whether
// that is new.
func (in *topicIDs) refused(topic string, now time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	before, known := in.unknown[topic]
	if !known || now.Sub(before.last) > watchInterval {
		before.since = now
	}
	before.last = now
	if in.unknown == nil {
		in.unknown = make(map[string]refusedID)
	}
	in.unknown[topic] = before
	return !known
}

// refusedTooLong reports whether the brokers have refused the topic's id for too
// long.
func (in *topicIDs) refusedTooLong(topic string, now time.Time) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	r, known := in.unknown[topic]
	if known && now.Sub(r.last) > watchInterval {
		delete(in.unknown, topic)
		return false
	}
	return known && now.Sub(r.since) > unknownTooLong
}

// accepted forgets the refusals of a topic's id.
func (in *topicIDs) accepted(topic string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.unknown, topic)
}

// idRefused notes that a fetch was refused for a topic's id: the topic was deleted.
func (g *Group) idRefused(topic string) {
	if g.topicIDs.refused(topic, time.Now()) {
		g.lookSoon()
	}
	g.problems.add(reasonRecreated, g.recreatedError(topic, "it was deleted, or deleted and created again"))
}

func (g *Group) recreatedError(topic, what string) *kafka.Error {
	return &kafka.Error{Op: "reading topic " + topic, Err: errors.New(what),
		Remedy: fmt.Sprintf("nothing, if it was created again: the bridge reads the new topic from its start within %s; else create it, or remove it from kafka.topics", kafka.MetadataMaxAge)}
}

// followTopics looks for topics that were deleted and created again, and begins
// with the new ones.
func (g *Group) followTopics(ctx context.Context) {
	found, err := g.cluster.Metadata(ctx, g.cfg.Topics...)
	if err != nil {
		return // that brokers do not answer is reported by look
	}
	g.problems.expire(reasonRecreated, 3*watchInterval)
	for topic, id := range g.topicIDs.current(found) {
		reading, known := g.reading[topic]
		switch {
		case !known:
			g.reading[topic] = id
		case reading != id && g.stopAt != nil:
			// The stop offsets are those of the deleted topic.
			g.fail(&kafka.Error{Op: "reading topic " + topic + " up to its end", Err: errRecreated, Permanent: true,
				Remedy: "run it again: it ends where the new topic ends then"})
		case reading != id, g.isPurged(topic), g.topicIDs.refusedTooLong(topic, time.Now()):
			if g.endTopic(ctx, topic) && g.released(topic) {
				g.cl.AddConsumeTopics(topic)
				g.reading[topic] = id
				g.topicIDs.accepted(topic)
				g.problems.clear(reasonRecreated)
			}
		default:
			delete(g.unpolled, topic)
		}
	}
}

// isPurged reports whether the topic is not subscribed to again yet.
func (g *Group) isPurged(topic string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, purged := g.purged[topic]
	return purged
}

// unpolled is what the client had fetched when a topic was found to be another.
type unpolled struct {
	until int64     // Group.arrived is at least that when all of it has been polled
	empty time.Time // when the client held nothing any more; zero while it does
}

// polledAll reports whether the poll loop has handed over everything that the
// client had fetched when the topic was found to be another. Some of it may be of
// the deleted topic, and a purge drops that. The client hands over in the order in
// which it fetched.
func (g *Group) polledAll(topic string) bool {
	buffered := g.cl.BufferedFetchRecords()
	u := g.unpolled[topic]
	if u == nil {
		// A poll that is being handed over now is in neither of the numbers.
		u = &unpolled{until: g.arrived.Load() + buffered + int64(g.cfg.maxPoll())}
		g.unpolled[topic] = u
	}
	switch {
	case g.arrived.Load() >= u.until, !u.empty.IsZero() && g.polled.Load() > u.empty.UnixNano():
		return true
	case buffered == 0 && u.empty.IsZero():
		u.empty = time.Now()
	case buffered > 0:
		g.problems.add(reasonRecreated, &kafka.Error{Op: "reading topic " + topic,
			Err:    fmt.Errorf("it was deleted and created again, and %d fetched events, of it or of other topics, wait for memory", buffered),
			Remedy: "make sure that the sink takes rows; the new topic is read from its start when the events of the deleted one are delivered"})
	}
	return false
}

// endTopic ends what reads the deleted topic. It returns false while events of it
// are unacknowledged: they exist nowhere else any more.
func (g *Group) endTopic(ctx context.Context, topic string) bool {
	g.mu.Lock()
	if _, purged := g.purged[topic]; purged {
		g.mu.Unlock()
		return true
	}
	var parts []*partition
	for tp, p := range g.parts {
		if tp.Topic == topic {
			parts = append(parts, p)
		}
	}
	g.mu.Unlock()
	for _, p := range parts {
		p.leaveTopic()
	}
	if len(parts) > 0 && !g.polledAll(topic) {
		return false
	}
	left := 0
	for _, p := range parts {
		left += p.backlog()
	}
	if left > 0 {
		g.problems.add(reasonRecreated, &kafka.Error{Op: "reading topic " + topic,
			Err:    fmt.Errorf("it was deleted and created again, and %d events of the deleted topic are not delivered yet", left),
			Remedy: "make sure that the sink takes rows; the new topic is read from its start when they are delivered"})
		return false
	}
	delete(g.unpolled, topic)
	g.drain(parts, 0, errRecreated)
	g.mu.Lock()
	g.purged[topic] = time.Now()
	g.mu.Unlock()
	g.aside(ctx, func() { g.cl.PurgeTopicsFromConsuming(topic) }) // it waits for metadata
	g.log.Warn("the topic was deleted and created again; reading the new one from its start", zap.String("topic", topic), zap.Int("partitions", len(parts)))
	return true
}

// released reports whether the group has taken the deleted topic's partitions back.
// Subscribing to the new one before sets cursors that are in use (franz-go 1.22.2).
func (g *Group) released(topic string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for tp := range g.owned {
		if tp.Topic == topic && time.Since(g.purged[topic]) < 3*watchInterval {
			return false
		}
	}
	delete(g.purged, topic)
	return true
}

// setOwned notes which partitions the group has assigned to this member, or taken
// back. The caller holds g.mu.
func (g *Group) setOwned(partitions map[string][]int32, ours bool) {
	for topic, ids := range partitions {
		for _, id := range ids {
			if ours {
				g.owned[partitionKey(topic, id)] = true
			} else {
				delete(g.owned, partitionKey(topic, id))
			}
		}
		if _, waits := g.purged[topic]; waits && !ours {
			g.lookSoon()
		}
	}
}

func (g *Group) disown(partitions map[string][]int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setOwned(partitions, false)
}

// lookSoon makes watch look without waiting for its tick.
func (g *Group) lookSoon() {
	select {
	case g.lookNow <- struct{}{}:
	default:
	}
}

var errRecreated = errors.New("the topic was deleted and created again")
