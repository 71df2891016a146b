package pipeline

import (
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
)

// pollTimeout is how long the poll loop may make no progress with buffer to spare
// before the process is reported dead. A poll takes at most a few seconds.
const pollTimeout = 2 * time.Minute

// Status returns the pipeline's part of /status. What belongs to the process is
// left empty. It never waits for Kafka or the sink.
func (p *Pipeline) Status() ops.Snapshot {
	s := ops.Snapshot{
		Version: p.deps.Version, Group: p.kafka.Group, State: p.state.Load().(string), Started: p.started, Live: true,
		Sink:          p.client.State(),
		BufferedLimit: int64(p.kafka.MaxBuffered),
		Totals:        p.deps.Metrics.Totals(),
		Config:        p.Settings().Redacted(),
	}
	if s.Sink.Name == zerobus.Blocked {
		s.NotReady = append(s.NotReady, consumer.NotReady{Code: "sink_blocked", Text: s.Sink.Reason, Remedy: s.Sink.Remedy})
	}
	if w := p.waiting.Load(); w != nil {
		s.NotReady = append(s.NotReady, *w)
	}
	if g := p.group.Load(); g != nil {
		st := g.Status()
		s.MemberID, s.BufferedBytes, s.LastPoll = st.MemberID, st.BufferedBytes, st.Polled
		if st.Running && st.BufferedBytes < st.BufferedLimit && time.Since(st.Polled) > pollTimeout {
			s.Live, s.LiveReason = false, "the poll loop makes no progress"
		}
		s.NotReady = append(s.NotReady, st.NotReady...)
		s.Partitions, s.Ledger = st.Partitions, st.Ledger
	}
	s.Ready = s.State == ops.StateRunning && len(s.NotReady) == 0
	if !s.Ready && len(s.NotReady) == 0 {
		s.NotReady = append(s.NotReady, consumer.NotReady{Code: s.State, Text: "the bridge is " + s.State, Remedy: "wait; this state ends automatically"})
	}
	return s
}

// sinkProblem describes why the sink is not ready; empty while it is.
func (p *Pipeline) sinkProblem() (reason, remedy string) {
	if s := p.client.State(); s.Name != zerobus.Ready {
		return "the sink is " + s.Name + ": " + s.Reason, s.Remedy
	}
	return "", ""
}
