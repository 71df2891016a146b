package deadletter_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafkatest"
)

func TestNewestDeadLetters(t *testing.T) {
	t.Parallel()
	kafkatest.Each(t, kafkatest.Options{}, func(t *testing.T, b kafkatest.Broker) {
		var recs []*kgo.Record
		for i := range 30 {
			recs = append(recs, &kgo.Record{Partition: int32(i % 2), Offset: int64(i), Value: fmt.Appendf(nil, "bad%02d", i)})
		}
		box := newDeadLetterBox(t, b, 2, recs...)
		newest := func(limit int) (texts []string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
			if err != nil {
				t.Fatal(err)
			}
			found, err := deadLetters.Newest(ctx, limit)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := deadLetters.Partial(), limit < 30; got != want {
				t.Errorf("limit %d: got partial %v, want %v", limit, got, want)
			}
			for i, l := range found {
				texts = append(texts, string(l.Original.Value))
				if l.Code != "bad" || l.Resolved || i > 0 && l.Partition == found[i-1].Partition && l.Offset > found[i-1].Offset {
					t.Errorf("dead letter %d: got %+v, want code bad, not resolved, newest first", i, l)
				}
			}
			return texts
		}
		if got := newest(100); len(got) != 30 {
			t.Errorf("got %d dead letters, want all 30", len(got))
		}
		if got := newest(4); len(got) != 4 {
			t.Errorf("got %d dead letters, want 4", len(got))
		}
		// What was delivered is left out, also where its marker is all that is new.
		box.mustRedrive(deadletter.RedriveOptions{Mapper: refusing("bad1"), Sink: newTable(t)})
		for _, text := range newest(100) {
			if text < "bad10" || text > "bad19" {
				t.Errorf("got %s, which was delivered", text)
			}
		}
		if got := newest(100); len(got) != 10 {
			t.Errorf("got %d dead letters after the redrive, want the 10 that are rejected still", len(got))
		}
	})
}

// Dead letters of a megabyte each are held in tens, not in hundreds.
func TestNewestDeadLettersAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	const size, most = 900 << 10, 32 << 20
	box := newDeadLetterBox(t, kafkatest.StartFake(t, kafkatest.Options{}), 1)
	for i := range 80 { // one by one: a batch has a bound, too
		box.add(refusing("bad"), &kgo.Record{Offset: int64(i), Value: fmt.Appendf(make([]byte, 0, size), "bad%02d%0*d", i, size-5, 0)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
	if err != nil {
		t.Fatal(err)
	}
	found, err := deadLetters.Newest(ctx, 500)
	if err != nil {
		t.Fatal(err)
	}
	if !deadLetters.Partial() {
		t.Error("got a complete list, want what was left out to be reported")
	}
	if n := len(found); n < 30 || n > most/size {
		t.Fatalf("got %d dead letters of %d bytes, want as many as fit into %d", n, size, most)
	}
	for i, l := range found {
		if got, want := string(l.Original.Value[:5]), fmt.Sprintf("bad%02d", 79-i); got != want {
			t.Fatalf("dead letter %d: got %s, want %s, newest first", i, got, want)
		}
	}
}

// A dead letter in more parts than dead letters are asked for is among the newest.
func TestNewestDeadLetterInManyParts(t *testing.T) {
	box := newDeadLetterBox(t, kafkatest.StartFake(t, kafkatest.Options{}), 1)
	box.add(refusing("bad"), &kgo.Record{Offset: 1, Value: []byte("bad-older")})
	deadLetter := makeDeadLetter(&kgo.Record{Topic: box.cfg.Topics[0], Offset: 2, Value: []byte("bad" + noise(5000))}, toRow)
	parts := split(deadLetter, 500)
	for _, part := range parts {
		produceRecords(t, box.b, &kgo.Record{Topic: box.dlq(), Value: part.Value, Headers: part.Headers})
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	deadLetters, err := deadletter.Open(ctx, box.cl, box.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for limit := 1; limit < len(parts); limit++ {
		found, err := deadLetters.Newest(ctx, limit)
		if err != nil || len(found) != 1 || found[0].Fault != "" || found[0].Original.Offset != 2 {
			t.Fatalf("limit %d: got %d dead letters %+v, %v, want the one in %d parts", limit, len(found), found, err, len(parts))
		}
	}
}
