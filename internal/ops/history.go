package ops

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	historyStep  = 5 * time.Second
	historySteps = 180 // 15 minutes
)

// Series are figures, the oldest first; below 0: unknown, which JSON has as null.
type Series []float32

// MarshalJSON implements json.Marshaler.
func (s Series) MarshalJSON() ([]byte, error) {
	text := make([]byte, 1, 2+8*len(s))
	text[0] = '['
	for i, v := range s {
		if i > 0 {
			text = append(text, ',')
		}
		if v < 0 {
			text = append(text, "null"...)
		} else {
			text = strconv.AppendFloat(text, float64(v), 'f', -1, 32)
		}
	}
	return append(text, ']'), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Series) UnmarshalJSON(text []byte) error {
	var values []*float32
	if err := json.Unmarshal(text, &values); err != nil {
		return err
	}
	*s = make(Series, len(values))
	for i, v := range values {
		if (*s)[i] = -1; v != nil {
			(*s)[i] = max(*v, -1)
		}
	}
	return nil
}

// History has the figures of an integration in steps of equal length. It is read-only.
type History struct {
	End         time.Time `json:"end"` // of the last step, a multiple of the step
	StepSeconds int       `json:"step_seconds"`
	Rows        Series    `json:"rows_per_second"`     // delivered
	Outcomes    Series    `json:"outcomes_per_second"` // events delivered, rejected or filtered
	Rejected    Series    `json:"rejected_per_second"` // events
	Lag         Series    `json:"lag"`                 // at the end of the step
	Oldest      Series    `json:"oldest_unacked_seconds"`
	P50         Series    `json:"ack_p50_seconds"`
	P99         Series    `json:"ack_p99_seconds"`
	DeadLetters Series    `json:"dead_letters"` // since the start
}

// figures returns the figures, and how those of several steps and of several members
// become one.
func (h *History) figures() []figure {
	return []figure{
		{&h.Rows, mean, sum}, {&h.Outcomes, mean, sum}, {&h.Rejected, mean, sum}, {&h.Lag, last, sum},
		{&h.Oldest, highest, highest}, {&h.P50, highest, highest}, {&h.P99, highest, highest}, {&h.DeadLetters, last, sum},
	}
}

type figure struct {
	values           *Series
	ofSteps, members func([]float32) float32
}

func sum(values []float32) float32 {
	total := float32(-1)
	for _, v := range values {
		if v >= 0 {
			total = max(total, 0) + v
		}
	}
	return total
}

func mean(values []float32) float32 {
	known := 0
	for _, v := range values {
		if v >= 0 {
			known++
		}
	}
	return sum(values) / float32(max(known, 1))
}

func highest(values []float32) float32 {
	most := float32(-1)
	for _, v := range values {
		most = max(most, v)
	}
	return most
}

func last(values []float32) float32 {
	for _, v := range slices.Backward(values) {
		if v >= 0 {
			return v
		}
	}
	return -1
}

// Coarse returns the history in steps that are n times as long, n above 0.
func (h *History) Coarse(n int) *History {
	step := time.Duration(n*h.StepSeconds) * time.Second
	c := &History{StepSeconds: n * h.StepSeconds, End: h.End.Truncate(step)}
	if c.End.Before(h.End) {
		c.End = c.End.Add(step)
	}
	ahead := int(c.End.Sub(h.End).Seconds()) / h.StepSeconds // steps that the last one lacks
	into := c.figures()
	for i, s := range h.figures() {
		*into[i].values = make(Series, 0, (len(*s.values)+ahead+n-1)/n)
		for end := len(*s.values) + ahead; end > 0; end -= n {
			*into[i].values = append(*into[i].values, s.ofSteps((*s.values)[max(end-n, 0):min(end, len(*s.values))]))
		}
		slices.Reverse(*into[i].values)
	}
	return c
}

// JoinHistories returns the history of a group from those of its members, in equal
// steps; nil without one.
func JoinHistories(members []*History) *History {
	members = slices.DeleteFunc(slices.Clone(members), func(h *History) bool { return h == nil || h.StepSeconds < 1 })
	if len(members) == 0 {
		return nil
	}
	newest := slices.MaxFunc(members, func(a, b *History) int { return a.End.Compare(b.End) })
	j := &History{End: newest.End, StepSeconds: newest.StepSeconds}
	for i, s := range j.figures() {
		for back := range historySteps { // steps before the last one
			var at []float32
			found := false
			for _, m := range members {
				values := *m.figures()[i].values
				if n := len(values) - 1 - back + int(newest.End.Sub(m.End).Seconds())/j.StepSeconds; m.StepSeconds == j.StepSeconds && n >= 0 {
					found = true
					if n < len(values) {
						at = append(at, values[n])
					}
				}
			}
			if !found {
				break
			}
			*s.values = append(*s.values, s.members(at))
		}
		slices.Reverse(*s.values)
	}
	return j
}

// Histories keeps the history of each integration, of the last 15 minutes: some 6 KiB
// each. It also knows since when each verdict stands. Its methods are safe for concurrent
// use.
type Histories struct {
	mu sync.Mutex // guards of
	of map[string]*kept
}

type kept struct {
	at      time.Time // of the last sample
	totals  Totals
	history *History // replaced, never changed
	verdict Verdict
}

// NewHistories returns an empty Histories. It starts no goroutine.
func NewHistories() *Histories { return &Histories{of: make(map[string]*kept)} }

// Run takes a sample of source every 5 seconds until ctx ends.
func (h *Histories) Run(ctx context.Context, source Source) {
	for {
		// In the middle of a step, so that a late timer skips none.
		now := time.Now()
		next := time.NewTimer(now.Truncate(historyStep).Add(historyStep * 3 / 2).Sub(now))
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-next.C:
			h.Sample(source())
		}
	}
}

// Sample adds the figures of one moment. Integrations that s does not list are forgotten.
func (h *Histories) Sample(s Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	listed := make(map[string]*kept, len(s.Integrations))
	for i := range s.Integrations {
		k := h.of[s.Integrations[i].Integration]
		if k == nil {
			k = &kept{history: &History{StepSeconds: int(historyStep.Seconds())}}
		}
		listed[s.Integrations[i].Integration] = k
		k.sample(s.Time, &s.Integrations[i])
	}
	h.of = listed
}

func (k *kept) sample(now time.Time, i *IntegrationStatus) {
	if i.State == StateDisabled || i.State == StateBlocked { // there may be a thousand
		*k = kept{history: &History{StepSeconds: k.history.StepSeconds}, verdict: k.verdict}
		return
	}
	end := now.Truncate(historyStep).Add(historyStep)
	missed := 0
	if was := k.history.End; !was.IsZero() {
		if missed = int(end.Sub(was)/historyStep) - 1; missed < 0 {
			return // a second sample in this step, or the clock was set back
		}
	}
	sample := History{Rows: []float32{-1}, Outcomes: []float32{-1}, Rejected: []float32{-1}, Lag: []float32{-1},
		Oldest: []float32{float32(i.Oldest().Seconds())}, P50: []float32{-1}, P99: []float32{-1}, DeadLetters: []float32{float32(i.Totals.DeadLetters)}}
	if passed := now.Sub(k.at).Seconds(); !k.at.IsZero() && passed > 0 {
		per := func(now, before int64) []float32 { return []float32{float32(float64(max(now-before, 0)) / passed)} }
		t, was := i.Totals, k.totals
		sample.Rows, sample.Rejected = per(t.RowsDelivered, was.RowsDelivered), per(t.EventsRejected, was.EventsRejected)
		sample.Outcomes = per(t.outcomes(), was.outcomes())
	}
	if lag, all := i.Lag(); all || lag > 0 {
		sample.Lag[0] = float32(lag)
	}
	if i.Ack != nil {
		sample.P50[0], sample.P99[0] = float32(i.Ack.P50), float32(i.Ack.P99)
	}
	next := &History{End: end, StepSeconds: k.history.StepSeconds}
	from, before := sample.figures(), k.history.figures()
	for n, s := range next.figures() {
		values := slices.Concat(*before[n].values, slices.Repeat([]float32{-1}, min(missed, historySteps)), *from[n].values)
		*s.values = slices.Clone(values[max(len(values)-historySteps, 0):])
	}
	k.at, k.totals, k.history = now, i.Totals, next
}

// outcomes counts the events that are done.
func (t *Totals) outcomes() int64 { return t.RowsDelivered + t.EventsRejected + t.EventsFiltered }

// Judge sets the history and the verdict of each integration of s.
func (h *Histories) Judge(s *Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := range s.Integrations {
		i := &s.Integrations[n]
		k := h.of[i.Integration]
		if k != nil {
			i.History = k.history
		}
		limit := maxRejectShare
		if k != nil && k.verdict.Remedy == rejectRemedy {
			limit *= keptRejecting
		}
		v := judge(s.Time, i, limit)
		if k != nil {
			if v.State == k.verdict.State && v.Level == k.verdict.Level {
				v.Since = k.verdict.Since
			} else {
				v.Since = cmp.Or(v.Since, s.Time)
			}
			k.verdict = v
		}
		i.Verdict = &v
	}
}
