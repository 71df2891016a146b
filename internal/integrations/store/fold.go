package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/internal/kafka"
)

// Keys of the topic. A slug is unique since it is the key.
const (
	sentinelKey  = "store"
	recordPrefix = "integration/"
)

var (
	slugForm = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
	idForm   = regexp.MustCompile(`^int_[A-Za-z0-9]{12}$`)
)

// sentinel is the record that a store has from its first change on. A topic without it
// was emptied, or made by somebody else.
type sentinel struct {
	StoreID string `json:"store_id"`
	Format  int    `json:"format"`
	// Restored is when Restore wrote the store; members take a restored store for theirs.
	Restored time.Time `json:"restored_at,omitzero"`
}

// errNewer is why a record of a newer format is kept as it was last known.
var errNewer = errors.New("written by a newer version of the bridge: upgrade this one")

// parseRecord reads the value of the record of a slug.
func parseRecord(slug string, value []byte) (*Record, error) {
	if len(value) > MaxRecordBytes {
		return nil, fmt.Errorf("has %d bytes, and at most %d are allowed", len(value), MaxRecordBytes)
	}
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return nil, errors.New("is no JSON object with a format")
	}
	if head.Format > Format {
		return nil, fmt.Errorf("has format %d, and this version knows %d: %w", head.Format, Format, errNewer)
	}
	var r Record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, errors.New("is no record of an integration")
	}
	switch {
	case r.Format < 1:
		return nil, errors.New("has no format")
	case r.Slug != slug || !slugForm.MatchString(slug):
		return nil, errors.New("has another slug than its key")
	case !idForm.MatchString(r.ID):
		return nil, errors.New("has no id of the form int_ and 12 letters and digits")
	case r.Revision < 1:
		return nil, errors.New("has no revision")
	}
	return &r, nil
}

// topicLog is what was read of the topic.
type topicLog struct {
	topicID     [16]byte
	start, next int64 // offsets: of the log's start, and after what was read
	whole       time.Time
	sentinel    *sentinel
	entries     map[string]logEntry
	held        map[string]error // slugs whose newest record cannot be read, and why
	removed     map[string]int64 // offsets of removals of slugs in kept
	bytes       int
	ignored     int
	notes       []string

	// What outlives a whole read: the store that is followed, and the records that were
	// known when the log lost its end at offset lostAt.
	followed *followed
	restored bool // since the last state
	kept     map[string]Record
	lostAt   int64
	open     time.Time // since when a transaction is open; zero: none
	end      int64     // of the log, which is above next then
}

type logEntry struct {
	record *Record
	bytes  int
	offset int64
}

// followed is the store whose records are known.
type followed struct {
	topicID  [16]byte
	sentinel sentinel
}

const maxNotes = 5

func (l *topicLog) ignore(rec *kgo.Record, why string) {
	l.ignored++
	if len(l.notes) < maxNotes {
		l.notes = append(l.notes, fmt.Sprintf("offset %d, key %.60q: %s", rec.Offset, rec.Key, why))
	}
}

// take applies one record of the topic.
func (l *topicLog) take(rec *kgo.Record) error {
	l.next = rec.Offset + 1
	slug, ours := strings.CutPrefix(string(rec.Key), recordPrefix)
	switch {
	case string(rec.Key) == sentinelKey:
		var s sentinel
		if rec.Value == nil {
			l.sentinel = nil
		} else if err := json.Unmarshal(rec.Value, &s); err != nil || s.StoreID == "" {
			l.ignore(rec, "is no sentinel of a store")
		} else {
			l.sentinel = &s
		}
	case !ours || !slugForm.MatchString(slug):
		l.ignore(rec, "is of another application")
	case rec.Value == nil:
		l.bytes -= l.entries[slug].bytes
		delete(l.entries, slug)
		delete(l.held, slug)
		if _, ok := l.kept[slug]; ok {
			l.removed[slug] = rec.Offset
		}
	default:
		l.takeRecord(slug, rec)
	}
	return nil
}

func (l *topicLog) takeRecord(slug string, rec *kgo.Record) {
	r, err := parseRecord(slug, rec.Value)
	old, known := l.entries[slug]
	switch {
	case err != nil:
		l.ignore(rec, err.Error())
		if len(l.held) < MaxRecords {
			l.held[slug] = err
		}
	case !known && len(l.entries) >= MaxRecords:
		l.ignore(rec, fmt.Sprintf("is beyond the %d records of a store", MaxRecords))
	case l.bytes-old.bytes+len(rec.Value) > MaxBytes:
		l.ignore(rec, fmt.Sprintf("is beyond the %d bytes of a store", MaxBytes))
	default:
		l.bytes += len(rec.Value) - old.bytes
		l.entries[slug] = logEntry{r, len(rec.Value), rec.Offset}
		delete(l.held, slug)
	}
}

// Limits of reading: of one fetch answer, and of one batch. A batch of the store has less
// than 1 MiB; a larger one is of somebody else and is passed over.
const (
	fetchMax = 4 << 20
	maxBatch = 8 << 20
	// wholeEvery is how often all of the topic is read.
	wholeEvery = 5 * time.Minute
	// openFor is how long a transaction may be open: longer than that of a writer.
	openFor = transactionTimeout + 5*time.Second
)

// fold reads the topic up to its last stable offset, what is new of it or all, and
// publishes the state. An error is a *Problem, or that of ctx.
func (s *Store) fold(ctx context.Context, whole bool) (State, error) {
	if err := enter(ctx, s.reading); err != nil {
		return s.State(), err
	}
	defer func() { <-s.reading }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	next := s.State()
	problem, err := s.read(ctx, whole)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return next, ctx.Err()
		}
		problem = s.problemOf(err, kafka.Read)
	}
	if problem != nil {
		next.Problem, next.found = problem, slices.Sorted(maps.Keys(s.log.entries))
		s.log.entries = nil // the next read is a whole one
		next = s.publish(next)
		return next, next.Problem
	}
	l := &s.log
	next.Known, next.Revision, next.At, next.StoreID, next.found = true, l.next, s.o.Now(), "", nil
	if l.sentinel != nil {
		next.StoreID = l.sentinel.StoreID
	}
	if l.restored {
		next.Records, l.restored = nil, false // their revisions no longer count
	}
	next.Ignored, next.IgnoredNotes, next.bytes, next.held = l.ignored, slices.Clone(l.notes), l.bytes, maps.Clone(l.held)
	next.Records, next.Problem = l.records(next.Records)
	if next.Problem == nil && !l.open.IsZero() && next.At.Sub(l.open) > openFor {
		next.Problem = s.open(l.next, l.end)
	}
	return s.publish(next), nil
}

// read brings s.log up to date. A problem states why it is not the store that is followed.
func (s *Store) read(ctx context.Context, whole bool) (*Problem, error) {
	cl, err := s.connected()
	if err != nil {
		return nil, err
	}
	topic, err := s.describe(ctx, cl, s.o.Topic)
	if err != nil {
		return nil, err
	}
	old := &s.log
	if !topic.exists {
		old.entries = nil
		if old.followed != nil {
			return s.missing("topic " + s.o.Topic + " does not exist any more"), nil
		}
		return s.fresh(ctx, "topic "+s.o.Topic+" does not exist")
	}
	if topic.partitions != 1 {
		return s.wrongPartitions(s.o.Topic, topic.partitions), nil
	}
	start, err := s.offset(ctx, cl, s.o.Topic, earliest)
	if err != nil {
		return nil, err
	}
	end, err := s.offset(ctx, cl, s.o.Topic, stable)
	if err != nil {
		return nil, err
	}
	log, err := s.offset(ctx, cl, s.o.Topic, latest)
	if err != nil {
		return nil, err
	}
	lost := topic.id == old.topicID && end < old.next
	whole = whole || lost || old.entries == nil || topic.id != old.topicID || start != old.start || s.o.Now().Sub(old.whole) > wholeEvery
	l := old
	if whole {
		l = &topicLog{topicID: topic.id, start: start, next: start, whole: s.o.Now(), followed: old.followed, kept: old.kept, lostAt: old.lostAt,
			open: old.open, entries: map[string]logEntry{}, held: map[string]error{}, removed: map[string]int64{}}
	}
	if err := s.readRange(ctx, cl, s.o.Topic, l.next, end, l.take, l.ignore); err != nil {
		return nil, err
	}
	l.next = end
	if l.end = log; log <= end {
		l.open = time.Time{}
	} else if l.open.IsZero() {
		l.open = s.o.Now()
	}
	problem, err := s.accept(ctx, l)
	if problem == nil && err == nil && lost {
		l.keepFrom(s.State().Records, end)
	}
	s.log = *l
	return problem, err
}

// accept decides whether l is the store that is followed.
func (s *Store) accept(ctx context.Context, l *topicLog) (*Problem, error) {
	switch old := l.followed; {
	case old == nil && l.sentinel == nil && len(l.entries) > 0:
		return s.missing("topic " + s.o.Topic + " has integrations and no record of the store itself"), nil
	case old == nil && l.sentinel == nil:
		return s.fresh(ctx, "topic "+s.o.Topic+" is empty")
	case old == nil:
	case l.sentinel == nil:
		return s.missing("topic " + s.o.Topic + " was emptied"), nil
	case l.sentinel.Restored.After(old.sentinel.Restored):
		l.kept, l.restored = nil, true
	case l.sentinel.StoreID != old.sentinel.StoreID:
		return s.missing("topic " + s.o.Topic + " holds another store, " + l.sentinel.StoreID + " in place of " + old.sentinel.StoreID), nil
	case l.topicID != old.topicID:
		return s.missing("topic " + s.o.Topic + " was deleted and created again"), nil
	}
	l.followed = &followed{l.topicID, *l.sentinel}
	return nil, nil
}

// fresh decides whether a topic without content is that of a new store: one that was
// changed has entries in its audit log.
func (s *Store) fresh(ctx context.Context, what string) (*Problem, error) {
	entries, err := s.entries(ctx, 1, func(*Entry) bool { return true })
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return s.missing(what + ", and topic " + s.audit + " has entries"), nil
	}
	return nil, nil
}

func (s *Store) missing(reason string) *Problem {
	return &Problem{Code: Missing, Reason: reason, Remedy: "run bridge integrations import with the last export, or restart the bridge if the topic was restored from a backup; the known integrations run until then"}
}

// keepFrom keeps what was known and is not in the log any more, which lost its end.
func (l *topicLog) keepFrom(known []Record, end int64) {
	kept := make(map[string]Record)
	for _, r := range known {
		if _, there := l.entries[r.Slug]; !there {
			kept[r.Slug] = r
		}
	}
	l.kept, l.lostAt = kept, end
}

// records returns the records in order. Of those that were known, it keeps what a newer
// format or a fault hides, and what went back, which is a problem.
func (l *topicLog) records(known []Record) ([]Record, *Problem) {
	before := make(map[string]*Record, len(known))
	for i := range known {
		before[known[i].Slug] = &known[i]
	}
	var back []string
	out := make([]Record, 0, len(l.entries))
	for slug, e := range l.entries {
		if old := before[slug]; old != nil && old.ID == e.record.ID && old.Revision > e.record.Revision {
			out, back = append(out, *old), append(back, slug)
			continue
		}
		if old := before[slug]; old != nil && reflect.DeepEqual(old, e.record) {
			e.record = old // or a whole read would double what is in memory
			l.entries[slug] = e
		}
		out = append(out, *e.record)
	}
	for slug := range l.held {
		if _, there := l.entries[slug]; !there && before[slug] != nil {
			out = append(out, *before[slug])
		}
	}
	for slug, r := range l.kept {
		_, there := l.entries[slug]
		_, held := l.held[slug]
		if at, removed := l.removed[slug]; there || held || removed && at >= l.lostAt {
			delete(l.kept, slug)
			continue
		}
		out, back = append(out, r), append(back, slug)
	}
	slices.SortFunc(out, func(a, b Record) int { return cmp.Compare(a.Slug, b.Slug) })
	if len(back) == 0 {
		return out, nil
	}
	slices.Sort(back)
	return out, &Problem{Code: WentBack, Reason: fmt.Sprintf("the topic lost the newest changes of %s, which the bridge still knows", strings.Join(back, ", ")),
		Remedy: "set unclean.leader.election.enable=false, and change each of them once: bridge integrations enable or disable writes it again"}
}

// equal reports whether two states are the same for who follows the store.
func equal(a, b State) bool {
	if a.Known != b.Known || a.StoreID != b.StoreID || a.Ignored != b.Ignored || len(a.Records) != len(b.Records) || (a.Problem == nil) != (b.Problem == nil) {
		return false
	}
	if a.Problem != nil && (a.Problem.Code != b.Problem.Code || a.Problem.Reason != b.Problem.Reason) {
		return false
	}
	return reflect.DeepEqual(a.Records, b.Records)
}

// described is what the metadata has of a topic.
type described struct {
	exists     bool
	id         [16]byte
	partitions int
	operations int32 // allowed ones, as bits; the least integer: not known
}

func (s *Store) describe(ctx context.Context, cl *kafka.Client, topic string) (described, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	req.Topics = append(req.Topics, t)
	req.IncludeTopicAuthorizedOperations = true
	resp, err := req.RequestWith(ctx, cl.Client)
	if err == nil && len(resp.Topics) == 1 {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return described{}, nil
	case err != nil:
		return described{}, cl.Explain("looking up topic "+topic, err, kafka.Request{Topic: topic})
	case len(resp.Topics) != 1:
		return described{}, fmt.Errorf("looking up topic %s: the broker describes %d topics", topic, len(resp.Topics))
	}
	found := resp.Topics[0]
	return described{true, found.TopicID, len(found.Partitions), found.AuthorizedOperations}, nil
}

// place is an offset to look up.
type place struct {
	timestamp int64
	isolation int8
}

var (
	earliest = place{-2, 0}
	stable   = place{-1, 1} // the last stable offset
	latest   = place{-1, 0} // the high watermark
)

func (s *Store) offset(ctx context.Context, cl *kafka.Client, topic string, at place) (int64, error) {
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Timestamp = at.timestamp
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel, req.Topics = at.isolation, append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl.Client)
	if err == nil && (len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1) {
		err = errors.New("the broker answered for other partitions")
	}
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		return 0, cl.Explain("reading the offsets of topic "+topic, err, kafka.Request{Topic: topic})
	}
	return resp.Topics[0].Partitions[0].Offset, nil
}

// readRange hands over what is committed of a partition between two offsets. Batches that
// are too large go to ignore.
func (s *Store) readRange(ctx context.Context, cl *kafka.Client, topic string, from, end int64, take func(*kgo.Record) error, ignore func(*kgo.Record, string)) error {
	for {
		err := cl.ReadLog(ctx, kafka.LogRange{Topic: topic, From: from, End: end, FetchMax: fetchMax, MaxBatch: maxBatch}, take)
		large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err)
		if !ok || large.NextOffset <= from {
			return err
		}
		ignore(&kgo.Record{Offset: large.Offset}, "is in a batch that decompresses to too much")
		from = large.NextOffset
	}
}
