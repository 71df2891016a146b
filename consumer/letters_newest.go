package consumer

import (
	"cmp"
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Newest returns up to limit of the newest letters that have not landed, newest
// first. Of each partition the last limit records are read, which hold all
// markers that speak of the letters among them. The letters are the caller's.
func (l *Letters) Newest(ctx context.Context, limit int) ([]*Letter, error) {
	var newest []*kgo.Record
	landed := map[topicPartition]*settled{}
	for _, p := range l.parts {
		done := &settled{}
		landed[topicPartition{p.topic, p.id}] = done
		err := l.c.readLog(ctx, p.topic, p.id, max(p.start, p.end-int64(limit)), p.end, func(rec *kgo.Record) error {
			if !isMarker(rec) {
				newest = append(newest, rec)
			} else if !done.take(rec, l.home(p)) {
				l.doubtful++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		// Only what may be among the newest is held, however many partitions.
		newest = slices.DeleteFunc(newest, func(rec *kgo.Record) bool {
			whole, _ := landed[topicPartition{rec.Topic, rec.Partition}].has(rec.Offset)
			return whole
		})
		slices.SortFunc(newest, func(a, b *kgo.Record) int {
			return cmp.Or(b.Timestamp.Compare(a.Timestamp), cmp.Compare(b.Offset, a.Offset))
		})
		if len(newest) > limit {
			clear(newest[limit:])
			newest = newest[:limit]
		}
	}
	letters := make([]*Letter, 0, len(newest))
	for _, rec := range newest {
		letter := ParseLetter(rec)
		_, letter.Landed = landed[topicPartition{rec.Topic, rec.Partition}].has(rec.Offset)
		letters = append(letters, letter)
	}
	return letters, nil
}
