package kafkatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
)

// A fixture's date must not decide whether a test passes. Old records and those of
// next year stay, on brokers that look for records to delete all the time.
func TestRecordsOfAnyDateAreKept(t *testing.T) {
	t.Parallel()
	o := kafkatest.Options{Private: true, Config: map[string]string{
		"log.initial.task.delay.ms": "100", "log.retention.check.interval.ms": "100", "log.cleaner.backoff.ms": "100",
	}}
	kafkatest.Each(t, o, func(t *testing.T, b kafkatest.Broker) {
		ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
		defer cancel()
		kept, deleted := kafkatest.Name(t), kafkatest.Name(t)
		b.CreateTopic(t, kept, 1, map[string]string{"segment.ms": "1000", "cleanup.policy": "compact,delete"})
		b.CreateTopic(t, deleted, 1, map[string]string{"retention.ms": "1000"})
		cl := client(t, b)
		defer cl.Close()
		now := time.Now()
		for i, years := range []int{-20, -1, 0, 1} { // each in a segment of its own
			for _, topic := range []string{deleted, kept} {
				rec := &kgo.Record{Topic: topic, Key: []byte{byte(i)}, Value: []byte("v"), Timestamp: now.AddDate(years, 0, 0)}
				if topic == deleted {
					rec.Timestamp = now.AddDate(-1, 0, 0)
				}
				if err := cl.ProduceSync(ctx, rec).FirstErr(); err != nil {
					t.Fatalf("a record dated %d years from now: %v", years, err)
				}
			}
		}
		adm := kadm.NewClient(cl)
		start := func(topic string) int64 {
			offsets, err := adm.ListStartOffsets(ctx, topic)
			if err == nil {
				err = offsets.Error()
			}
			if err != nil {
				t.Fatal(err)
			}
			o, _ := offsets.Lookup(topic, 0)
			return o.Offset
		}
		// Where a topic asks for deletion the broker deletes: it has looked.
		for start(deleted) == 0 {
			if err := ctx.Err(); err != nil {
				t.Fatal("the broker has not applied any retention")
			}
		}
		if got := start(kept); got != 0 {
			t.Errorf("the log starts at %d: records were deleted for their date", got)
		}
	})
}
