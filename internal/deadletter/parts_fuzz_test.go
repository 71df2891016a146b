package deadletter_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/deadletter"
)

// Whatever parts say and hold, what they make is bounded; cut at any size, a
// dead letter comes back as it was.
func FuzzParts(f *testing.F) {
	whole := []byte{2, 'k', 4, 'v', 'v', 2, 2, 'h', 1}
	f.Add("1/2", "2/2", "name", whole, uint8(3))
	f.Add("2/2", "1/2", "name", []byte{}, uint8(1))
	f.Add("1/1048576", "2/1048576", "", bytes.Repeat([]byte{0}, 300), uint8(200))
	f.Add("0/0", "-1/2", "x", []byte{1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f}, uint8(2))
	f.Fuzz(func(t *testing.T, one, two, name string, value []byte, size uint8) {
		const most = 4 << 10
		record := func(number, name string) *kgo.Record {
			return &kgo.Record{Value: value, Headers: []kgo.RecordHeader{{Key: consumer.HeaderPart, Value: []byte(number)}, {Key: consumer.HeaderPartOf, Value: []byte(name)}}}
		}
		for _, l := range deadletter.Assemble(t, most, record(one, name), record(two, name), record(one, two), record(two, one)) {
			if l.Original == nil || l.Parts < 1 {
				t.Errorf("got %+v, want a dead letter in parts", l)
			}
		}
		deadLetter := &kgo.Record{Topic: "t-dlq", Key: []byte(one), Value: value, Headers: headersOf(two)}
		for _, l := range deadletter.Assemble(t, 1<<20, split(deadLetter, int(size)+1)...) {
			if !bytes.Equal(l.Original.Key, deadLetter.Key) || !bytes.Equal(l.Original.Value, value) || len(l.Headers) != len(deadLetter.Headers) {
				t.Errorf("got %+v, want what was cut", l)
			}
		}
		if len(value) > 0 { // bytes that are no dead letter, under their right name
			for _, l := range deadletter.Assemble(t, 1<<20, partsOfBytes(deadLetter, value, int(size)+1)...) {
				if n := len(l.Original.Headers); n > len(value) {
					t.Errorf("got %d headers of %d bytes", n, len(value))
				}
			}
		}
	})
}

// Parts of more dead letters at a time than are held give up the one that has
// waited longest, with the reason.
func TestPartsAreHeldWithinABound(t *testing.T) {
	var parts []*kgo.Record
	for i := range 5 {
		deadLetter := makeDeadLetter(&kgo.Record{Topic: "t", Offset: int64(i), Value: append([]byte("bad"), bytes.Repeat([]byte{byte(i)}, 3000)...)}, toRow)
		parts = append(parts, split(deadLetter, 2000)...)
	}
	var mingled []*kgo.Record
	for _, half := range []int{0, 1} {
		for i := half; i < len(parts); i += 2 {
			mingled = append(mingled, parts[i])
		}
	}
	whole, broken := 0, 0
	for _, l := range deadletter.Assemble(t, 8000, mingled...) {
		if l.Fault == "" {
			whole++
		} else {
			broken++
		}
	}
	if whole == 0 || broken == 0 || whole+broken < 5 {
		t.Errorf("got %d whole and %d given up of five, want some of each and none without a word", whole, broken)
	}
	if all := deadletter.Assemble(t, 1<<20, mingled...); len(all) != 5 || all[0].Fault != "" {
		t.Errorf("with enough memory: got %d dead letters, want all five", len(all))
	}
}

// However small those are that have waited longest, giving them up makes room.
func TestSmallPartsLeaveNoRoomForLargeOnes(t *testing.T) {
	const most = 64 << 10
	var firsts []*kgo.Record
	for i := range 200 {
		size := 100
		if i >= 50 {
			size = 10_000
		}
		deadLetter := makeDeadLetter(&kgo.Record{Topic: "t", Offset: int64(i), Value: append([]byte("bad"), make([]byte, size)...)}, toRow)
		firsts = append(firsts, split(deadLetter, size)[0])
	}
	deadLetters := deadletter.Assemble(t, most, firsts...)
	if len(deadLetters) != len(firsts) {
		t.Errorf("got %d dead letters, want all %d given up", len(deadLetters), len(firsts))
	}
	// Nor are there very many of those that hold next to nothing.
	firsts = firsts[:0]
	for i := range 3000 {
		deadLetter := makeDeadLetter(&kgo.Record{Topic: "t", Offset: int64(i), Value: []byte("bad")}, toRow)
		firsts = append(firsts, split(deadLetter, 50)[0])
	}
	early := 0
	for _, l := range deadletter.Assemble(t, 64<<20, firsts...) {
		if strings.Contains(l.Fault, "1024 others have begun") {
			early++
		}
	}
	if want := len(firsts) - 1024; early != want {
		t.Errorf("got %d given up for their number, want %d", early, want)
	}
}
