package live

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/plaintext"
)

// summary is the state of all integrations.
type summary struct {
	Deployment   string               `json:"deployment"`
	Scope        string               `json:"scope"`   // group, or process where the others cannot be asked
	Members      int                  `json:"members"` // processes of the deployment
	Answering    int                  `json:"answering"`
	Time         time.Time            `json:"-"`        // encoded on its own, as time
	Reload       ops.ReloadStatus     `json:"reload"`   // of this process
	Problems     []consumer.NotReady  `json:"problems"` // of the process, or of the members
	Integrations []integrationSummary `json:"integrations"`
}

// integrationSummary is the state of one integration. Figures that are unknown are null.
type integrationSummary struct {
	Integration string         `json:"integration"` // slug; of a shadowed one the id
	Name        string         `json:"name"`
	Table       string         `json:"table"`
	State       string         `json:"state"` // of the verdict
	Verdict     ops.Verdict    `json:"verdict"`
	Lag         *int64         `json:"lag"`
	LagChange   *float64       `json:"lag_change"` // events per second, in the last minute
	Behind      float64        `json:"seconds_behind"`
	Rows        *float64       `json:"rows_per_second"`
	P99         *float64       `json:"ack_p99_seconds"`
	RejectShare float64        `json:"reject_share"` // of the last 5 minutes, 0 to 1
	DeadLetters int64          `json:"dead_letters"` // since the start
	History     summaryHistory `json:"history"`
}

type summaryHistory struct {
	StepSeconds int        `json:"step_seconds"`
	Rows        ops.Series `json:"rows_per_second"`
	Lag         ops.Series `json:"lag"`
}

// set sets what a history has.
func (s *integrationSummary) set(h *ops.History) {
	if h == nil {
		s.History = summaryHistory{}
		return
	}
	s.RejectShare, _ = h.RejectShare()
	if change, ok := h.LagChange(); ok {
		s.LagChange = &change
	}
	if n := len(h.Rows); n > 0 && h.Rows[n-1] >= 0 {
		s.Rows = new(float64(h.Rows[n-1]))
	}
	if h.StepSeconds > 0 && h.StepSeconds < 15 {
		h = h.Coarse(ops.PeerHistory)
	}
	s.History = summaryHistory{StepSeconds: h.StepSeconds, Rows: rounded(h.Rows), Lag: rounded(h.Lag)}
}

// rounded returns the values with three digits: a small chart shows no more.
func rounded(values ops.Series) ops.Series {
	out := make(ops.Series, len(values))
	for i, v := range values {
		if out[i] = v; v > 0 {
			scale := 1000.0 // of digits that stay
			for scale*float64(v) >= 1000 {
				scale /= 10
			}
			out[i] = float32(math.Round(float64(v)*scale) / scale)
		}
	}
	return out
}

func ofProcess(i *ops.IntegrationStatus) integrationSummary {
	v := verdictOf(i)
	s := integrationSummary{Integration: i.Integration, Name: i.Name, Table: i.Table, State: v.State, Verdict: v,
		Behind: i.SecondsBehind(), DeadLetters: i.Totals.DeadLetters}
	if lag, known := i.Lag(); known || lag > 0 {
		s.Lag = &lag
	}
	if i.Ack != nil {
		s.P99 = &i.Ack.P99
	}
	s.set(i.History)
	return s
}

func verdictOf(i *ops.IntegrationStatus) ops.Verdict {
	if i.Verdict == nil {
		return ops.Judge(time.Now(), i)
	}
	return *i.Verdict
}

func ofGroup(i *ops.GroupIntegration) integrationSummary {
	s := integrationSummary{Integration: i.Integration, Name: i.Name, Table: i.Table, State: i.Verdict.State, Verdict: i.Verdict,
		Behind: i.Behind, DeadLetters: i.Totals.DeadLetters}
	if i.Lag >= 0 {
		s.Lag = &i.Lag
	}
	if i.Ack != nil {
		s.P99 = &i.Ack.P99
	}
	s.set(i.History)
	return s
}

// group returns the state of all members; ok is false where only this process can be
// asked.
func (p *Page) group(ctx context.Context) (g ops.GroupStatus, ok bool) {
	if p.cfg.Group == nil {
		return g, false
	}
	g = p.cfg.Group(ctx)
	return g, g.PeersConfigured
}

func (p *Page) summary(ctx context.Context) summary {
	own := p.status()
	s := summary{Deployment: own.Deployment, Scope: ops.ScopeProcess, Members: 1, Answering: 1, Time: own.Time, Reload: own.Reload, Problems: []consumer.NotReady{}, Integrations: []integrationSummary{}}
	g, ok := p.group(ctx)
	if ok {
		s.Scope, s.Time, s.Members, s.Answering = ops.ScopeGroup, g.Time, len(g.Peers), 0
		for _, peer := range g.Peers {
			if peer.OK {
				s.Answering++
			}
		}
		s.Problems = append(s.Problems, g.Problems...)
		for n := range g.Integrations {
			s.Integrations = append(s.Integrations, ofGroup(&g.Integrations[n]))
		}
	}
	for _, r := range own.NotReady {
		if r.Integration == "" {
			s.Problems = append(s.Problems, r)
		}
	}
	s.Problems = s.Problems[:min(len(s.Problems), maxReasons)]
	for n := range own.Integrations {
		if i := &own.Integrations[n]; !slices.ContainsFunc(s.Integrations, func(have integrationSummary) bool { return have.Integration == i.Integration }) {
			s.Integrations = append(s.Integrations, ofProcess(i)) // also one that is disabled
		}
	}
	if own.Store != nil {
		for _, i := range own.Store.Shadowed { // the slug is that of the one in force
			v := ops.Verdict{State: ops.VerdictShadowed, Level: ops.LevelOff, Text: "a file describes an integration " + i.Integration + ", which runs in place of this one", Remedy: "remove this one, or take that one out of the file"}
			s.Integrations = append(s.Integrations, integrationSummary{Integration: i.ID, Name: i.Name, Table: i.Table, State: v.State, Verdict: v})
		}
	}
	slices.SortFunc(s.Integrations, func(a, b integrationSummary) int { return cmp.Compare(a.Integration, b.Integration) })
	return s
}

// summaryCache encodes the summary once for all viewers.
type summaryCache struct {
	mu   sync.Mutex // guards the fields below
	at   time.Time
	text []byte
	tag  string
}

// serveSummary serves the state of all integrations, at most a second old. A client that
// has it already gets 304.
func (p *Page) serveSummary(w http.ResponseWriter, r *http.Request) {
	text, tag := p.encodedSummary(r.Context())
	h := w.Header()
	h.Set("ETag", tag)
	if h.Set("Cache-Control", "no-cache"); r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/json")
	_, _ = w.Write(text) // fails if the peer has disconnected
}

func (p *Page) encodedSummary(ctx context.Context) (text []byte, tag string) {
	b := &p.summaries
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.at) >= fresh || b.at.UnixNano() <= p.forgot.Load() {
		s := p.summary(ctx)
		rest, sum := encoded(s), sha256.New()
		sum.Write(rest) // without the time: a client may keep what has not changed
		b.tag = `"` + hex.EncodeToString(sum.Sum(nil)[:8]) + `"`
		b.text, b.at = append(fmt.Appendf(nil, `{"time":%q,`, s.Time.Format(time.RFC3339Nano)), rest[1:]...), now
	}
	return b.text, b.tag
}

// encoded returns v as JSON; everything of this package can be encoded.
func encoded(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"error":"the response could not be encoded as JSON"}`)
	}
	return append(plaintext.AppendVisible(nil, text), '\n')
}

// historyAnswer has the figures of an integration of the last 15 minutes, and the
// outcomes of all events that were read since the start.
type historyAnswer struct {
	Integration string                `json:"integration"`
	Scope       string                `json:"scope"`
	History     *ops.History          `json:"history"`
	Ledger      consumer.LedgerStatus `json:"ledger"`
}

func (p *Page) serveHistory(v *view, w http.ResponseWriter, r *http.Request) {
	out := historyAnswer{Integration: v.name, Scope: ops.ScopeProcess, History: &ops.History{}}
	if g, ok := p.group(r.Context()); ok {
		out.Scope = ops.ScopeGroup
		for _, i := range g.Integrations {
			if i.Integration == v.name {
				out.History, out.Ledger = cmp.Or(i.History, out.History), i.Ledger
			}
		}
	} else if only, ok := p.status().Only(v.name); ok {
		out.History, out.Ledger = cmp.Or(only.Integrations[0].History, out.History), only.Integrations[0].Ledger
	}
	writeJSON(w, http.StatusOK, out)
}

// partitionList is the state of the partitions of an integration over all members.
type partitionList struct {
	Integration string               `json:"integration"`
	Scope       string               `json:"scope"`
	Time        time.Time            `json:"time"`
	Total       int                  `json:"total"`
	Trouble     int                  `json:"trouble"` // of them; they come first
	Members     []ops.GroupMember    `json:"members"`
	Problems    []consumer.NotReady  `json:"problems"`
	Partitions  []partitionOfProcess `json:"partitions"`
}

type partitionOfProcess struct {
	ops.GroupPartition
	RejectShare float64 `json:"reject_share"`      // since its owner first had it, 0 to 1
	Trouble     string  `json:"trouble,omitempty"` // blocked, stuck, rejecting, no_owner
}

const (
	maxListed   = 5000 // partitions; the rest is counted
	stuckAfter  = time.Minute
	rejectLimit = 0.01
)

func (p *partitionOfProcess) judge() {
	if p.Done > 0 {
		p.RejectShare = float64(p.Rejected) / float64(p.Done)
	}
	switch {
	case p.State == consumer.StateBlocked:
		p.Trouble = "blocked"
	case time.Duration(p.Oldest) > stuckAfter:
		p.Trouble = "stuck"
	case p.State == consumer.StateRejecting, p.RejectShare > rejectLimit:
		p.Trouble = "rejecting"
	case p.MemberID == "" && p.Peer == "":
		p.Trouble = "no_owner"
	}
}

// troubles are in the order in which a list shows them.
var troubles = []string{"blocked", "stuck", "rejecting", "no_owner", ""}

// servePartitions lists the partitions of an integration, those in trouble first, then by
// number.
func (p *Page) servePartitions(v *view, w http.ResponseWriter, r *http.Request) {
	own := p.status()
	out := partitionList{Integration: v.name, Scope: ops.ScopeProcess, Time: own.Time, Members: []ops.GroupMember{}, Problems: []consumer.NotReady{}, Partitions: []partitionOfProcess{}}
	if p.cfg.Group != nil {
		g, _ := p.cfg.Group(r.Context()).Only(v.name)
		out.Scope, out.Time, out.Problems = ops.ScopeGroup, g.Time, g.Problems
		for _, i := range g.Integrations {
			out.Members = i.Members
			for _, at := range i.Partitions {
				out.Partitions = append(out.Partitions, partitionOfProcess{GroupPartition: at})
			}
		}
	} else if only, ok := own.Only(v.name); ok {
		for _, at := range only.Integrations[0].Partitions {
			out.Partitions = append(out.Partitions, partitionOfProcess{GroupPartition: ops.PartitionOf(only.Integrations[0].MemberID, "", at)})
		}
	}
	for n := range out.Partitions {
		if out.Partitions[n].judge(); out.Partitions[n].Trouble != "" {
			out.Trouble++
		}
	}
	slices.SortStableFunc(out.Partitions, func(a, b partitionOfProcess) int {
		return cmp.Or(cmp.Compare(slices.Index(troubles, a.Trouble), slices.Index(troubles, b.Trouble)), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	out.Total = len(out.Partitions)
	out.Partitions = out.Partitions[:min(out.Total, maxListed)]
	writeJSON(w, http.StatusOK, out)
}
