package consumer_test

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
)

// strict is a sink that refuses each Write holding a failing row, by offset.
type strict struct {
	failing   map[int]bool
	delivered []int
	writes    int
	largest   int
}

// Probe is Write.
func (s *strict) Probe(ctx context.Context, schemaVersion int64, rows [][]byte) (int, error) {
	return s.Write(ctx, schemaVersion, rows)
}

func (s *strict) Write(_ context.Context, _ int64, rows [][]byte) (int, error) {
	s.writes++
	s.largest = max(s.largest, len(rows))
	var batch []int
	for _, row := range rows {
		offset, err := strconv.Atoi(strings.Split(string(row), ":")[1])
		if err != nil {
			return 1, fmt.Errorf("a row that is not ours: %s", row)
		}
		if s.failing[offset] {
			return 1, &refusal{"schema_mismatch"}
		}
		batch = append(batch, offset)
	}
	s.delivered = append(s.delivered, batch...)
	return 1, nil
}

func splitting(t *testing.T, rows, maxRows int, failing []int) {
	t.Helper()
	sink := &strict{failing: map[int]bool{}}
	for _, i := range failing {
		sink.failing[i] = true
	}
	recs := make([]*kgo.Record, rows)
	for i := range recs {
		recs[i] = &kgo.Record{Topic: "lab", Offset: int64(i), Value: []byte("e")}
	}
	cfg := consumer.Config{Delivery: consumer.Delivery{MaxRows: maxRows, MaxBytes: 1 << 30, MaxBuffered: 1 << 40}}
	rejected, err := consumer.WriteBatch(cfg, sink, toRow, newCounts(), recs)
	if err != nil {
		t.Fatalf("%d rows, %d failing: %v", rows, len(failing), err)
	}
	rows = min(rows, maxRows) // what does not fit is the next batch's
	var wantRejected, wantDelivered []int
	for i := range rows {
		if sink.failing[i] {
			wantRejected = append(wantRejected, i)
		} else {
			wantDelivered = append(wantDelivered, i)
		}
	}
	if !slices.Equal(rejected, wantRejected) {
		t.Errorf("%d rows: rejected %v, want exactly the failing ones %v", rows, rejected, wantRejected)
	}
	if !slices.Equal(sink.delivered, wantDelivered) {
		t.Errorf("%d rows, failing %v: %d delivered, want %d, each once and in order", rows, wantRejected, len(sink.delivered), len(wantDelivered))
	}
	if sink.largest > maxRows {
		t.Errorf("a Write has %d rows, want at most %d", sink.largest, maxRows)
	}
	// Each failing row costs two Writes per level of the splitting at most.
	levels := bits.Len(uint(rows - 1))
	if most := 1 + 2*levels*len(wantRejected); sink.writes > most {
		t.Errorf("%d rows, %d failing: got %d Writes, want at most %d", rows, len(wantRejected), sink.writes, most)
	}
}

func TestHalving(t *testing.T) {
	for _, tc := range []struct {
		rows    int
		failing []int
	}{
		{1, nil}, {1, []int{0}}, {2, []int{1}}, {3, []int{0, 2}}, {5000, []int{0}}, {5000, []int{4999}}, {5000, []int{2500}},
		{5000, nil}, {4999, []int{1, 2, 3, 4997}}, {64, []int{0, 1, 2, 3, 4, 5, 6, 7}}, {40, seq(40)},
	} {
		t.Run(fmt.Sprintf("%d rows, failing %v", tc.rows, tc.failing[:min(len(tc.failing), 4)]), func(t *testing.T) {
			splitting(t, tc.rows, 5000, tc.failing)
		})
	}
}

func seq(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// Whatever the failing set, splitting isolates it exactly. 49 failing rows are the
// most that are never called a schema fault.
func FuzzHalving(f *testing.F) {
	f.Add(uint16(1), uint16(1), []byte{0, 0})
	f.Add(uint16(100), uint16(10), []byte{0, 5, 0, 6, 0, 99})
	f.Add(uint16(3000), uint16(5000), []byte{11, 0xff, 0, 0, 4, 4})
	f.Add(uint16(777), uint16(777), []byte("any bytes will do as the failing set"))
	f.Fuzz(func(t *testing.T, rows, maxRows uint16, set []byte) {
		n := int(rows)%4000 + 1
		var failing []int
		for i := 0; i+1 < len(set) && len(failing) < 49; i += 2 {
			failing = append(failing, (int(set[i])<<8|int(set[i+1]))%n)
		}
		slices.Sort(failing)
		splitting(t, n, int(maxRows)%6000+1, slices.Compact(failing))
	})
}

func TestWindow(t *testing.T) {
	type step struct {
		accept, refuse int
	}
	for name, tc := range map[string]struct {
		steps []step
		fault bool
	}{
		"49 refused of 49":                   {[]step{{0, 49}}, false},
		"50 refused of 50":                   {[]step{{0, 50}}, true},
		"50 refused of 100":                  {[]step{{50, 50}}, true},
		"50 refused of 101":                  {[]step{{51, 50}}, false},
		"99 refused of 200":                  {[]step{{101, 99}}, false},
		"100 refused of 200":                 {[]step{{100, 100}}, true},
		"after a long good time":             {[]step{{1_000_000, 99}}, false},
		"long enough after a long good time": {[]step{{1_000_000, 100}}, true},
		"an earlier burst is forgotten":      {[]step{{0, 49}, {200, 50}}, false},
		"every third row":                    {repeat(step{2, 1}, 300), false},
		"every other row":                    {repeat(step{1, 1}, 300), true},
		"poison is spread thin":              {repeat(step{1000, 40}, 20), false},
	} {
		t.Run(name, func(t *testing.T) {
			var w consumer.Window
			fault := false
			for _, s := range tc.steps {
				w.Accept(s.accept)
				for range s.refuse {
					fault = w.Refuse() || fault
				}
			}
			if fault != tc.fault {
				t.Errorf("schema fault: got %v, want %v", fault, tc.fault)
			}
		})
	}
}

func repeat[T any](v T, n int) []T { return slices.Repeat([]T{v}, n) }

// A batch is one Write where its events become much larger as rows, or many of them: a
// remainder of a few rows would take as long to be acknowledged.
func TestBatchesHaveNoRemainder(t *testing.T) {
	const events, each = 300, 7 // rows of each
	mapper := func(rec *kgo.Record, out *consumer.Batch) {
		for range each {
			out.Row(fmt.Appendf(out.Buf(), "row:%d:%0100d", rec.Offset, 0))
		}
	}
	recs := make([]*kgo.Record, events)
	for i := range recs {
		recs[i] = &kgo.Record{Topic: "lab", Offset: int64(i), Value: []byte("e")}
	}
	for name, limits := range map[string]consumer.Delivery{
		"rows":  {MaxRows: 1000, MaxBytes: 1 << 30},
		"bytes": {MaxRows: 1 << 20, MaxBytes: 100_000},
	} {
		t.Run(name, func(t *testing.T) {
			limits.MaxBuffered = 1 << 40
			sink := &strict{}
			if _, err := consumer.WriteBatch(consumer.Config{Delivery: limits}, sink, mapper, newCounts(), recs); err != nil {
				t.Fatal(err)
			}
			if sink.writes != 1 || len(sink.delivered) < 850 {
				t.Errorf("%d rows in %d Writes, want at least 850 in one", len(sink.delivered), sink.writes)
			}
		})
	}
}
