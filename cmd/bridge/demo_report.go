package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/zerobus/emulator"
)

// demoReport is what a demo found. Produced was counted at the producer, by
// acknowledgement; Rows, Distinct and Duplicates in the table; Rejected in the
// dead-letter topic; Filtered by the bridge, since a filtered event leaves no
// other trace.
type demoReport struct {
	Produced   int64 `json:"produced"`
	Rows       int64 `json:"rows"`
	Distinct   int64 `json:"distinct"`
	Duplicates int64 `json:"duplicates"`
	Rejected   int64 `json:"rejected"`
	Filtered   int64 `json:"filtered"`
	Lost       int64 `json:"lost"`

	Elapsed         time.Duration    `json:"-"`
	ElapsedSeconds  float64          `json:"elapsed_seconds"`
	EventsPerSecond float64          `json:"events_per_second"`
	AckP50          float64          `json:"ack_p50_seconds"`
	AckP99          float64          `json:"ack_p99_seconds"`
	RejectedBy      map[string]int64 `json:"rejected_by_code"`
	Kafka           string           `json:"kafka,omitempty"`
	Topic           string           `json:"topic"`

	newest []emulator.Row
}

// count fills in the report from the ends of the run.
func (d *demo) count(ctx context.Context, r *demoReport) error {
	r.Rows = int64(d.table.Count())
	r.Distinct = int64(d.table.Distinct("message_id"))
	r.Duplicates = r.Rows - r.Distinct
	r.Filtered = d.bridge.Status().Totals.EventsFiltered
	letters, err := readDeadLetters(ctx, d.admin, d.brokers, d.o.topic+"-dlq")
	if err != nil {
		return err
	}
	r.RejectedBy = map[string]int64{}
	for _, code := range letters {
		r.RejectedBy[code]++
		r.Rejected++
	}
	r.Lost = r.Produced - r.Distinct - r.Rejected - r.Filtered
	r.ElapsedSeconds = r.Elapsed.Seconds()
	r.EventsPerSecond = float64(r.Produced) / r.ElapsedSeconds
	p50, p99 := d.acks.quantiles()
	r.AckP50, r.AckP99 = p50.Seconds(), p99.Seconds()

	rows := d.table.Newest(demoKept)
	stamp := func(row emulator.Row) string { v, _ := row.Value("event_timestamp"); return v }
	slices.SortStableFunc(rows, func(a, b emulator.Row) int { return cmp.Compare(stamp(b), stamp(a)) })
	r.newest = rows[:min(10, len(rows))]
	return nil
}

// readDeadLetters returns the code of every event in the dead-letter topic, by
// where the event came from: a dead letter that was written twice counts once.
func readDeadLetters(ctx context.Context, admin *kgo.Client, brokers, topic string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ends, err := kadm.NewClient(admin).ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("reading the end of %s: %w", topic, err)
	}
	codes := map[string]string{}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	if len(left) == 0 {
		return codes, nil
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, fmt.Errorf("preparing to read %s: %w", topic, err)
	}
	defer reader.Close()
	for len(left) > 0 {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("reading %s: %w", topic, ctx.Err())
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			letter := consumer.ParseDeadLetter(rec)
			for index := range letter.Events.All() {
				codes[fmt.Sprintf("%d/%d/%d", letter.Original.Partition, letter.Original.Offset, index)] = letter.Code
			}
			if rec.Offset+1 >= left[rec.Partition] {
				delete(left, rec.Partition)
			}
		})
	}
	return codes, nil
}

func (r *demoReport) write(w io.Writer, form *outputForm, look style) error {
	if form.json() {
		return json.NewEncoder(w).Encode(r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", look.strong("SELECT * FROM "+demoTable+" ORDER BY event_timestamp DESC LIMIT 10"))
	writeRows(&b, r.newest)
	fmt.Fprintf(&b, "\n%d events in %s (%.0f events/s), acknowledged in %s (p50), %s (p99)\n", r.Produced, r.Elapsed.Round(time.Millisecond), r.EventsPerSecond,
		round(time.Duration(r.AckP50*float64(time.Second))), round(time.Duration(r.AckP99*float64(time.Second))))
	fmt.Fprintf(&b, "\n  produced  %9d   acknowledged by Kafka\n  distinct  %9d   message ids in the table (%d rows, %d duplicates)\n", r.Produced, r.Distinct, r.Rows, r.Duplicates)
	fmt.Fprintf(&b, "  rejected  %9d   in the dead-letter topic%s\n  filtered  %9d   tombstones\n", r.Rejected, byCode(r.RejectedBy), r.Filtered)
	verdict := look.good
	if r.Lost != 0 {
		verdict = look.bad
	}
	fmt.Fprintf(&b, "%s   produced - distinct - rejected - filtered\n", verdict(fmt.Sprintf("  lost      %9d", r.Lost)))
	if r.Kafka != "" {
		fmt.Fprintf(&b, "\nTopics %s and %s-dlq are left on %s.\n", r.Topic, r.Topic, r.Kafka)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func byCode(codes map[string]int64) string {
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		parts = append(parts, fmt.Sprintf("%s %d", code, codes[code]))
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// demoColumns are the columns of the default blueprint and how many characters
// of each are shown.
var demoColumns = []struct {
	name  string
	width int
}{
	{"event_name", 18}, {"event_type", 10}, {"message_id", 13}, {"user_id", 10}, {"anonymous_id", 12}, {"event_timestamp", 26}, {"ip_address", 15},
	{"user_agent", 12}, {"locale", 6}, {"timezone", 14}, {"page_url", 24}, {"page_referrer", 16}, {"source_id", 10},
}

func writeRows(w io.Writer, rows []emulator.Row) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range demoColumns {
		fmt.Fprintf(tw, "%s\t", c.name)
	}
	fmt.Fprintln(tw)
	for _, row := range rows {
		for _, c := range demoColumns {
			fmt.Fprintf(tw, "%s\t", cell(row, c.name, c.width))
		}
		fmt.Fprintln(tw)
	}
	_ = tw.Flush() // into a strings.Builder
}

// cell is one value as a SQL editor would show it, cut to width.
func cell(row emulator.Row, column string, width int) string {
	text, ok := row.Value(column)
	if !ok {
		return "NULL"
	}
	var micros int64
	if column == "event_timestamp" {
		if _, err := fmt.Sscan(text, &micros); err == nil {
			return time.UnixMicro(micros).UTC().Format("2006-01-02 15:04:05.000")
		}
	}
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "~"
	}
	return text
}

// ackTimes keeps the last acknowledgement times.
type ackTimes struct {
	mu   sync.Mutex // guards the fields below
	ring [4096]time.Duration
	n    int
}

func (a *ackTimes) add(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ring[a.n%len(a.ring)] = d
	a.n++
}

// quantiles returns the median and the 99th percentile of the last few
// thousand batches; zero before the first.
func (a *ackTimes) quantiles() (p50, p99 time.Duration) {
	a.mu.Lock()
	last := slices.Clone(a.ring[:min(a.n, len(a.ring))])
	a.mu.Unlock()
	if len(last) == 0 {
		return 0, 0
	}
	slices.Sort(last)
	return last[len(last)/2], last[len(last)*99/100]
}
