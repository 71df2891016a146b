package main

import (
	"testing"
	"time"
)

func TestPartitionOfARow(t *testing.T) {
	for body, want := range map[string]int{
		`{"rows":[{"message_id":"s-17-3"},{"message_id":"s-18-4"}]}`: 17,
		`{"rows":[{"event_name":"x","message_id":"s-0-0"}]}`:         0,
		`{"rows":[{"message_id":"s-x-3"}]}`:                          -1,
		`{"rows":[{"message_id":"another"}]}`:                        -1,
		`{"rows":[]}`:                                                -1,
	} {
		got, ok := partitionOf([]byte(body))
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%s: got partition %d, %v; want %d", body, got, ok, want)
		}
	}
}

func TestHandoversAreNoted(t *testing.T) {
	at := time.Unix(1000, 0)
	var o owners
	o.note(1, "a", at)
	o.note(2, "a", at)
	o.note(1, "a", at.Add(time.Second))
	o.note(1, "b", at.Add(3*time.Second))
	if len(o.moves) != 1 || len(o.last) != 2 {
		t.Fatalf("got %d handovers of %d partitions, want 1 of 2", len(o.moves), len(o.last))
	}
	want := handover{Partition: 1, From: "a", To: "b", Last: at.Add(time.Second), First: at.Add(3 * time.Second)}
	if o.moves[0] != want {
		t.Errorf("got %+v, want %+v", o.moves[0], want)
	}
}

func TestSpanOfTimes(t *testing.T) {
	got := spanOf([]time.Duration{4, 9, 1})
	if want := (span{Count: 3, P50: 4, Max: 9}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := spanOf(nil); got != (span{}) {
		t.Errorf("of nothing: got %+v", got)
	}
}
