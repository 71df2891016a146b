package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/live"
)

type summary struct {
	Deployment, Scope  string
	Members, Answering int
	Problems           []consumer.NotReady
	Integrations       []struct {
		Integration, Name, Table, State string
		Verdict                         ops.Verdict
		Lag                             *int64
		Rows                            *float64 `json:"rows_per_second"`
		Share                           float64  `json:"reject_share"`
		Dead                            int64    `json:"dead_letters"`
		History                         struct {
			Step int       `json:"step_seconds"`
			Rows []float32 `json:"rows_per_second"`
			Lag  []float32
		}
	}
}

func parsed[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %.300s", err, text)
	}
	return v
}

// hist is a history of a minute with 10 rows per second, of which rejected were
// rejected.
func hist(rejected float32) *ops.History {
	steps := func(v float32) []float32 { return slices.Repeat([]float32{v}, 12) }
	return &ops.History{End: time.Unix(1_800_000_000, 0), StepSeconds: 5, Rows: steps(10 - rejected), Outcomes: steps(10), Rejected: steps(rejected), Lag: steps(1234.5),
		Oldest: steps(0), P50: steps(-1), P99: steps(-1), DeadLetters: steps(0)}
}

func TestSummaryOfTheProcess(t *testing.T) {
	web, off := integration("web"), ops.IntegrationStatus{Integration: "off", State: ops.StateDisabled}
	web.Name, web.Table, web.Totals.DeadLetters = "The Web", "a.b.c", 7
	web.Partitions = web.Partitions[:1]
	web.History = hist(2)
	s := start(t, live.Config{Mode: live.ModeMetadata}, func() ops.Status {
		return ops.NewStatus(ops.Status{Deployment: "prod", NotReady: []consumer.NotReady{{Code: "too_few_descriptors"}}}, []ops.IntegrationStatus{web, off})
	})
	resp, text := s.ask(http.MethodGet, "/live/summary", "")
	got := parsed[summary](t, text)
	if got.Deployment != "prod" || got.Scope != "process" || got.Members != 1 || len(got.Integrations) != 2 || len(got.Problems) != 1 {
		t.Fatalf("got %s, want two integrations of prod, of this process, with one problem", text)
	}
	if i := got.Integrations[0]; i.Integration != "off" || i.Name != "off" || i.Verdict.Level != "off" || i.Lag != nil || i.Rows != nil || i.History.Rows == nil {
		t.Errorf("got %+v, want the disabled one without figures", i)
	}
	i := got.Integrations[1]
	if i.Name != "The Web" || i.Table != "a.b.c" || i.State != "delivering" || i.Verdict.Level != "warning" || *i.Lag != 3 || *i.Rows != 8 || i.Share != 0.2 || i.Dead != 7 {
		t.Errorf("got %+v, want web with a fifth of the events rejected", i)
	}
	if i.History.Step != 15 || len(i.History.Rows) != 4 || i.History.Lag[0] != 1230 {
		t.Errorf("got %+v, want four steps of 15 seconds, with three digits", i.History)
	}

	// What has not changed is not sent again.
	tag := resp.Header.Get("ETag")
	if resp, text := s.ask(http.MethodGet, "/live/summary", "", "If-None-Match", tag); resp.StatusCode != http.StatusNotModified || text != "" {
		t.Errorf("got %d %q with the tag %s, want 304", resp.StatusCode, text, tag)
	}
	web.Totals.DeadLetters++
	s.eventually("the change has another tag", func() bool {
		resp, _ := s.ask(http.MethodGet, "/live/summary", "", "If-None-Match", tag)
		return resp.StatusCode == http.StatusOK && resp.Header.Get("ETag") != tag
	})

	h := parsed[struct {
		Scope   string
		History ops.History
	}](t, s.want(200, http.MethodGet, "/live/history?integration=web"))
	if h.Scope != "process" || h.History.StepSeconds != 5 || len(h.History.Rejected) != 12 {
		t.Errorf("got %+v, want the whole history", h)
	}
	s.want(404, http.MethodGet, "/live/history?integration=gone")
}

func TestSummaryOfTheGroup(t *testing.T) {
	g := ops.GroupStatus{
		Scope: ops.ScopeGroup, Deployment: "prod", PeersConfigured: true, Peers: []ops.Peer{{OK: true, Self: true}, {Address: "10.0.0.2:9400"}},
		Problems: []consumer.NotReady{{Code: "peer_not_answering", Text: "10.0.0.2"}},
		Integrations: []ops.GroupIntegration{{
			Integration: "default", Name: "default", Lag: 99, Verdict: ops.Verdict{State: "not answering", Level: "warning"}, History: hist(0).Coarse(3),
			Partitions: []ops.GroupPartition{{Topic: "t", MemberID: "m", Peer: "a"}, {Topic: "t", Partition: 1, Lag: -1}},
		}},
	}
	s := start(t, live.Config{Mode: live.ModeMetadata, Group: func(context.Context) ops.GroupStatus { return g }},
		func() ops.Status {
			return process(integration("default"), ops.IntegrationStatus{Integration: "off", State: ops.StateDisabled})
		})
	got := parsed[summary](t, s.want(200, http.MethodGet, "/live/summary"))
	if got.Scope != "group" || got.Members != 2 || got.Answering != 1 || len(got.Problems) != 1 || len(got.Integrations) != 2 || *got.Integrations[0].Lag != 99 || got.Integrations[0].State != "not answering" {
		t.Errorf("got %+v, want the group with one of two members that answers, and the disabled integration", got)
	}
	if h := s.want(200, http.MethodGet, "/live/history?integration=default"); !strings.Contains(h, `"step_seconds":15`) || !strings.Contains(h, `"scope":"group"`) {
		t.Errorf("got %s, want that of the group", h)
	}
	if p := s.want(200, http.MethodGet, "/live/partitions?integration=default"); !strings.Contains(p, `"trouble":"no_owner"`) || !strings.Contains(p, `"trouble":1`) {
		t.Errorf("got %s, want one partition without an owner", p)
	}
}

// Partitions in trouble come first, then all by number.
func TestPartitionsInTroubleComeFirst(t *testing.T) {
	const many = 1000
	s := start(t, live.Config{Mode: live.ModeMetadata}, func() ops.Status {
		i := integration("default")
		i.Partitions, i.MemberID = nil, "m"
		for n := range many {
			i.Partitions = append(i.Partitions, consumer.PartitionStatus{Topic: "t", Partition: int32(n), State: consumer.StateWriting, Ledger: consumer.LedgerStatus{Ledger: consumer.Ledger{Delivered: 100}}})
		}
		i.Partitions[999].State = consumer.StateBlocked
		i.Partitions[500].Oldest = consumer.Seconds(61 * time.Second)
		i.Partitions[7].Ledger.DeadLettered = 2
		i.Partitions[8].Ledger.DeadLettered = 1 // below 1 %
		return process(i)
	})
	got := parsed[struct {
		Total, Trouble int
		Partitions     []struct {
			Partition int
			Trouble   string
			Share     float64 `json:"reject_share"`
		}
	}](t, s.want(200, http.MethodGet, "/live/partitions?integration=default"))
	if got.Total != many || got.Trouble != 3 || len(got.Partitions) != many {
		t.Fatalf("got %d of %d, %d in trouble, want 1000 and 3", len(got.Partitions), got.Total, got.Trouble)
	}
	var first []string
	for _, p := range got.Partitions[:6] {
		first = append(first, fmt.Sprint(p.Partition, p.Trouble))
	}
	if want := []string{"999blocked", "500stuck", "7rejecting", "0", "1", "2"}; !slices.Equal(first, want) {
		t.Errorf("got %v, want %v", first, want)
	}
	if share := got.Partitions[2].Share; share < 0.019 || share > 0.0197 {
		t.Errorf("got a reject share of %v, want 2 of 102", share)
	}
}

// However many viewers poll, the state is computed once per second.
func TestSummaryIsComputedOnce(t *testing.T) {
	var asked atomic.Int32
	s := start(t, live.Config{Mode: live.ModeMetadata}, func() ops.Status {
		asked.Add(1)
		return healthy()
	})
	began := time.Now()
	for range 50 {
		s.want(200, http.MethodGet, "/live/summary")
	}
	if most := int32(time.Since(began)/(900*time.Millisecond)) + 1; asked.Load() > most {
		t.Errorf("got the state read %d times in %v, want %d at most", asked.Load(), time.Since(began), most)
	}
}

// One that a file shadows is listed by its id: the slug leads to the one in force.
func TestSummaryListsShadowedIntegrations(t *testing.T) {
	s := start(t, live.Config{Mode: live.ModeMetadata}, func() ops.Status {
		return ops.NewStatus(ops.Status{Store: &ops.StoreStatus{Shadowed: []ops.Shadowed{{ID: "int_1", Integration: "web", Name: "Web", Table: "a.b.c"}}}}, []ops.IntegrationStatus{integration("web")})
	})
	_, text := s.ask(http.MethodGet, "/live/summary", "")
	got := parsed[summary](t, text).Integrations
	if len(got) != 2 || got[0].Integration != "int_1" || got[0].State != ops.VerdictShadowed || got[0].Verdict.Level != ops.LevelOff || !strings.Contains(got[0].Verdict.Text, "integration web") || got[0].Verdict.Remedy == "" || got[0].Table != "a.b.c" || got[1].Integration != "web" {
		t.Errorf("got %+v, want the shadowed integration beside the one in force", got)
	}
}
