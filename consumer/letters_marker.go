package consumer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// markTimeout bounds the writing of the markers for one batch. It goes on when
// the redrive is told to stop: what landed is to be noted.
const markTimeout = 30 * time.Second

// newMarkers prepares a client that writes to the partition it is told.
func (c *Cluster) newMarkers() (*kgo.Client, error) {
	opts, err := c.cfg.Kafka.options(c.log, c.cfg.Version)
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(opts,
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(markTimeout), kgo.AllowIdempotentProduceCancellation(), kgo.RetryTimeout(10*time.Second))...)
	if err != nil {
		return nil, fmt.Errorf("preparing the kafka client: %w", err)
	}
	return cl, nil
}

// mark writes markers for the letters of the batch that landed, and returns nil
// once they are acknowledged.
func (r *redrive) mark(ctx context.Context) error {
	if r.markers == nil {
		return nil
	}
	lists := r.lists(maxMarker)
	if len(lists) == 0 {
		return nil
	}
	writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	err := r.writeMarkers(writing, lists)
	// What was taken of larger ones says the same.
	for most := maxMarker / 2; tooLarge(err) && most >= leastMarker; most /= 2 {
		lists = r.lists(most)
		err = r.writeMarkers(writing, lists)
	}
	if err != nil {
		e := r.l.c.cfg.Kafka.explain(fmt.Sprintf("writing %d markers to %s/%d", len(lists), r.part.topic, r.part.id), err)
		e.Remedy = fmt.Sprintf("check that topic %s may be written to; until then a redrive writes the same rows again, under the same message_id", r.part.topic)
		return e
	}
	for _, list := range lists {
		parseRedriven(string(list), func(at landedRun, events Events) bool { r.part.landed.add(at, events); return true })
	}
	return nil
}

// writeMarkers writes one marker for each list, one by one: together they would
// be one batch, which is what a topic limits.
func (r *redrive) writeMarkers(ctx context.Context, lists [][]byte) error {
	now := time.Now().UTC().Format(instant)
	for _, list := range lists {
		rec := &kgo.Record{Topic: r.part.topic, Partition: r.part.id, Headers: []kgo.RecordHeader{
			{Key: HeaderRedriven, Value: list},
			{Key: HeaderRedrivenIn, Value: []byte(r.l.home(r.part))},
			{Key: HeaderRedrivenAt, Value: []byte(now)},
			{Key: HeaderRedrivenBy, Value: []byte(r.o.By)},
			{Key: HeaderVersion, Value: []byte(r.l.c.cfg.Version)},
		}}
		if err := r.markers.ProduceSync(ctx, rec).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

// lists are what the markers of this batch say, each within so many bytes.
func (r *redrive) lists(most int) [][]byte {
	var lists [][]byte
	var list []byte
	add := func(at landedRun, events Events) {
		item := appendRedriven(nil, at, events)
		if len(list) > 0 && len(list)+1+len(item) > most {
			lists, list = append(lists, list), nil
		}
		list = appendRedriven(list, at, events)
	}
	whole := landedRun{first: -1, last: -1}
	flush := func() {
		if whole.first >= 0 {
			add(whole, nil)
		}
		whole = landedRun{first: -1, last: -1}
	}
	for _, d := range r.letters { // in the order of their offsets
		offset := d.DeadLetter.Offset
		switch {
		case d.Outcome == RedriveLanded && whole.first >= 0 && offset == whole.last+1:
			whole.last = offset
		case d.Outcome == RedriveLanded:
			flush()
			whole = landedRun{offset, offset}
		case d.Rows > 0 && !d.whole && !slices.Equal(d.landed, d.DeadLetter.Landed):
			flush()
			// Of one letter a list speaks once.
			for some := range slices.Chunk(d.landed, max(most/16, 1)) {
				add(landedRun{offset, offset}, some)
				lists, list = append(lists, list), nil
			}
		}
	}
	flush()
	if len(list) > 0 {
		lists = append(lists, list)
	}
	return lists
}
