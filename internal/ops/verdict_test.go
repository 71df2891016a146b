package ops_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus"
)

// course is what an integration did: one moment each 5 seconds.
type course struct {
	now  time.Time
	all  *ops.Histories
	i    ops.IntegrationStatus
	last ops.Status
}

func newCourse() *course {
	return &course{now: time.Unix(1_800_000_002, 0), all: ops.NewHistories(), i: ops.IntegrationStatus{
		Integration: "web", State: ops.StateRunning, Sink: zerobus.State{Name: zerobus.Ready},
		Partitions: []consumer.PartitionStatus{{Topic: "t", State: consumer.StateWriting}},
	}}
}

// pass lets n steps pass, and changes the state before each.
func (c *course) pass(n int, change func(n int, i *ops.IntegrationStatus)) *ops.Verdict {
	for at := range n {
		c.now = c.now.Add(5 * time.Second)
		if change != nil {
			change(at, &c.i)
		}
		c.last = ops.NewStatus(ops.Status{Time: c.now}, []ops.IntegrationStatus{c.i})
		c.all.Sample(c.last)
		c.all.Judge(&c.last)
	}
	return c.last.Integrations[0].Verdict
}

// delivers returns a change that delivers and rejects events of one step, and adds to the
// lag.
func delivers(rows, rejected, lag int64) func(int, *ops.IntegrationStatus) {
	return func(_ int, i *ops.IntegrationStatus) {
		i.Totals.RowsDelivered += rows
		i.Totals.EventsRejected += rejected
		i.Partitions[0].Lag += lag
	}
}

func TestVerdict(t *testing.T) {
	lag := func(n int64) func(*course) { return func(c *course) { c.i.Partitions[0].Lag = n } }
	refused := consumer.NotReady{Code: "sink_blocked", Text: "no MODIFY", Remedy: "GRANT MODIFY"}
	for name, c := range map[string]struct {
		before       func(*course)
		steps        int
		change       func(int, *ops.IntegrationStatus)
		state, level string
		text, remedy string
	}{
		"delivering":          {nil, 20, delivers(500, 0, 0), "delivering", "ok", "is delivered", ""},
		"keeping up":          {lag(40), 20, delivers(500, 0, 0), "delivering", "ok", "keeping up", ""},
		"idle":                {nil, 20, nil, "idle", "ok", "no event arrives", ""},
		"no partition":        {func(c *course) { c.i.Partitions = nil }, 20, nil, "idle", "ok", "other members", ""},
		"filtered":            {lag(40), 20, func(_ int, i *ops.IntegrationStatus) { i.Totals.EventsFiltered += 10 }, "delivering", "ok", "keeping up", ""},
		"catching up":         {lag(900_000), 20, delivers(500, 0, -2000), "catching up", "ok", "behind, and the lag shrinks", ""},
		"far behind at first": {lag(900_000), 3, delivers(500, 0, 0), "catching up", "ok", "", ""},
		"far behind":          {lag(900_000), 20, delivers(500, 0, 0), "falling behind", "warning", "900,000 events behind, and the lag does not shrink", "members"},
		"lag grows":           {lag(10), 20, delivers(500, 0, 200), "falling behind", "warning", "has grown for a minute", "members"},
		"lag grew for a while": {lag(10), 30, func(n int, i *ops.IntegrationStatus) {
			delivers(500, 0, map[bool]int64{true: 200, false: -200}[n < 15])(n, i)
		}, "delivering", "ok", "", ""},
		"lag is noisy": {lag(300), 200, func(n int, i *ops.IntegrationStatus) {
			i.Totals.RowsDelivered += 5000
			i.Partitions[0].Lag = int64(n*7919%997) + 1
		}, "delivering", "ok", "keeping up", ""},
		"stands": {lag(7), 14, nil, "blocked", "error", "none was delivered for a minute: 7 events wait", "see the partitions"},
		"stands by the sink": {func(c *course) {
			c.i.Partitions[0].Lag, c.i.Sink = 7, zerobus.State{Name: zerobus.Retrying, Reason: "HTTP 503", Remedy: "ask Databricks"}
		}, 14, nil, "blocked", "error", "HTTP 503", "ask Databricks"},
		"stands for less":   {lag(7), 9, nil, "delivering", "ok", "", ""},
		"retrying":          {func(c *course) { c.i.Sink = zerobus.State{Name: zerobus.Retrying, Reason: "HTTP 503"} }, 2, nil, "falling behind", "warning", "HTTP 503", "wait"},
		"oldest":            {func(c *course) { c.i.Partitions[0].Oldest = consumer.Seconds(61 * time.Second) }, 2, nil, "falling behind", "warning", "waits for 1m1s", "partitions"},
		"oldest is young":   {func(c *course) { c.i.Partitions[0].Oldest = consumer.Seconds(59 * time.Second) }, 20, delivers(1, 0, 0), "delivering", "ok", "", ""},
		"rejects":           {nil, 20, delivers(980, 20, 0), "delivering", "warning", "2.0 % of the events", "dead letters"},
		"rejects all":       {nil, 20, delivers(0, 10, 0), "blocked", "error", "all events of the last 5 minutes were rejected", "dead letters"},
		"rejects one":       {nil, 20, func(n int, i *ops.IntegrationStatus) { i.Totals.EventsRejected = min(int64(n), 1) }, "delivering", "warning", "100.0 % of the events", "dead letters"},
		"rejects at limit":  {func(c *course) { c.pass(30, delivers(980, 20, 0)) }, 70, delivers(991, 9, 0), "delivering", "warning", "0.9 % of the events", "dead letters"},
		"few rejects":       {nil, 20, delivers(995, 5, 0), "delivering", "ok", "", ""},
		"rejects before":    {func(c *course) { c.pass(20, delivers(0, 100, 0)) }, 62, delivers(500, 0, 0), "delivering", "ok", "", ""},
		"sink blocked":      {func(c *course) { c.i.Sink.Name = zerobus.Blocked; c.i.NotReady = append(c.i.NotReady, refused) }, 1, nil, "blocked", "error", "no MODIFY", "GRANT MODIFY"},
		"partition blocked": {func(c *course) { c.i.NotReady = []consumer.NotReady{refused, {Code: "x"}, {Code: "y"}} }, 1, delivers(500, 0, 0), "blocked", "error", "no MODIFY; and 2 other reasons", "GRANT MODIFY"},
		"rebalance": {func(c *course) {
			c.pass(20, delivers(500, 0, 0))
			c.i.NotReady = []consumer.NotReady{{Code: "not_joined", Text: "not a member"}}
		}, 2, nil, "starting", "off", "not a member", ""},
		"starting":          {func(c *course) { c.i.State = ops.StateStarting }, 2, nil, "starting", "off", "starting", "wait"},
		"starting for long": {func(c *course) { c.i.State, c.i.Reason = ops.StateStarting, "waiting for kafka" }, 20, nil, "starting", "error", "waiting for kafka", "wait"},
		"failed": {func(c *course) {
			c.i.State, c.i.Reason, c.i.NextTry = ops.StateFailed, "no such table", c.now.Add(65*time.Second)
		}, 1, nil, "failed", "error", "no such table; next try in 1m0s", "correct what"},
		"disabled":  {func(c *course) { c.i.State = ops.StateDisabled }, 20, nil, "disabled", "off", "", ""},
		"draining":  {func(c *course) { c.i.State = ops.StateDraining }, 20, nil, "stopping", "off", "draining", ""},
		"not alive": {func(c *course) { c.i.LiveReason = "the poll loop has ended" }, 1, nil, "blocked", "error", "the poll loop has ended", "restart"},
	} {
		t.Run(name, func(t *testing.T) {
			of := newCourse()
			if c.before != nil {
				c.before(of)
			}
			v := of.pass(c.steps, c.change)
			if v.State != c.state || v.Level != c.level || !strings.Contains(v.Text, c.text) || !strings.Contains(v.Remedy, c.remedy) || (c.level == "ok" && v.Remedy != "") {
				t.Errorf("got %+v, want %s, %s, a text with %q and a remedy with %q", *v, c.state, c.level, c.text, c.remedy)
			}
		})
	}
}

// A verdict stands since its state or level changed, or since the fact behind it.
func TestVerdictSince(t *testing.T) {
	c := newCourse()
	first := *c.pass(3, delivers(500, 0, 0))
	if later := *c.pass(20, delivers(500, 0, 0)); later.Since != first.Since || first.Since.IsZero() {
		t.Errorf("got %v after %v, want the same", later.Since, first.Since)
	}
	began := c.now.Add(-7 * time.Second)
	c.i.Sink = zerobus.State{Name: zerobus.Blocked, Since: began}
	c.i.NotReady = []consumer.NotReady{{Code: "sink_blocked", Text: "x"}}
	if v := c.pass(4, nil); !v.Since.Equal(began) {
		t.Errorf("got %v, want that of the sink, %v", v.Since, began)
	}
	c.i.Sink, c.i.NotReady = zerobus.State{Name: zerobus.Ready}, nil
	c.pass(1, delivers(500, 0, 0))
	at := c.now
	if v := c.pass(5, delivers(500, 0, 0)); v.State != "delivering" || !v.Since.Equal(at) {
		t.Errorf("got %+v, want delivering since %v", *v, at)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	c := newCourse()
	c.pass(200, delivers(50, 5, 1))
	h := c.last.Integrations[0].History
	if len(h.Rows) != 180 || len(h.DeadLetters) != 180 || h.Rows[0] != 10 || h.Rejected[179] != 1 || h.Lag[179] != 200 || h.Lag[0] != 21 {
		t.Errorf("got %d steps, rows %v, rejected %v, lag %v to %v; want 180 of 10 and 1 per second, lag 21 to 200", len(h.Rows), h.Rows[0], h.Rejected[179], h.Lag[0], h.Lag[179])
	}
	before := slices.Clone(h.Rows)
	// A process that slept has a gap.
	c.now = c.now.Add(50 * time.Second)
	c.pass(1, delivers(550, 0, 0))
	next := c.last.Integrations[0].History
	if !slices.Equal(h.Rows, before) {
		t.Error("a history that was handed out has changed")
	}
	if got := fmt.Sprint(next.Rows[167:]); got != "[10 10 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 10]" {
		t.Errorf("got %s, want a gap of ten steps", got)
	}
	c.now = c.now.Add(24 * time.Hour)
	if c.pass(1, nil); len(c.last.Integrations[0].History.Rows) != 180 {
		t.Errorf("got %d steps after a day, want 180", len(c.last.Integrations[0].History.Rows))
	}
	// A clock that was set back, and an integration that was removed.
	c.now = c.now.Add(-time.Hour)
	c.pass(2, nil)
	c.all.Sample(ops.NewStatus(ops.Status{Time: c.now}, nil))
	if c.all.Judge(&c.last); c.last.Integrations[0].History == nil {
		t.Error("the history that a status has was taken away")
	}
	// One that is off has none, but since when is known.
	c.i.State = ops.StateDisabled
	at := c.now.Add(5 * time.Second)
	if v := c.pass(3, nil); len(c.last.Integrations[0].History.Rows) != 0 || v.State != "disabled" || !v.Since.Equal(at) {
		t.Errorf("got %d steps and %+v of one that is disabled, want none, since %v", len(c.last.Integrations[0].History.Rows), *v, at)
	}
	c.i.State = ops.StateRunning
	if c.pass(1, nil); len(c.last.Integrations[0].History.Rows) != 1 {
		t.Errorf("got %d steps of an integration that was removed and added, want 1", len(c.last.Integrations[0].History.Rows))
	}
}

func TestHistoriesJoin(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	h := func(end int, step int, rows ...float32) *ops.History {
		return &ops.History{End: at.Add(time.Duration(end) * time.Second), StepSeconds: step, Rows: rows, Lag: rows, P99: rows}
	}
	for name, c := range map[string]struct {
		got      *ops.History
		end      int
		rows, p9 string
	}{
		"coarse":       {h(15, 5, 1, 2, 3).Coarse(3), 15, "[2]", "[3]"},
		"part of one":  {h(20, 5, 1, 2, 3, 8).Coarse(3), 30, "[2 8]", "[3 8]"},
		"unknown":      {h(30, 5, -1, -1, -1, -1, 2, 4).Coarse(3), 30, "[-1 3]", "[-1 4]"},
		"two":          {ops.JoinHistories([]*ops.History{h(30, 15, 1, 2), nil, h(30, 15, 10, 20)}), 30, "[11 22]", "[10 20]"},
		"one is late":  {ops.JoinHistories([]*ops.History{h(30, 15, 1, 2, 3), h(15, 15, 10, 20)}), 30, "[11 22 3]", "[10 20 3]"},
		"one is young": {ops.JoinHistories([]*ops.History{h(30, 15, 1, 2, 3), h(30, 15, 10)}), 30, "[1 2 13]", "[1 2 10]"},
		"other steps":  {ops.JoinHistories([]*ops.History{h(30, 15, 1, 2, 3), h(15, 5, 10)}), 30, "[1 2 3]", "[1 2 3]"},
	} {
		if !c.got.End.Equal(at.Add(time.Duration(c.end)*time.Second)) || fmt.Sprint(c.got.Rows) != c.rows || fmt.Sprint(c.got.P99) != c.p9 {
			t.Errorf("%s: got %+v, want %s and %s, to %d s", name, c.got, c.rows, c.p9, c.end)
		}
	}
	if ops.JoinHistories([]*ops.History{nil, {}}) != nil {
		t.Error("got a history of none")
	}
}

func TestVerdictsJoin(t *testing.T) {
	ok, idle := ops.Verdict{State: "delivering", Level: "ok"}, ops.Verdict{State: "idle", Level: "ok", Text: "no partition is assigned"}
	amber, red, off := ops.Verdict{State: "falling behind", Level: "warning"}, ops.Verdict{State: "blocked", Level: "error"}, ops.Verdict{State: "starting", Level: "off"}
	for n, c := range []struct {
		members    []ops.Verdict
		unanswered int
		want       string
	}{
		{[]ops.Verdict{idle, ok, off}, 0, "delivering ok"},
		{[]ops.Verdict{idle, idle}, 0, "idle ok"},
		{[]ops.Verdict{ok, red, amber}, 0, "blocked error"},
		{[]ops.Verdict{ok, amber}, 0, "falling behind warning"},
		{[]ops.Verdict{off, off}, 0, "starting off"},
		{[]ops.Verdict{ok, ok}, 1, "not answering warning"},
		{[]ops.Verdict{red}, 1, "blocked error"},
		{nil, 2, "not answering error"},
	} {
		if v := ops.JoinVerdicts(c.members, c.unanswered); v.State+" "+v.Level != c.want || strings.Contains(v.Text, "no partition") {
			t.Errorf("%d: got %+v, want %s", n, v, c.want)
		}
	}
}

// Samples come each 5 seconds, and none is skipped.
func TestHistoriesRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 61*time.Second)
		defer cancel()
		all, status := ops.NewHistories(), newCourse().i
		source := func() ops.Status { return ops.NewStatus(ops.Status{}, []ops.IntegrationStatus{status}) }
		all.Run(ctx, source)
		s := source()
		if all.Judge(&s); len(s.Integrations[0].History.Lag) != 11 || slices.Contains(s.Integrations[0].History.Lag, -1) {
			t.Errorf("got %v, want 11 steps without a gap", s.Integrations[0].History.Lag)
		}
	})
}
