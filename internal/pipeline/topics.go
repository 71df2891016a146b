package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
)

const (
	maxTopics      = 2000 // that are listed
	maxBusyTopics  = 200  // of those, the ones whose rates are looked up
	rateWindow     = 5 * time.Minute
	recentTimeout  = 10 * time.Second
	recentReads    = 4 // partitions, those with the newest records
	recentFetchMax = 1 << 20
)

// Topics returns the topics of the cluster by name, without internal and hidden ones: at
// most 2,000, the first 200 with their rates and newest records. A rate counts offsets
// whose timestamps are in the last five minutes.
func Topics(ctx context.Context, cl *kafka.Client, hidden func(string) bool, now time.Time) ([]Topic, error) {
	found, err := cl.Adm.ListTopics(ctx)
	if err != nil {
		return nil, cl.Explain("listing topics", err, kafka.Request{})
	}
	topics := []Topic{}
	for _, t := range found.Sorted() {
		if t.Err == nil && !strings.HasPrefix(t.Topic, "__") && !hidden(t.Topic) && len(topics) < maxTopics {
			topics = append(topics, Topic{Name: t.Topic, Partitions: len(t.Partitions)})
		}
	}
	var names []string
	for _, t := range topics[:min(len(topics), maxBusyTopics)] {
		names = append(names, t.Name)
	}
	if len(names) == 0 {
		return topics, nil
	}
	// What cannot be looked up is unknown: the list is of use without it.
	ends, _ := cl.ListEnds(ctx, names...)
	before, _ := cl.Adm.ListOffsetsAfterMilli(ctx, now.Add(-rateWindow).UnixMilli(), names...)
	newest, _ := cl.Adm.ListMaxTimestampOffsets(ctx, names...)
	for i := range names {
		t := &topics[i]
		events, known := int64(0), true
		for p := range int32(t.Partitions) {
			end, ok := listed(ends, t.Name, p)
			from, also := listed(before, t.Name, p)
			known = known && ok && also
			events += max(end.Offset-from.Offset, 0)
			if last, ok := listed(newest, t.Name, p); ok && last.Timestamp >= 0 {
				at := time.UnixMilli(last.Timestamp).UTC()
				if t.Newest == nil || at.After(*t.Newest) {
					t.Newest = &at
				}
			}
		}
		if known {
			rate := float64(events) / rateWindow.Seconds()
			t.Rate = &rate
		}
	}
	return topics, nil
}

func listed(all kadm.ListedOffsets, topic string, partition int32) (kadm.ListedOffset, bool) {
	o, ok := all.Lookup(topic, partition)
	return o, ok && o.Err == nil
}

// RecentEvents returns up to limit of the newest records of the integration's topics,
// newest first. It reads the partitions with the newest records alone, for ten seconds
// at most. Records larger than 64 KiB are left out.
func RecentEvents(ctx context.Context, cl *kafka.Client, c *config.Config, limit int) ([]RecentEvent, error) {
	ctx, cancel := context.WithTimeout(ctx, recentTimeout)
	defer cancel()
	spans, err := cl.Spans(ctx, c.Kafka.Topics...)
	if err != nil {
		return nil, err
	}
	newest, err := cl.Adm.ListMaxTimestampOffsets(ctx, c.Kafka.Topics...)
	if err != nil {
		return nil, cl.ExplainTopics(ctx, "looking for the newest records", err, c.Kafka.Topics...)
	}
	var order []kadm.ListedOffset
	newest.Each(func(o kadm.ListedOffset) {
		if o.Err == nil && o.Timestamp >= 0 {
			order = append(order, o)
		}
	})
	slices.SortFunc(order, func(a, b kadm.ListedOffset) int {
		return cmp.Or(cmp.Compare(b.Timestamp, a.Timestamp), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	events := []RecentEvent{}
	for _, o := range order[:min(len(order), recentReads)] {
		log := spans[kafka.TopicPartition{Topic: o.Topic, Partition: o.Partition}]
		err := cl.ReadLog(ctx, kafka.LogRange{Topic: o.Topic, Partition: o.Partition, From: max(log.Start, log.End-int64(limit)), End: log.End,
			FetchMax: recentFetchMax, MaxBatch: kafka.MaxBatch(int64(c.Delivery.MaxBuffered))}, func(rec *kgo.Record) error {
			if len(rec.Value) <= maxKept {
				events = append(events, RecentEvent{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Time: rec.Timestamp.UTC(), Event: jsonValue(rec.Value)})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(events, func(a, b RecentEvent) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(b.Offset, a.Offset))
	})
	return events[:min(len(events), limit)], nil
}

// jsonValue returns a record's value as JSON: as it is, or as a JSON string.
func jsonValue(value []byte) json.RawMessage {
	if json.Valid(value) && utf8.Valid(value) { // encoding/json accepts other bytes in texts
		return bytes.Clone(value)
	}
	text, _ := json.Marshal(string(bytes.ToValidUTF8(value, []byte("\ufffd")))) // of a string
	return text
}
