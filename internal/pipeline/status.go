package pipeline

import (
	"cmp"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
)

// pollTimeout is how long the poll loop may make no progress with buffer to spare
// before the process is reported dead. A poll takes at most a few seconds.
const pollTimeout = 2 * time.Minute

// Status returns the state of the integration, without what follows from it; see
// ops.NewStatus. It never waits for Kafka or the sink.
func (p *Pipeline) Status() ops.IntegrationStatus {
	s := ops.IntegrationStatus{
		Integration: cmp.Or(p.cfg.Name, config.DefaultIntegration), State: p.state.Load().(string), Table: p.Table(), Group: p.kafka.Group,
		Sink: p.client.State(), Totals: p.deps.Metrics.Totals(), Config: p.Settings(),
	}
	if p50, p99, ok := p.deps.Metrics.RecentAcks(); ok {
		s.Ack = &ops.Acks{P50: p50, P99: p99}
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
		s.LiveReason = stuck(st)
		s.NotReady = append(s.NotReady, st.NotReady...)
		s.Partitions, s.Ledger, s.TopicLedgers = st.Partitions, st.Ledger, st.TopicLedgers
	}
	return s
}

// Stuck returns why only another pipeline can deliver; empty while this one can, or
// cannot for another reason.
func (p *Pipeline) Stuck() string {
	if g := p.group.Load(); g != nil {
		return stuck(g.Status())
	}
	return ""
}

func stuck(s consumer.Status) string {
	if s.Running && s.BufferedBytes < s.BufferedLimit && time.Since(s.Polled) > pollTimeout {
		return "the poll loop makes no progress"
	}
	return ""
}

// sinkProblem describes why the sink is not ready; empty while it is.
func (p *Pipeline) sinkProblem() (reason, remedy string) {
	if s := p.client.State(); s.Name != zerobus.Ready {
		return "the sink is " + s.Name + ": " + s.Reason, s.Remedy
	}
	return "", ""
}
