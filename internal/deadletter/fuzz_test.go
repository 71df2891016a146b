package deadletter_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/deadletter"
)

// headersOf makes headers of lines "key=value".
func headersOf(text string) []kgo.RecordHeader {
	var headers []kgo.RecordHeader
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		headers = append(headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	return headers
}

const wholeDeadLetter = "bridge-error-code=bad\nbridge-error-reason=r\nbridge-event-index=1,4\nbridge-event-count=5\nbridge-source-topic=t\nbridge-source-partition=3\n" +
	"bridge-source-offset=17\nbridge-source-timestamp=2026-03-04T09:00:00.000Z\nbridge-attempts=2\nbridge-failed-at=2026-03-04T09:00:01.000Z\nbridge-version=1.2.3"

// Whatever the headers say, a dead letter is read: it is whole, and then its
// original can be made, or Fault is why not.
func FuzzDeadLetter(f *testing.F) {
	f.Add(wholeDeadLetter)
	f.Add("h=1\n" + wholeDeadLetter)
	f.Add(wholeDeadLetter + "\n" + wholeDeadLetter)
	f.Add(wholeDeadLetter + "\nstranger=1")
	f.Add("bridge-error-code=bad")
	f.Add(strings.ReplaceAll(wholeDeadLetter, "1,4", "4,1"))
	f.Add(strings.ReplaceAll(wholeDeadLetter, "=17", "=-17"))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		headers := headersOf(text)
		l := deadletter.Parse(&kgo.Record{Topic: "t-dlq", Offset: 5, Headers: headers, Value: []byte("v")})
		if l.Original == nil || string(l.Original.Value) != "v" || l.Offset != 5 {
			t.Fatalf("got dead letter %+v of %q, want the record's own", l, text)
		}
		if l.Original.Partition < 0 || l.Original.Offset < 0 || l.EventCount < 0 || l.Attempts < 0 || len(l.Original.Headers) > len(headers) {
			t.Errorf("got %+v, original %+v of %q, want no negative numbers and no more headers", l, l.Original, text)
		}
		if l.Fault != "" {
			return
		}
		if l.Code == "" || l.Original.Topic == "" || l.Original.Timestamp.IsZero() && !strings.Contains(text, "0001-01-01") || l.Events.Count() == 0 || l.Events.Count() > 1<<20 || l.Events[0].First < 0 {
			t.Errorf("got no fault, and %+v, original %+v of %q", l, l.Original, text)
		}
	})
}

// What a marker's list is understood to say can be written and read again, and
// never resolves a dead letter at or behind the marker.
func FuzzMarker(f *testing.F) {
	for _, list := range []string{"17", "17,20-45", "17,20-45,51:0+3", "0-9223372036854775807", "5-4", "3,3", "1:", "-1", "1-2:0", "1:3+1", ","} {
		f.Add(list, int64(60))
	}
	f.Fuzz(func(t *testing.T, list string, at int64) {
		again, whole := deadletter.Marked(list, at)
		if whole == nil {
			return
		}
		if once, _ := deadletter.Marked(again, at); once != again {
			t.Errorf("list %q: got %q and, read again, %q", list, again, once)
		}
		if whole(at) {
			t.Errorf("list %q at %d resolves the dead letter at the marker itself", list, at)
		}
	})
}

func TestMarkerResolves(t *testing.T) {
	again, whole := deadletter.Marked("17,20-45,51:0+3", 60)
	if again != "17,20-45,51:0+3" {
		t.Fatalf("got %q", again)
	}
	for offset, want := range map[int64]bool{0: false, 16: false, 17: true, 18: false, 19: false, 20: true, 33: true, 45: true, 46: false, 51: false} {
		if got := whole(offset); got != want {
			t.Errorf("dead letter %d: got resolved %v, want %v", offset, got, want)
		}
	}
	for _, list := range []string{"", "60", "59-60", "x", "1,", "2,1", "5-5", "5-4", "+1", "-1", "1:", "1:0,0:", "1-2:0", "1:3+1", "1:+0", "1:0+", "99999999999999999999"} {
		if again, _ := deadletter.Marked(list, 60); again != "" {
			t.Errorf("list %q: got %q, want it not believed", list, again)
		}
	}
}

// The dead letter of a record brings the record back, to the byte.
func TestDeadLetterBringsTheRecordBack(t *testing.T) {
	ours := makeDeadLetter(&kgo.Record{Topic: "a", Value: []byte("bad")}, toRow).Headers
	for _, tc := range []struct {
		name    string
		headers []kgo.RecordHeader
	}{
		{"none", nil},
		{"some", []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h"}, {Key: ""}}},
		{"ours, from a dead letter that was copied back", append([]kgo.RecordHeader{{Key: "h"}}, ours...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rec := &kgo.Record{Topic: "events", Partition: 7, Offset: 1 << 40, Timestamp: time.UnixMilli(1_790_000_000_123).UTC(),
				Key: []byte{0, 0xff}, Value: []byte("many good bad1 good bad3"), Headers: tc.headers}
			l := deadletter.Parse(makeDeadLetter(rec, toRow))
			if got, want := fmt.Sprintf("%+v", *l.Original), fmt.Sprintf("%+v", *rec); got != want {
				t.Errorf("got original\n%s, want\n%s", got, want)
			}
			if l.Fault != "" || l.Code != "bad" || l.Events.String() != "1,3" || l.EventCount != 4 || l.Version != "1.2.3" || l.Group != "g" || l.FailedAt.Unix() != 1_800_000_000 {
				t.Errorf("got %+v", l)
			}
		})
	}
}
