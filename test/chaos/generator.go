package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/oracle"
	"github.com/datafly/bridge/internal/traffic"
)

// What an event holds, and so its outcome.
const (
	fine      = iota // a row of the table
	unfit            // a row that the table refuses: a dead letter
	malformed        // no row at all: a dead letter
	mixed            // an array of one event that is fine and many that are none: a row and a dead letter
	tombstone        // a null value: filtered
)

// Event numbers name where an event was produced: by the steady producer, in the
// recreated topic, or within a transaction.
const (
	arrayNumbers       uint32 = 1 << 29 // from here: in an array
	recreatedNumbers   uint32 = 1 << 30 // from here: the incarnation of the topic, then the event in it
	transactionNumbers uint32 = 1 << 31 // from here: the transaction, then the event in it

	incarnationShift = 21
	maxIncarnation   = 1<<(30-incarnationShift) - 1
	transactionShift = 10
	maxTransaction   = 1<<(31-transactionShift) - 1
)

// incarnationOf returns the incarnation of the recreated topic that an event
// was produced to.
func incarnationOf(number uint32) (incarnation uint32, ok bool) {
	return (number - recreatedNumbers) >> incarnationShift, number >= recreatedNumbers && number < transactionNumbers
}

// transactionOf returns the transaction that an event was produced in.
func transactionOf(number uint32) (id uint32, ok bool) {
	return (number - transactionNumbers) >> transactionShift, number >= transactionNumbers
}

// recreatedFrom is the first partition number that the ledger has for the recreated
// topic: each incarnation has ten of its own, so that an offset is one event there.
const recreatedFrom int32 = 1000

// ledgerPartition returns the partition number that the ledger has for the
// partition of a topic that an event names.
func (g generator) ledgerPartition(topicName string, partition int32, number uint32) (int32, error) {
	incarnation, again := incarnationOf(number)
	switch {
	case topicName == g.topic && !again:
		return partition, nil
	case g.topic == topic && topicName == recreated && again:
		return recreatedFrom + 10*int32(incarnation) + partition, nil
	}
	return 0, fmt.Errorf("event %d was not produced to topic %q", number, topicName)
}

// unfitName is the event name of rows that the service refuses.
const unfitName = "never_fits"

// numberHeader holds an event's number, for its dead letter.
const numberHeader = "chaos-number"

// generator makes the events of one seed and topic. An event follows from the seed and
// its number alone, so that nothing is stored to know what it was.
type generator struct {
	seed  uint64
	topic string
}

// random returns the random bits of one event: SplitMix64 over seed and number.
func (g generator) random(number uint32) uint64 {
	z := g.seed + (uint64(number)+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// kind returns what an event holds.
func (g generator) kind(number uint32) int {
	switch {
	case number >= recreatedNumbers:
		return fine
	case number >= arrayNumbers && number%2 == 0:
		return malformed
	case number >= arrayNumbers:
		return mixed
	}
	switch n := g.random(number) % 10_000; {
	case n < 20:
		return tombstone
	case n < 60:
		return malformed
	case n < 64:
		return unfit
	}
	return fine
}

var outcomes = [...]oracle.Kind{fine: oracle.Row, unfit: oracle.DeadLetter, malformed: oracle.DeadLetter, mixed: oracle.RowAndDeadLetter, tombstone: oracle.Filtered}

// outcome returns what an event must become, apart from its transaction.
func (g generator) outcome(number uint32) oracle.Kind { return outcomes[g.kind(number)] }

// record makes the Kafka record of an event.
func (g generator) record(number uint32) *kgo.Record {
	r := &kgo.Record{
		Key: fmt.Appendf(nil, "visitor-%d", g.random(number)%5000),
		Headers: []kgo.RecordHeader{
			{Key: numberHeader, Value: strconv.AppendUint(nil, uint64(number), 10)},
			{Key: "bytes", Value: []byte{0, 0xff, byte(number)}},
		},
	}
	switch g.kind(number) {
	case tombstone:
	case malformed:
		r.Value, _ = g.malformed(number)
	case mixed:
		before, after := g.around(number)
		r.Value = slices.Concat([]byte("["), bytes.Repeat([]byte("7,"), before), g.value(number), bytes.Repeat([]byte(",7"), after), []byte("]"))
	default:
		r.Value = g.value(number)
	}
	return r
}

// malformed returns the value of a malformed event, and the code under which it
// must be rejected.
func (g generator) malformed(number uint32) (value []byte, code string) {
	if number >= arrayNumbers {
		return slices.Concat([]byte("[{}"), bytes.Repeat([]byte(",7"), maxEvents+int(g.random(number)%100)), []byte("]")), "too_many_events"
	}
	faults := traffic.Faults()
	events := traffic.New(traffic.Config{Seed: g.random(number), MalformedEvery: 1})
	var e traffic.Event
	n := int(g.random(number)>>32) % len(faults)
	for range n + 1 { // the kinds take turns
		events.Next(&e)
	}
	return bytes.Clone(e.Value), faults[n].Code
}

// maxEvents is mapping.max_events_per_record, its default.
const maxEvents = 10_000

// around returns how many elements that are no events an array has before and
// after the one that is.
func (g generator) around(number uint32) (before, after int) {
	d := g.random(number)
	return int(1 + d>>8%300), int(1 + d>>24%300)
}

// fields returns what an event holds, by column of the table.
func (g generator) fields(number uint32) map[string]string {
	d := g.random(number)
	at := time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC).Add(time.Duration(number) * time.Millisecond)
	f := map[string]string{
		"event_type":      "track",
		"event_name":      []string{"order_completed", "product_viewed", "cart_updated"}[d%3],
		"message_id":      g.id(number),
		"anonymous_id":    fmt.Sprintf("a-%016x", d),
		"event_timestamp": strconv.FormatInt(at.UnixMicro(), 10),
		"ip_address":      fmt.Sprintf("203.0.113.%d", d>>8&255),
		"user_agent":      awkward[d>>16%uint64(len(awkward))] + strings.Repeat("x", int(d>>24&255)),
		"locale":          []string{"en-GB", "de-DE", "zh-Hant-TW"}[d>>32%3],
		"timezone":        "Europe/Berlin",
		"page_url":        fmt.Sprintf("https://shop.example/p/%d?q=%s", number, awkward[d>>40%uint64(len(awkward))]),
		"source_id":       fmt.Sprintf("s-%d", d>>48&7),
	}
	if d>>52&3 != 0 { // sometimes NULL
		f["user_id"] = fmt.Sprintf("u-%d", d%100_000)
	}
	if d>>54&3 == 0 {
		f["page_referrer"] = ""
	}
	if g.kind(number) == unfit {
		f["event_name"] = unfitName
	}
	return f
}

// awkward are texts that an encoder can get wrong.
var awkward = []string{
	"plain", `quote " and \ backslash`, "line\nbreak\ttab", "Grüße aus Köln", "𝄞 and 😀", "null\u0000byte", "<script>&amp;", "\u2028 separator", `{"a":1}`, "",
}

// value is the event as Signal writes it.
func (g generator) value(number uint32) []byte {
	f := g.fields(number)
	micros, _ := strconv.ParseInt(f["event_timestamp"], 10, 64) // written by fields
	page := map[string]any{"url": f["page_url"]}
	if r, ok := f["page_referrer"]; ok {
		page["referrer"] = r
	}
	e := map[string]any{
		"type": f["event_type"], "event": f["event_name"], "message_id": f["message_id"], "anonymous_id": f["anonymous_id"],
		"timestamp": time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000Z"),
		"source_id": f["source_id"],
		"context": map[string]any{
			"ip": f["ip_address"], "user_agent": f["user_agent"], "locale": f["locale"], "timezone": f["timezone"], "page": page,
		},
		"properties": map[string]any{"order_id": number, "note": "not a column"},
	}
	if u, ok := f["user_id"]; ok {
		e["user_id"] = u
	}
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	return text
}

// id is an event's message_id; number reads it back.
func (g generator) id(number uint32) string { return fmt.Sprintf("%016x-%08x", g.seed, number) }

func (g generator) number(id string) (uint32, bool) {
	head, tail, ok := strings.Cut(id, "-")
	n, err := strconv.ParseUint(tail, 16, 32)
	return uint32(n), ok && err == nil && head == fmt.Sprintf("%016x", g.seed)
}

// The table: the columns of the integration's page, and where a row came from.
const (
	tableName = "datafly.events.stream"
	tableDDL  = `CREATE TABLE datafly.events.stream (
  event_name STRING, event_type STRING, message_id STRING, user_id STRING, anonymous_id STRING, event_timestamp TIMESTAMP, ip_address STRING,
  user_agent STRING, locale STRING, timezone STRING, page_url STRING, page_referrer STRING, source_id STRING,
  source_topic STRING, source_partition INT, source_offset BIGINT, written_by STRING, edition INT)`
	changingColumn = "locale"
)

// blueprint has a member write its own name into its rows, and the edition of the
// blueprint that they were mapped by.
func blueprint(member string, edition int) string {
	return `version: 2
extends: default
global:
  mappings:
    - {source: $kafka.topic, target: source_topic}
    - {source: $kafka.partition, target: source_partition, type: INT}
    - {source: $kafka.offset, target: source_offset, type: BIGINT}
    - {source: nowhere.at_all, target: written_by, default_value: ` + member + `}
    - {source: nowhere.at_all, target: edition, type: INT, default_value: ` + strconv.Itoa(edition) + `}
`
}

// read parses a row and compares it with the event that it names.
func (g generator) read(text []byte) (r oracle.DeliveredRow, err error) {
	var columns map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&columns); err != nil {
		return r, fmt.Errorf("a row is not JSON: %w", err)
	}
	take := func(column string) string {
		defer delete(columns, column)
		if columns[column] == nil {
			return ""
		}
		return fmt.Sprint(columns[column])
	}
	from := take("source_topic")
	p, perr := strconv.ParseInt(take("source_partition"), 10, 32)
	o, oerr := strconv.ParseInt(take("source_offset"), 10, 64)
	r.Offset, r.Process = o, take("written_by")
	r.Edition, err = strconv.Atoi(take("edition"))
	id, _ := columns["message_id"].(string)
	number, ok := g.number(id)
	if !ok || perr != nil || oerr != nil || err != nil || o < 0 || p < 0 {
		return r, fmt.Errorf("a row of no event: message_id %q, partition %d, offset %d, edition %d", id, p, o, r.Edition)
	}
	r.Number = number
	if r.Partition, err = g.ledgerPartition(from, int32(p), number); err != nil {
		return r, fmt.Errorf("a row of partition %d, offset %d: %w", p, o, err)
	}
	for column, want := range g.fields(number) {
		if got, ok := columns[column]; !ok || fmt.Sprint(got) != want {
			r.Difference = fmt.Sprintf("column %s is %q, want %q", column, fmt.Sprint(got), want)
		}
		delete(columns, column)
	}
	for column, got := range columns {
		if got != nil {
			r.Difference = fmt.Sprintf("column %s is %q, want NULL", column, fmt.Sprint(got))
		}
	}
	return r, nil
}

// difference returns how a dead letter differs from the event that it names.
func (g generator) difference(number uint32, got *kgo.Record, code string) string {
	want := g.record(number)
	switch {
	case !bytes.Equal(got.Key, want.Key):
		return fmt.Sprintf("key %q, want %q", got.Key, want.Key)
	case !bytes.Equal(got.Value, want.Value) || (got.Value == nil) != (want.Value == nil):
		return fmt.Sprintf("value %.80q, want %.80q", got.Value, want.Value)
	case len(got.Headers) < len(want.Headers):
		return fmt.Sprintf("%d headers, want at least %d", len(got.Headers), len(want.Headers))
	}
	for i, h := range want.Headers {
		if have := got.Headers[i]; have.Key != h.Key || !bytes.Equal(have.Value, h.Value) {
			return fmt.Sprintf("header %d is %s=%q, want %s=%q", i, have.Key, have.Value, h.Key, h.Value)
		}
	}
	if g.kind(number) == mixed {
		before, after := g.around(number)
		want := fmt.Sprintf("%s,%s", span(0, before), span(before+1, after))
		if index := header(got, "bridge-event-index"); index != want || code != "not_object" {
			return fmt.Sprintf("events %s, code %s, want %s and not_object", index, code, want)
		}
	}
	if g.kind(number) == malformed {
		if _, want := g.malformed(number); code != want {
			return fmt.Sprintf("code %s, want %s", code, want)
		}
	}
	return ""
}

// header returns the last header of a name, or nothing.
func header(r *kgo.Record, key string) string {
	for _, h := range slices.Backward(r.Headers) {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// span is a run of events as a dead letter names it.
func span(first, n int) string {
	if n == 1 {
		return strconv.Itoa(first)
	}
	return fmt.Sprintf("%d-%d", first, first+n-1)
}
