package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
)

func TestReportsArePaintedByWholeLinesAlone(t *testing.T) {
	const report = "NOT READY running\nready      running\nREADY\n\nCODE  COLUMN  LETTERS\nbad   NOT READY  1\nWARNING: 2 events\nTHE END\n0  A  B\n"
	const want = "\x1b[31mNOT READY\x1b[0m running\n\x1b[32mready \x1b[0m     running\nREADY\n\n\x1b[1mCODE  COLUMN  LETTERS\x1b[0m\nbad   NOT READY  1\n\x1b[33mWARNING:\x1b[0m 2 events\nTHE END\n0  A  B\n"
	if got := (style{colour: true}).table(report); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (style{}).table(report); got != report {
		t.Errorf("got %q, want it as it was", got)
	}
}

func TestLogFormatFollowsTheOutput(t *testing.T) {
	for given, want := range map[string]string{"auto": "json", "json": "json", "console": "console"} {
		if got := logFor(config.Log{Format: given}, &bytes.Buffer{}).Format; got != want {
			t.Errorf("log.format %s in a pipe: got %s, want %s", given, got, want)
		}
	}
}

func TestSummaryLine(t *testing.T) {
	partition := func(lag int64, oldest time.Duration) consumer.PartitionStatus {
		return consumer.PartitionStatus{Lag: lag, Oldest: consumer.Seconds(oldest)}
	}
	ready := ops.Snapshot{Ready: true, State: ops.StateRunning, Sink: zerobus.State{Name: "ready"}, BufferedBytes: 1 << 20, BufferedLimit: 64 << 20,
		Partitions: []consumer.PartitionStatus{partition(7, 0), partition(5, 300*time.Millisecond)}}
	blocked := ready
	blocked.Ready, blocked.Sink.Name = false, "blocked"
	blocked.NotReady = []consumer.NotReady{{Code: "sink_blocked"}, {Code: "partition_stuck"}, {Code: "third"}}
	blocked.Partitions = []consumer.PartitionStatus{partition(7, 90*time.Second), partition(-1, 0)}
	starting := ops.Snapshot{State: ops.StateStarting, Sink: zerobus.State{Name: "starting"}, NotReady: []consumer.NotReady{{Code: "kafka_unreachable"}}}
	for _, tc := range []struct {
		s    ops.Snapshot
		want string
	}{
		{ready, "running  120 events/s  lag 12  sink ready  buffer 1%  partitions 2"},
		{blocked, "sink_blocked, partition_stuck  120 events/s  lag 7+  sink blocked  oldest 1m30s  buffer 1%  partitions 2"},
		{starting, "starting  120 events/s  lag -  sink starting  partitions 0"},
	} {
		if got := summaryLine(tc.s, 120); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestTintKeepsTheText(t *testing.T) {
	look := style{colour: true}
	for _, line := range []string{"", "[", "[=", "[===  ]  30%", "running  1 events/s", "starting  0", "one word", "[ ]"} {
		got := strings.NewReplacer("\x1b[32m", "", "\x1b[33m", "", "\x1b[0m", "").Replace(look.tint(line))
		if got != line {
			t.Errorf("got %q of %q, want the text kept", got, line)
		}
	}
}
