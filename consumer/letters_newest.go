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

// maxBack bounds how many parts Newest goes back for the first of them.
const maxBack = 1 << 10

// Newest returns up to limit of the newest letters that have not landed, one of
// each event, newest first. Of each partition the last limit records are read, and
// the parts before them of a dead letter that ends there; they hold all markers
// that speak of the letters among them. The letters are the caller's.
func (l *DeadLetterReader) Newest(ctx context.Context, limit int) ([]*DeadLetter, error) {
	var newest []*DeadLetter
	held := 0 // bytes of newest
	landed := map[topicPartition]*settled{}
	events := newEntries(maxNewestBytes)
	for _, p := range l.parts {
		done := &settled{}
		landed[topicPartition{p.topic, p.id}] = done
		from, err := l.beginning(ctx, p, max(p.start, p.end-int64(limit)))
		if err != nil {
			return nil, err
		}
		err = l.read(ctx, p, from, func(marker *kgo.Record) {
			if !done.take(marker, l.home(p)) {
				l.doubtful++
			}
		}, func(letter *DeadLetter) error {
			if from > p.start && letter.Fault != "" && letter.Parts > 0 {
				return nil // its first parts may lie before
			}
			events.note(letter, p)
			newest = append(newest, letter)
			if held += letter.bytes(); held > 2*maxNewestBytes {
				newest, held = newestOf(newest, len(newest)) // some may have landed, so no limit yet
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		// Only what may be among the newest is held, however many partitions.
		newest = slices.DeleteFunc(newest, func(letter *DeadLetter) bool {
			whole, _ := landed[topicPartition{letter.Topic, letter.Partition}].has(letter.Offset)
			return whole || !events.newest(letter, l.partition(letter))
		})
		newest, held = newestOf(newest, limit)
	}
	for _, letter := range newest {
		_, letter.Landed = landed[topicPartition{letter.Topic, letter.Partition}].has(letter.Offset)
	}
	return newest, nil
}

// beginning returns the offset of the first part where a part lies at the one
// given, as far as no others lie between them, and else that offset.
func (l *DeadLetterReader) beginning(ctx context.Context, p *letterPartition, offset int64) (int64, error) {
	from := offset
	if offset == p.start {
		return from, nil
	}
	err := l.c.readLog(ctx, p.topic, p.id, offset, min(offset+1, p.end), func(rec *kgo.Record) error {
		if n, _, ok := parsePart(headerOf(rec, HeaderPart)); ok && isPart(rec) {
			from = max(p.start, offset-int64(min(n-1, maxBack)))
		}
		return nil
	})
	return from, err
}

// partition returns the partition a letter lies in.
func (l *DeadLetterReader) partition(letter *DeadLetter) *letterPartition {
	i := slices.IndexFunc(l.parts, func(p *letterPartition) bool { return p.topic == letter.Topic && p.id == letter.Partition })
	return l.parts[i]
}

// newestOf sorts letters by time, newest first, and keeps what the bounds allow,
// one at least.
func newestOf(letters []*DeadLetter, limit int) (newest []*DeadLetter, held int) {
	slices.SortFunc(letters, func(a, b *DeadLetter) int {
		return cmp.Or(b.written.Compare(a.written), cmp.Compare(b.Offset, a.Offset))
	})
	n := 0
	for n < min(len(letters), limit) {
		size := letters[n].bytes()
		if n > 0 && held+size > maxNewestBytes {
			break
		}
		held += size
		n++
	}
	clear(letters[n:])
	return letters[:n], held
}

func recordBytes(rec *kgo.Record) int {
	n := len(rec.Key) + len(rec.Value)
	for _, h := range rec.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}
