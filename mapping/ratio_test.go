//go:build unix

package mapping_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/datafly/bridge/mapping"
)

// cpu returns the processor time this process has taken, which other work on
// the machine does not count into.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAgainstJSONText runs the mapper and a jsontext streaming extraction
// of the same 13 columns in turns, so that both meet the same moods of the
// machine, and reports the median ratio of the processor time they take. The
// second ratio is against jsontext with its check for duplicate names turned off.
// The goal for the first is 0.48; above 0.6 something is wrong.
func BenchmarkAgainstJSONText(b *testing.B) {
	events := benchEvents(1000)
	mapper, out := defaultMapper(b), &discard{}
	ours := func() {
		rec := mapping.Record{Topic: "t"}
		for _, e := range events {
			rec.Value = e
			mapper.Map(&rec, out)
		}
	}
	strict, loose := &streaming{}, &streaming{opts: []jsontext.Options{jsontext.AllowDuplicateNames(true)}}
	for i, e := range events { // the two must agree before they are compared
		mapper.Map(&mapping.Record{Value: e}, out)
		if row := strict.row(e); !bytes.Equal(row, out.buf) {
			b.Fatalf("event %d: got\n%s\nwant\n%s", i, out.buf, row)
		}
	}
	var a, c []float64
	var nsOurs, nsStrict []float64
	for b.Loop() {
		t0 := cpu(b)
		ours()
		t1 := cpu(b)
		strict.all(events)
		t2 := cpu(b)
		loose.all(events)
		t3 := cpu(b)
		a = append(a, float64(t1-t0)/float64(t2-t1))
		c = append(c, float64(t1-t0)/float64(t3-t2))
		nsOurs = append(nsOurs, float64(t1-t0)/float64(len(events)))
		nsStrict = append(nsStrict, float64(t2-t1)/float64(len(events)))
	}
	b.ReportMetric(median(a), "ratio")
	b.ReportMetric(median(c), "ratio-dup-unchecked")
	b.ReportMetric(median(nsOurs), "ns/event")
	b.ReportMetric(median(nsStrict), "ns/event-jsontext")
}

func median(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }

// BenchmarkFormats maps the same events into JSON and into protobuf in turns
// and reports the median ratios of the processor time they take: protobuf to
// JSON, and protobuf to jsontext making JSON. The goals are less than 1 and
// 0.32; three quarters of the time is the scan of the event, which both share.
func BenchmarkFormats(b *testing.B) {
	events := benchEvents(1000)
	w := twinsOf(b, "", mapping.Options{ClusterID: "bench"})
	for _, e := range events[:20] { // the two must agree before they are compared
		w.check(b, e)
	}
	text := &streaming{}
	out := &discard{}
	run := func(m *mapping.Mapper) (size int) {
		rec := mapping.Record{Topic: "t"}
		for _, e := range events {
			rec.Value = e
			m.Map(&rec, out)
			size += len(out.buf)
		}
		return size
	}
	var ratio, against, nsWire, nsJSON []float64
	var wireSize, jsonSize int
	for b.Loop() {
		t0 := cpu(b)
		wireSize = run(w.protobuf)
		t1 := cpu(b)
		jsonSize = run(w.json)
		t2 := cpu(b)
		text.all(events)
		t3 := cpu(b)
		ratio = append(ratio, float64(t1-t0)/float64(t2-t1))
		against = append(against, float64(t1-t0)/float64(t3-t2))
		nsWire = append(nsWire, float64(t1-t0)/float64(len(events)))
		nsJSON = append(nsJSON, float64(t2-t1)/float64(len(events)))
	}
	b.ReportMetric(median(ratio), "ratio")
	b.ReportMetric(median(against), "ratio-jsontext")
	b.ReportMetric(median(nsWire), "ns/event")
	b.ReportMetric(median(nsJSON), "ns/event-json")
	b.ReportMetric(float64(wireSize)/float64(len(events)), "B/row")
	b.ReportMetric(float64(jsonSize)/float64(len(events)), "B/row-json")
}

// streaming is what a careful user of jsontext would write for the default
// columns: one pass over the tokens, raw copies, no values in between.
type streaming struct {
	dec  jsontext.Decoder
	src  bytes.Buffer
	opts []jsontext.Options
	cols [13][]byte
	buf  []byte
}

var streamColumns = [13]string{"event_name", "event_type", "message_id", "user_id", "anonymous_id", "event_timestamp",
	"ip_address", "user_agent", "locale", "timezone", "page_url", "page_referrer", "source_id"}

func (s *streaming) all(events [][]byte) {
	for _, e := range events {
		s.row(e)
	}
}

func (s *streaming) row(e []byte) []byte {
	s.src = *bytes.NewBuffer(e)
	s.dec.Reset(&s.src, s.opts...)
	for i := range s.cols {
		s.cols[i] = s.cols[i][:0]
	}
	s.object("")
	if _, err := s.dec.ReadToken(); !errors.Is(err, io.EOF) {
		panic(err)
	}
	dst := append(s.buf[:0], '{')
	for i, c := range s.cols {
		if len(c) == 0 {
			continue
		}
		dst = append(dst, '"')
		dst = append(dst, streamColumns[i]...)
		dst = append(dst, '"', ':')
		switch i {
		case 0:
			if bytes.ContainsAny(c, " ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
				c = bytes.ToLower(bytes.ReplaceAll(c, []byte(" "), []byte("_")))
			}
			dst = append(dst, c...)
		case 5:
			t, err := time.Parse(time.RFC3339, string(c[1:len(c)-1]))
			if err != nil {
				panic(err)
			}
			dst = strconv.AppendInt(dst, t.UnixMicro(), 10)
		default:
			dst = append(dst, c...)
		}
		dst = append(dst, ',')
	}
	dst[len(dst)-1] = '}'
	s.buf = dst
	return dst
}

func (s *streaming) object(in string) {
	must(s.dec.ReadToken())
	for s.dec.PeekKind() != '}' {
		name := must(s.dec.ReadToken())
		col := -1
		switch in {
		case "":
			switch key := name.String(); key {
			case "event":
				col = 0
			case "type":
				col = 1
			case "message_id":
				col = 2
			case "user_id":
				col = 3
			case "anonymous_id":
				col = 4
			case "timestamp":
				col = 5
			case "source_id":
				col = 12
			case "context":
				s.object("context")
				continue
			}
		case "context":
			switch key := name.String(); key {
			case "ip":
				col = 6
			case "user_agent":
				col = 7
			case "locale":
				col = 8
			case "timezone":
				col = 9
			case "page":
				s.object("page")
				continue
			}
		case "page":
			switch key := name.String(); key {
			case "url":
				col = 10
			case "referrer":
				col = 11
			}
		}
		v := must(s.dec.ReadValue())
		if col >= 0 {
			s.cols[col] = append(s.cols[col], v...)
		}
	}
	must(s.dec.ReadToken())
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
