package consumer

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// A topic that is deleted and created again keeps its name and gets another id.
// The client holds on to the first id and refuses the new topic until it is
// purged, so that nothing of the one is taken for the other. Here is what
// notices that, finishes with the old topic and begins with the new one.

// noTopicID is the id of topics of brokers that have no topic ids.
var noTopicID [16]byte

// topicIDText returns an id as Kafka's tools print it.
func topicIDText(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// parseTopicID reads what topicIDText wrote.
func parseTopicID(text string) (id [16]byte, ok bool) {
	if base64.RawURLEncoding.DecodedLen(len(text)) != len(id) {
		return id, false
	}
	n, err := base64.RawURLEncoding.Decode(id[:], []byte(text))
	return id, err == nil && n == len(id) && id != noTopicID
}

// underTopic begins the metadata of our committed offsets. Brokers before Kafka
// 4.2 take a commit for the name of a topic, and one for a topic that was deleted
// may arrive when the new one exists: read from there, events would be skipped.
const underTopic = "topic-id="

// noteTopicID writes the topic's id into every offset that is committed.
func noteTopicID(req *kmsg.OffsetCommitRequest) error {
	for i := range req.Topics {
		t := &req.Topics[i]
		if t.TopicID == noTopicID {
			continue
		}
		metadata := underTopic + topicIDText(t.TopicID)
		for j := range t.Partitions {
			t.Partitions[j].Metadata = &metadata
		}
	}
	return nil
}

// topicIDOf returns the id that noteTopicID wrote.
func topicIDOf(metadata string) ([16]byte, bool) {
	text, ok := strings.CutPrefix(metadata, underTopic)
	if !ok {
		return noTopicID, false
	}
	return parseTopicID(text)
}

// topicIDs returns the ids of the topics of a poll.
func topicIDs(fetches kgo.Fetches) map[string][16]byte {
	var ids map[string][16]byte
	for i := range fetches {
		for j := range fetches[i].Topics {
			t := &fetches[i].Topics[j]
			if t.TopicID == noTopicID {
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

// identify notes which topic the next records come from.
func (p *partition) identify(id [16]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.topicID = id
}

// leave has the partition pause no more: its topic is deleted, and what the client
// has fetched of a paused partition it drops at the next poll.
func (p *partition) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = true
	if p.paused {
		p.paused = false
		p.g.resume(p.topic, p.id)
	}
}

// reasonRecreated is the code of a topic that is no longer the one that was read.
const reasonRecreated = "topic_recreated"

// unknownTooLong is how long the brokers may refuse the id of a topic that has
// not changed before reading begins from scratch. A topic that was just created
// is refused for a moment.
const unknownTooLong = 2 * watchInterval

// incarnations knows the topics of one name one after the other.
type incarnations struct {
	mu      sync.Mutex // guards the fields below
	ids     map[string][]kadm.TopicID
	unknown map[string]refusedID
}

// refusedID is when the brokers began to refuse a topic's id, and did so last.
type refusedID struct{ since, last time.Time }

// current notes the ids of topics that were looked up and returns the newest of
// each. A broker may be behind: an id that was replaced is not taken up again.
func (in *incarnations) current(found map[string]kmsg.MetadataResponseTopic) map[string][16]byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	now := make(map[string][16]byte, len(found))
	for name, t := range found {
		if t.ErrorCode != 0 || t.TopicID == noTopicID {
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
func (in *incarnations) newest(topic string) ([16]byte, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	ids := in.ids[topic]
	if len(ids) == 0 {
		return noTopicID, false
	}
	return ids[len(ids)-1], true
}

// name returns the topic that has or had an id; "" if it is not known.
func (in *incarnations) name(id kadm.TopicID) string {
	in.mu.Lock()
	defer in.mu.Unlock()
	for name, ids := range in.ids {
		if slices.Contains(ids, id) {
			return name
		}
	}
	return ""
}

// refused notes that a fetch was refused for the topic's id, and tells whether
// that is news.
func (in *incarnations) refused(topic string, now time.Time) bool {
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

// refusedTooLong tells whether the brokers have refused the topic's id for too
// long.
func (in *incarnations) refusedTooLong(topic string, now time.Time) bool {
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
func (in *incarnations) accepted(topic string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.unknown, topic)
}

// idRefused notes that a fetch was refused for a topic's id: the topic was
// deleted.
func (g *Group) idRefused(topic string) {
	if g.incarnations.refused(topic, time.Now()) {
		g.lookSoon()
	}
	g.trouble.add(reasonRecreated, g.recreatedError(topic, "it was deleted, or deleted and created again"))
}

func (g *Group) recreatedError(topic, what string) *KafkaError {
	return &KafkaError{Doing: "reading topic " + topic, Err: errors.New(what),
		Remedy: fmt.Sprintf("nothing, if it was created again: the bridge reads the new topic from its start within %s; else create it, or remove it from kafka.topics", metadataMaxAge)}
}

// followTopics looks for topics that were deleted and created again, and begins
// with the new ones.
func (g *Group) followTopics(ctx context.Context) {
	found, err := g.cluster.metadata(ctx, g.cfg.Topics...)
	if err != nil {
		return // that brokers do not answer is reported by look
	}
	g.trouble.expire(reasonRecreated, 3*watchInterval)
	for topic, id := range g.incarnations.current(found) {
		reading, known := g.reading[topic]
		switch {
		case !known:
			g.reading[topic] = id
		case reading != id && g.ends != nil:
			// The ends are the deleted topic's: they say nothing about the new one.
			g.fail(&KafkaError{Doing: "reading topic " + topic + " up to its end", Err: errRecreated, Permanent: true,
				Remedy: "run it again: it ends where the new topic ends then"})
		case reading != id, g.isPurged(topic), g.incarnations.refusedTooLong(topic, time.Now()):
			if g.leaveTopic(ctx, topic) && g.left(topic) {
				g.cl.AddConsumeTopics(topic)
				g.reading[topic] = id
				g.incarnations.accepted(topic)
				g.trouble.clear(reasonRecreated)
			}
		default:
			delete(g.unpolled, topic)
		}
	}
}

// isPurged tells whether the topic is not subscribed to again yet.
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

// polledAll tells whether the poll loop has handed over everything that the
// client had fetched when the topic was found to be another. Some of it may be of
// the deleted topic, and a purge drops that. The client hands over in the order
// in which it fetched.
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
		g.trouble.add(reasonRecreated, &KafkaError{Doing: "reading topic " + topic,
			Err:    fmt.Errorf("it was deleted and created again, and %d fetched events, of it or of other topics, wait for memory", buffered),
			Remedy: "see that the sink takes rows; the new topic is read from its start when the events of the deleted one are delivered"})
	}
	return false
}

// leaveTopic ends what reads the deleted topic. It returns false while events of
// it are in hand: they are nowhere else any more.
func (g *Group) leaveTopic(ctx context.Context, topic string) bool {
	g.mu.Lock()
	if _, purged := g.purged[topic]; purged {
		g.mu.Unlock()
		return true
	}
	var parts []*partition
	for tp, p := range g.parts {
		if tp.topic == topic {
			parts = append(parts, p)
		}
	}
	g.mu.Unlock()
	for _, p := range parts {
		p.leave()
	}
	if len(parts) > 0 && !g.polledAll(topic) {
		return false
	}
	left := 0
	for _, p := range parts {
		left += p.backlog()
	}
	if left > 0 {
		g.trouble.add(reasonRecreated, &KafkaError{Doing: "reading topic " + topic,
			Err:    fmt.Errorf("it was deleted and created again, and %d events of the deleted topic are not delivered yet", left),
			Remedy: "see that the sink takes rows; the new topic is read from its start when they are delivered"})
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

// left tells whether the group has taken the deleted topic's partitions back. To
// subscribe to the new one before, franz-go 1.22.2 sets cursors that are in use.
func (g *Group) left(topic string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for tp := range g.owned {
		if tp.topic == topic && time.Since(g.purged[topic]) < 3*watchInterval {
			return false
		}
	}
	delete(g.purged, topic)
	return true
}

// own notes which partitions the group has given to this member, or taken back.
// The caller holds g.mu.
func (g *Group) own(partitions map[string][]int32, ours bool) {
	for topic, ids := range partitions {
		for _, id := range ids {
			if ours {
				g.owned[topicPartition{topic, id}] = true
			} else {
				delete(g.owned, topicPartition{topic, id})
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
	g.own(partitions, false)
}

// lookSoon has watch not wait for its tick.
func (g *Group) lookSoon() {
	select {
	case g.lookNow <- struct{}{}:
	default:
	}
}

var errRecreated = errors.New("the topic was deleted and created again")

// produceAgain writes dead letters whose topic was deleted and created again: the
// client refuses the new topic until it forgets the old one.
func (c *Cluster) produceAgain(ctx context.Context, letters []*kgo.Record) (left []*kgo.Record, err error) {
	left, err = c.produce(ctx, letters)
	if !errors.Is(err, kerr.UnknownTopicID) {
		return left, err
	}
	topics := make(map[string]bool)
	for _, l := range left {
		topics[l.Topic] = true
	}
	names := slices.Sorted(maps.Keys(topics))
	c.writer.PurgeTopicsFromProducing(names...)
	c.log.Warn("the dead-letter topic was deleted and created again; writing to the new one", zap.Strings("topics", names))
	return c.produce(ctx, left)
}
