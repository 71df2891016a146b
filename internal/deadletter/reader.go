package deadletter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/kafka"
)

// Reader reads what was in the dead-letter topics when it was opened. It reads
// without a group, one partition after the other, and never holds all. Reading takes
// about two fetch answers of memory, the largest dead letter that is in parts, and 16
// bytes for each run of redriven ones. Comparing dead letters of the same event takes
// up to 64 MiB. It is for one goroutine.
type Reader struct {
	cl         *kafka.Client
	cfg        *consumer.Config  // the first, for what all have in common
	cfgs       []consumer.Config // of the integrations whose dead letters it hands over
	clusterID  string
	parts      []*partition
	topics     []kafka.Topic
	unverified int
	elsewhere  int
	entries    *entries
	partial    bool // see Partial
}

// partition is one partition of a dead-letter topic, from its first offset to the
// one after its last.
type partition struct {
	topic      string
	id         int32
	start, end int64
	redriven   *redriven // nil until the markers were read
}

// Open looks up the dead-letter topics of integrations, one at least, under any reject
// policy. The error is a *[kafka.Error].
func Open(ctx context.Context, cl *kafka.Client, cfgs ...consumer.Config) (*Reader, error) {
	id, err := cl.ID(ctx)
	if err != nil {
		return nil, err
	}
	l := &Reader{cl: cl, cfg: &cfgs[0], cfgs: cfgs, clusterID: id, entries: newEntries(maxEntries)}
	var names []string
	for i := range cfgs {
		names = append(names, cfgs[i].DeadLetterTopics()...)
	}
	slices.Sort(names)
	if l.topics, err = cl.LookUp(ctx, kafka.Read, slices.Compact(names)...); err != nil {
		return nil, err
	}
	names = nil
	for _, t := range l.topics {
		if t.Exists {
			names = append(names, t.Name)
		}
	}
	if len(names) == 0 {
		return l, nil
	}
	starts, err := cl.Adm.ListStartOffsets(ctx, names...)
	if err == nil {
		err = starts.Error()
	}
	var ends kadm.ListedOffsets
	if err == nil {
		if ends, err = cl.ListEnds(ctx, names...); err == nil {
			err = ends.Error()
		}
	}
	if err != nil {
		return nil, cl.Explain("reading offsets of the dead-letter topics", err, kafka.Request{})
	}
	starts.Each(func(start kadm.ListedOffset) {
		if end, ok := ends.Lookup(start.Topic, start.Partition); ok {
			l.parts = append(l.parts, &partition{topic: start.Topic, id: start.Partition, start: start.Offset, end: end.Offset})
		}
	})
	slices.SortFunc(l.parts, func(a, b *partition) int { return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.id, b.id)) })
	return l, nil
}

// Topics are the dead-letter topics; those that do not exist hold no dead letters.
func (l *Reader) Topics() []kafka.Topic { return l.topics }

// Records is how many offsets the dead-letter topics span: at least the number of
// dead letters, since markers count, and so does what compaction removed.
func (l *Reader) Records() int64 {
	var n int64
	for _, p := range l.parts {
		n += p.end - p.start
	}
	return n
}

// UnverifiedMarkers is how many markers were ignored so far: they could not be read,
// or are about another topic.
func (l *Reader) UnverifiedMarkers() int { return l.unverified }

// Elsewhere is how many dead letters of other topics, consumer groups or integrations
// were left out so far.
func (l *Reader) Elsewhere() int { return l.elsewhere }

// own reports whether a dead letter belongs to an integration of the reader, and
// names that.
func (l *Reader) own(r *Record) bool {
	i := slices.IndexFunc(l.cfgs, func(cfg consumer.Config) bool { return r.of(&cfg) })
	if i >= 0 {
		r.Integration = l.cfgs[i].Rejects.Name()
	}
	return i >= 0
}

// Uncompared is how many dead letters were not compared with others, since that
// would have taken more than 64 MiB: some may be of the same event.
func (l *Reader) Uncompared() int { return l.entries.left }

// Each hands over the newest dead letter of every event of the integrations, redriven
// or not, by topic, partition and offset, until take returns an error, which it returns.
// Those of which parts are missing come at the end of their partition. A dead letter is
// valid until take returns.
func (l *Reader) Each(ctx context.Context, take func(*Record) error) error {
	if err := l.prepare(ctx, l.parts...); err != nil {
		return err
	}
	for _, p := range l.parts {
		if err := l.each(ctx, p, take); err != nil {
			return err
		}
	}
	return nil
}

// errEnough ends a reading that has found what it looked for.
var errEnough = errors.New("enough was read")

// At returns the dead letter at an offset, of whatever integration, also where a newer one of its event is
// found in the same partition; nil if there is none. Of one in parts, any offset of
// them is valid.
func (l *Reader) At(ctx context.Context, topic string, id int32, offset int64) (*Record, error) {
	i := slices.IndexFunc(l.parts, func(p *partition) bool {
		return p.topic == topic && p.id == id && offset >= p.start && offset < p.end
	})
	if i < 0 {
		return nil, nil
	}
	p := l.parts[i]
	if err := l.prepare(ctx, p); err != nil {
		return nil, err
	}
	from, part, partOf := offset, false, ""
	err := l.readLog(ctx, p, offset, offset+1, func(rec *kgo.Record) error {
		if part = isPart(rec); part {
			from, partOf = p.start, consumer.HeaderOf(rec, consumer.HeaderPartOf)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var found *Record
	err = l.read(ctx, p, from, nil, func(r *Record) error {
		switch {
		case part && (r.Parts == 0 || r.partOf != partOf || r.from > offset || r.Offset < offset):
			return nil // parts of others may be between its own
		case part || r.Offset == offset:
			found = r
		}
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	if found != nil {
		found.Resolved, found.Delivered = p.redriven.has(found.Offset)
		found.Replaced = !l.entries.newest(found, p)
		l.own(found) // any is shown
	}
	return found, nil
}

// maxNewestBytes bounds the dead letters that Newest holds and returns. Of large ones
// there are fewer.
const maxNewestBytes = 32 << 20

// Newest returns up to limit of the newest dead letters that were not redriven, one
// of each event, newest first. It reads the last limit records of each partition, and
// the parts before them of a dead letter that ends there; they hold all markers about
// the dead letters among them. The result is the caller's. Partial reports afterwards
// whether there may be older ones.
func (l *Reader) Newest(ctx context.Context, limit int) ([]*Record, error) {
	var newest []*Record
	l.partial = false
	held := 0 // bytes of newest
	events := newEntries(maxNewestBytes)
	done := map[*partition]*redriven{}
	partOf := func(r *Record) *partition {
		return l.parts[slices.IndexFunc(l.parts, func(p *partition) bool { return p.topic == r.Topic && p.id == r.Partition })]
	}
	for _, p := range l.parts {
		markers := &redriven{}
		done[p] = markers
		from, err := l.firstPart(ctx, p, max(p.start, p.end-int64(limit)))
		if err != nil {
			return nil, err
		}
		l.partial = l.partial || from > p.start
		err = l.read(ctx, p, from, func(marker *kgo.Record) {
			if !markers.add(marker, l.markerHome(p)) {
				l.unverified++
			}
		}, func(r *Record) error {
			if from > p.start && r.Fault != "" && r.Parts > 0 {
				return nil // its first parts may be before
			}
			if !l.own(r) {
				return nil
			}
			events.note(r, p)
			newest = append(newest, r)
			if held += r.bytes(); held > 2*maxNewestBytes {
				all := len(newest)
				newest, held = newestOf(newest, all) // some may have been redriven, so no limit yet
				l.partial = l.partial || len(newest) < all
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		// Only what may be among the newest is held, however many partitions.
		newest = slices.DeleteFunc(newest, func(r *Record) bool {
			whole, _ := done[partOf(r)].has(r.Offset)
			return whole || !events.newest(r, partOf(r))
		})
		all := len(newest)
		newest, held = newestOf(newest, limit)
		l.partial = l.partial || len(newest) < all
	}
	for _, r := range newest {
		_, r.Delivered = done[partOf(r)].has(r.Offset)
	}
	return newest, nil
}

// Partial reports whether Newest left dead letters out that are older.
func (l *Reader) Partial() bool { return l.partial }

// firstPart returns the offset of the first part where a part is at the one given, as
// far as no others are between them, and else that offset.
func (l *Reader) firstPart(ctx context.Context, p *partition, offset int64) (int64, error) {
	const maxBack = 1 << 10 // parts
	from := offset
	if offset == p.start {
		return from, nil
	}
	err := l.readLog(ctx, p, offset, min(offset+1, p.end), func(rec *kgo.Record) error {
		if n, _, ok := parsePart(consumer.HeaderOf(rec, consumer.HeaderPart)); ok && isPart(rec) {
			from = max(p.start, offset-int64(min(n-1, maxBack)))
		}
		return nil
	})
	return from, err
}

// newestOf sorts dead letters by time, newest first, and keeps what the bounds allow,
// one at least.
func newestOf(records []*Record, limit int) (newest []*Record, held int) {
	slices.SortFunc(records, func(a, b *Record) int {
		return cmp.Or(b.written.Compare(a.written), cmp.Compare(b.Offset, a.Offset))
	})
	n := 0
	for n < min(len(records), limit) {
		size := records[n].bytes()
		if n > 0 && held+size > maxNewestBytes {
			break
		}
		held += size
		n++
	}
	clear(records[n:])
	return records[:n], held
}

// each hands over the newest dead letters of a partition.
func (l *Reader) each(ctx context.Context, p *partition, take func(*Record) error) error {
	return l.read(ctx, p, p.start, nil, func(r *Record) error {
		if !l.entries.newest(r, p) {
			return nil
		}
		if !l.own(r) {
			l.elsewhere++
			return nil
		}
		r.Resolved, r.Delivered = p.redriven.has(r.Offset)
		return take(r)
	})
}

// read hands over the records of a partition from an offset on: markers, and dead
// letters with their parts put together.
func (l *Reader) read(ctx context.Context, p *partition, from int64, marker func(*kgo.Record), take func(*Record) error) error {
	const headroom = 64 << 10 // for the bridge's headers
	// No event is larger than what a batch may decompress to.
	parts := &assembly{most: kafka.MaxBatch(int64(l.cfg.MaxBuffered)) + headroom}
	all := func(records []*Record) error {
		for _, r := range records {
			if err := take(r); err != nil {
				return err
			}
		}
		return nil
	}
	err := l.readLog(ctx, p, from, p.end, func(rec *kgo.Record) error {
		switch {
		case isMarker(rec):
			if marker != nil {
				marker(rec)
			}
			return nil
		case isPart(rec):
			return all(parts.add(rec))
		default:
			return take(Parse(rec))
		}
	})
	if err != nil {
		return err
	}
	return all(parts.rest())
}

func (l *Reader) readLog(ctx context.Context, p *partition, from, end int64, take func(*kgo.Record) error) error {
	return l.cl.ReadLog(ctx, kafka.LogRange{Topic: p.topic, Partition: p.id, From: from, End: end,
		FetchMax: int32(l.cfg.FetchMaxBytes), MaxBatch: kafka.MaxBatch(int64(l.cfg.MaxBuffered))}, take)
}

// prepare reads partitions once for what must be known before the first dead letter
// is handed over: markers come after the dead letters they are about, and so do newer
// dead letters of the same event.
func (l *Reader) prepare(ctx context.Context, parts ...*partition) error {
	for _, p := range parts {
		if p.redriven != nil {
			continue
		}
		markers, unverified := &redriven{}, 0
		err := l.read(ctx, p, p.start, func(marker *kgo.Record) {
			if !markers.add(marker, l.markerHome(p)) {
				unverified++
			}
		}, func(r *Record) error {
			l.entries.note(r, p)
			return nil
		})
		if err != nil {
			return err
		}
		if unverified > 0 {
			l.cl.Log.Warn("markers of a redrive are ignored: they cannot be read, or were copied from another topic",
				zap.String("topic", p.topic), zap.Int32("partition", p.id), zap.Int("markers", unverified))
		}
		p.redriven, l.unverified = markers, l.unverified+unverified
	}
	return nil
}

// markerHome is what markers of the partition name as their place.
func (l *Reader) markerHome(p *partition) string {
	return fmt.Sprintf("%s/%s/%d", l.clusterID, p.topic, p.id)
}

// Headers of a marker. Kafka cannot remove from the middle of a log, so a redrive
// adds a record without a key and a value to the partition of the dead letters it has
// delivered, with these headers. A dead letter of an event that has such headers
// itself has consumer.HeaderCode, too, and is no marker.
const (
	// HeaderRedriven lists offsets of the marker's own partition, rising:
	// "17,20-45,51:0+3-5" are the dead letter 17, those from 20 to 45, and of dead
	// letter 51 the events 0 and 3 to 5.
	HeaderRedriven   = "bridge-redriven"
	HeaderRedrivenIn = "bridge-redriven-in" // <cluster id>/<topic>/<partition>; in a copy of the topic the offsets are wrong
	HeaderRedrivenAt = "bridge-redriven-at" // RFC 3339, UTC, milliseconds
	HeaderRedrivenBy = "bridge-redriven-by" // who, for people
)

// offsetRun is a run of offsets, both included.
type offsetRun struct{ first, last int64 }

// redriven are the dead letters of a partition that were redriven. It takes 16 bytes
// for each run of them.
type redriven struct {
	whole []offsetRun               // rising and apart once sorted
	part  map[int64]consumer.Events // dead letters of which some events were redriven
	dirty bool
}

// note notes one item of a marker; no events means all of them.
func (s *redriven) note(at offsetRun, events consumer.Events) {
	if len(events) == 0 {
		s.whole, s.dirty = append(s.whole, at), true
		return
	}
	if s.part == nil {
		s.part = make(map[int64]consumer.Events)
	}
	s.part[at.first] = s.part[at.first].And(events)
}

// has reports whether the dead letter was redriven, and which of its events were if
// not.
func (s *redriven) has(offset int64) (bool, consumer.Events) {
	if s.dirty { // join runs that touch
		s.dirty = false
		slices.SortFunc(s.whole, func(a, b offsetRun) int { return cmp.Compare(a.first, b.first) })
		joined := s.whole[:0]
		for _, r := range s.whole {
			if n := len(joined); n > 0 && r.first <= joined[n-1].last+1 {
				joined[n-1].last = max(joined[n-1].last, r.last)
				continue
			}
			joined = append(joined, r)
		}
		s.whole = joined
	}
	i, _ := slices.BinarySearchFunc(s.whole, offset, func(r offsetRun, at int64) int { return cmp.Compare(r.last, at) })
	return i < len(s.whole) && s.whole[i].first <= offset, s.part[offset]
}

func isMarker(rec *kgo.Record) bool { return len(rec.Value) == 0 && hasHeader(rec, HeaderRedriven) }

// add notes a marker and reports whether it is valid. A marker about another
// partition, or about dead letters after it, is ignored.
func (s *redriven) add(rec *kgo.Record, home string) bool {
	list := consumer.HeaderOf(rec, HeaderRedriven)
	if consumer.HeaderOf(rec, HeaderRedrivenIn) != home || !parseRedriven(list, func(at offsetRun, _ consumer.Events) bool { return at.last < rec.Offset }) {
		return false
	}
	return parseRedriven(list, func(at offsetRun, events consumer.Events) bool { s.note(at, events); return true })
}

// parseRedriven hands over the items of a marker's list. It returns false where the
// list is invalid or item returns false.
func parseRedriven(list string, item func(at offsetRun, events consumer.Events) bool) bool {
	offset := func(text string) (int64, bool) {
		n, err := strconv.ParseInt(text, 10, 64)
		return n, err == nil && n >= 0 && text[0] != '+' && text[0] != '-'
	}
	before := int64(-1)
	for text := range strings.SplitSeq(list, ",") {
		where, which, some := strings.Cut(text, ":")
		from, to, run := strings.Cut(where, "-")
		var at offsetRun
		var ok bool
		if at.first, ok = offset(from); !ok {
			return false
		}
		if at.last = at.first; run {
			if at.last, ok = offset(to); !ok || at.last <= at.first || some {
				return false
			}
		}
		var events consumer.Events
		if some {
			if events, ok = consumer.ParseEvents(strings.ReplaceAll(which, "+", ",")); !ok || strings.Contains(which, ",") {
				return false
			}
		}
		if at.first <= before || !item(at, events) {
			return false
		}
		before = at.last
	}
	return true
}

// appendRedriven appends one item to a list.
func appendRedriven(list []byte, at offsetRun, events consumer.Events) []byte {
	if len(list) > 0 {
		list = append(list, ',')
	}
	list = strconv.AppendInt(list, at.first, 10)
	if at.last > at.first {
		list = strconv.AppendInt(append(list, '-'), at.last, 10)
	}
	if len(events) > 0 {
		list = append(append(list, ':'), strings.ReplaceAll(events.String(), ",", "+")...)
	}
	return list
}
