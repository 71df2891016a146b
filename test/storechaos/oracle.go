package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/datafly/bridge/internal/integrations/store"
)

// oracle holds what the replicas printed and what the audit log has.
type oracle struct {
	lines   map[string]line // the last of each change
	states  map[string][]line
	final   []line
	idle    int
	entries map[string]store.Entry // by id
	order   []string               // ids of the entries, the oldest first
}

func newOracle() *oracle {
	return &oracle{lines: map[string]line{}, states: map[string][]line{}, entries: map[string]store.Entry{}}
}

// take takes a line of a process.
func (o *oracle) take(process string, l line) {
	switch l.Outcome {
	case stateChanged:
		o.states[process] = append(o.states[process], l)
	case idle:
		o.idle++
	case finalState:
		o.final = append(o.final, l)
	default:
		o.lines[l.Request] = l
	}
}

// audit takes entries, the newest first, of which some may be known.
func (o *oracle) audit(newest []store.Entry) {
	for _, e := range slices.Backward(newest) {
		if _, known := o.entries[e.ID]; !known {
			o.entries[e.ID] = e
			o.order = append(o.order, e.ID)
		}
	}
}

// violations compares everything with the records at the end.
func (o *oracle) violations(end []version) (all []string) {
	report := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	written := map[version]bool{} // every version that there was
	now := map[string]version{}   // by slug
	byRequest := map[string]int{}
	last := map[string]int64{} // revision of each integration
	for _, id := range o.order {
		e := o.entries[id]
		l, begun := o.lines[e.RequestID]
		byRequest[e.RequestID]++
		switch {
		case !begun:
			report("invented: the audit log has %s of %s by the request %q, which nobody made", e.Action, e.Slug, e.RequestID)
		case l.Outcome == refused || l.Outcome == unavailable:
			report("written and denied: %s of %s by %s has the answer %q", e.Action, e.Slug, e.RequestID, l.Error)
		case l.Outcome == acknowledged && (l.ID != e.ResourceID || l.Revision != e.Revision):
			report("%s was acknowledged as %s@%d, and the audit log has %s@%d", e.RequestID, l.ID, l.Revision, e.ResourceID, e.Revision)
		}
		if e.Revision != last[e.ResourceID]+1 {
			report("gap: revision %d of %s follows revision %d", e.Revision, e.ResourceID, last[e.ResourceID])
		}
		last[e.ResourceID] = e.Revision
		old, there := now[e.Slug]
		switch {
		case e.Record == nil:
			delete(now, e.Slug)
		case e.Revision == 1 && there:
			report("%s was installed twice: as %s, and as %s", e.Slug, old.ID, e.ResourceID)
			fallthrough
		default:
			v := version{e.Slug, e.ResourceID, e.Revision, e.RequestID}
			now[e.Slug], written[v] = v, true
		}
	}
	for request, l := range o.lines {
		if n := byRequest[request]; n > 1 || n == 0 && l.Outcome == acknowledged {
			report("lost or repeated: %s has the outcome %s and %d audit entries", request, l.Outcome, n)
		}
	}
	want := make([]version, 0, len(now))
	for _, v := range now {
		want = append(want, v)
	}
	slices.SortFunc(want, func(a, b version) int { return compare(a.Slug, b.Slug) })
	for _, state := range append(o.final, line{Outcome: "the audit", State: end}) {
		if state.Error != "" || !slices.Equal(state.State, want) {
			report("the records at the end are %v (%s), and the audit log ends with %v", state.State, state.Error, want)
		}
	}
	for process, states := range o.states {
		all = append(all, o.wentBack(process, states, written)...)
	}
	return all
}

// wentBack looks for records in the states of one process that were never written, or
// are older than one before.
func (o *oracle) wentBack(process string, states []line, written map[version]bool) (all []string) {
	newest := map[string]int64{}
	for _, s := range states {
		for _, v := range s.State {
			if !written[v] {
				all = append(all, fmt.Sprintf("invented: %s saw %v, which the audit log does not have", process, v))
			}
			if v.Revision < newest[v.ID] {
				all = append(all, fmt.Sprintf("went back: %s saw %v after revision %d", process, v, newest[v.ID]))
			}
			newest[v.ID] = max(newest[v.ID], v.Revision)
		}
	}
	return all
}

// summary counts the outcomes.
func (o *oracle) summary() string {
	counts := map[string]int{}
	var took []time.Duration
	for _, l := range o.lines {
		counts[l.Outcome]++
		if l.Outcome == acknowledged {
			took = append(took, l.Took)
		}
	}
	slices.Sort(took)
	text := fmt.Sprintf("%d changes: %d acknowledged, %d refused (another revision), %d unavailable, %d unknown, %d cut off by a kill; %d audit entries",
		len(o.lines), counts[acknowledged], counts[refused], counts[unavailable], counts[unknown], counts[begins], len(o.order))
	if n := len(took); n > 0 {
		text += fmt.Sprintf("; acknowledged after p50 %v, p99 %v, max %v", took[n/2].Round(time.Millisecond), took[n*99/100].Round(time.Millisecond), took[n-1].Round(time.Millisecond))
	}
	return text
}
