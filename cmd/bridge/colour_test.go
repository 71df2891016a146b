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
	status := func(sink string, reasons []string, parts ...consumer.PartitionStatus) ops.IntegrationStatus {
		i := ops.IntegrationStatus{Integration: "default", State: ops.StateRunning, Sink: zerobus.State{Name: sink}, BufferedBytes: 1 << 20, Partitions: parts}
		for _, code := range reasons {
			i.NotReady = append(i.NotReady, consumer.NotReady{Code: code})
		}
		return i
	}
	of := func(all ...ops.IntegrationStatus) ops.Status {
		return ops.NewStatus(ops.Status{BufferedLimit: 64 << 20}, all)
	}
	ready := status("ready", nil, partition(7, 0), partition(5, 300*time.Millisecond))
	blocked := status("blocked", []string{"sink_blocked", "partition_stuck", "third"}, partition(7, 90*time.Second), partition(-1, 0))
	starting := ops.IntegrationStatus{State: ops.StateStarting, Sink: zerobus.State{Name: "starting"}, NotReady: []consumer.NotReady{{Code: "kafka_unreachable"}}}
	for _, tc := range []struct {
		s    ops.Status
		want string
	}{
		{of(ready, blocked), "sink_blocked, partition_stuck  120 events/s  lag 19+  1 of 2 integrations ready  oldest 1m30s  buffer 3%  partitions 4"},
		{of(ready), "running  120 events/s  lag 12  sink ready  buffer 1%  partitions 2"},
		{of(blocked), "sink_blocked, partition_stuck  120 events/s  lag 7+  sink blocked  oldest 1m30s  buffer 1%  partitions 2"},
		{of(starting), "starting  120 events/s  lag -  sink starting  buffer 0%  partitions 0"},
	} {
		if got := summaryLine(tc.s, 120); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}
