package main

import (
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"

	"github.com/datafly/bridge/internal/terminal"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestProgressLineFitsATerminal(t *testing.T) {
	var pc terminal.Pace
	pc.Note(noon, 0)
	pc.Note(noon.Add(2*time.Second), 5000)
	for _, tc := range []struct {
		p    consumer.Progress
		want string
	}{
		{consumer.Progress{Total: 10_000, Done: 5000, Partitions: 4, Reached: 1}, "[==========          ]  50.0%  2500 events/s  ETA 2s  lag 5000"},
		{consumer.Progress{Partitions: 1}, "[                    ]   0.0%  2500 events/s  ETA -  lag 0"},
		{consumer.Progress{Total: 10_000, Done: 10_000, Partitions: 4, Reached: 3}, "[=================== ]  99.9%  2500 events/s  ETA -  lag 0"},
		{consumer.Progress{Total: 10_000, Done: 10_000, Partitions: 4, Reached: 4}, "[====================] 100.0%  2500 events/s  ETA -  lag 0"},
	} {
		got := progressLine(tc.p, &pc)
		if got != tc.want || len(got) > 80 {
			t.Errorf("%+v: got %q, want %q", tc.p, got, tc.want)
		}
	}
}
