package consumer

import (
	"cmp"
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

// maxNewestBytes bounds the letters that Newest holds and returns. Of large ones
// there are fewer.
const maxNewestBytes = 32 << 20

// Newest returns up to limit of the newest letters that have not landed, newest
// first. Of each partition the last limit records are read, which hold all
// markers that speak of the letters among them. The letters are the caller's.
func (l *Letters) Newest(ctx context.Context, limit int) ([]*Letter, error) {
	var newest []*kgo.Record
	held := 0 // bytes of newest
	landed := map[topicPartition]*settled{}
	for _, p := range l.parts {
		done := &settled{}
		landed[topicPartition{p.topic, p.id}] = done
		err := l.c.readLog(ctx, p.topic, p.id, max(p.start, p.end-int64(limit)), p.end, func(rec *kgo.Record) error {
			if !isMarker(rec) {
				newest = append(newest, rec)
				if held += recordBytes(rec); held > 2*maxNewestBytes {
					newest, held = newestOf(newest, len(newest)) // some may have landed, so no limit yet
				}
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
		newest, held = newestOf(newest, limit)
	}
	letters := make([]*Letter, 0, len(newest))
	for _, rec := range newest {
		letter := ParseLetter(rec)
		_, letter.Landed = landed[topicPartition{rec.Topic, rec.Partition}].has(rec.Offset)
		letters = append(letters, letter)
	}
	return letters, nil
}

// newestOf sorts records by time, newest first, and keeps what the bounds allow,
// one at least.
func newestOf(recs []*kgo.Record, limit int) (newest []*kgo.Record, held int) {
	slices.SortFunc(recs, func(a, b *kgo.Record) int {
		return cmp.Or(b.Timestamp.Compare(a.Timestamp), cmp.Compare(b.Offset, a.Offset))
	})
	n := 0
	for n < min(len(recs), limit) {
		size := recordBytes(recs[n])
		if n > 0 && held+size > maxNewestBytes {
			break
		}
		held += size
		n++
	}
	clear(recs[n:])
	return recs[:n], held
}

func recordBytes(rec *kgo.Record) int {
	n := len(rec.Key) + len(rec.Value)
	for _, h := range rec.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}
