package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
)

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
