// Package oracle holds the rules that tests check deliveries against: every event
// that Kafka acknowledged has its outcome, in order, and again only where a cause
// explains it. It knows partitions and offsets, and nothing of the bridge.
package oracle

import (
	"fmt"
	"sync"
)

// Rules of the audit; docs/reliability.md explains them.
const (
	RuleLost       = "lost"            // an acknowledged event is nowhere
	RuleUnexpected = "unexpected"      // something arrived that was not produced, or not there
	RuleValue      = "value"           // a column or a byte differs
	RuleMisplaced  = "misplaced"       // a good event is a dead letter, or a bad one a row
	RuleAborted    = "aborted"         // an event of a transaction that was not committed arrived
	RuleOrder      = "order"           // a row came first after a later one, without a cause
	RuleDuplicate  = "duplicate"       // a row came again, without a cause
	RuleBound      = "duplicate-bound" // more rows came again than the cause explains
	RuleCommit     = "commit"          // an offset was committed before what is below it was durable
	RuleTakeover   = "takeover"        // a new owner began below the committed offset
	RuleReload     = "reload"          // rows of two blueprints in one request, or of a replaced one
	RuleFlow       = "flow"            // events do not move although every fault has ended
	RuleMember     = "member"          // a member ended without being stopped, or not as it should
	RuleProbe      = "probe"           // a member did not answer a probe
	RuleAccounting = "accounting"      // a member's own count of events does not balance
	RuleLossReport = "loss-report"     // what Kafka deleted and what members report as lost differ
	RuleSecret     = "secret"          // a log shows a secret
	RuleKafka      = "kafka"           // Kafka itself lost an acknowledged event; not the bridge's fault
)

// MaxExamples is how many violations of one rule are kept in full.
const MaxExamples = 5

// Violation is a rule that was broken.
type Violation struct {
	Rule     string   `json:"rule"`
	Count    int      `json:"count"`
	Examples []string `json:"examples"`
}

// Violations collects what was broken. It is safe for concurrent use.
type Violations struct {
	First  chan struct{}              // closed with the first
	Report func(rule, example string) // called with the first of each rule, if not nil

	of   *Violations // those that it adds to; nil: itself
	name string      // which its violations begin with then

	mu  sync.Mutex // guards all
	all []*Violation
}

// NewViolations returns an empty collection.
func NewViolations() *Violations { return &Violations{First: make(chan struct{})} }

// Of returns a collection that adds to v. Each of its violations begins with name. Only
// Add may be called on it.
func (v *Violations) Of(name string) *Violations { return &Violations{of: v, name: name} }

// Add adds a violation of a rule.
func (v *Violations) Add(rule, format string, args ...any) {
	if v.of != nil {
		v.of.Add(rule, "%s: %s", v.name, fmt.Sprintf(format, args...))
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	example := fmt.Sprintf(format, args...)
	if len(v.all) == 0 {
		close(v.First)
	}
	var of *Violation
	for _, known := range v.all {
		if known.Rule == rule {
			of = known
		}
	}
	if of == nil {
		of = &Violation{Rule: rule}
		v.all = append(v.all, of)
		if v.Report != nil {
			v.Report(rule, example)
		}
	}
	of.Count++
	if len(of.Examples) < MaxExamples {
		of.Examples = append(of.Examples, example)
	}
}

// List returns the broken rules in the order in which they were first broken.
func (v *Violations) List() []Violation {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]Violation, len(v.all))
	for i, known := range v.all {
		out[i] = *known
	}
	return out
}

// Account is a member's own count of events, as /status and its last log line
// have it.
type Account struct {
	Read         int64 `json:"read"`
	Delivered    int64 `json:"delivered"`
	DeadLettered int64 `json:"dead_lettered"`
	Skipped      int64 `json:"skipped"`
	Filtered     int64 `json:"filtered"`
	InFlight     int64 `json:"in_flight"`
	Released     int64 `json:"released"`
	Offsets      int64 `json:"offsets"`
	Records      int64 `json:"records"`
	Lost         int64 `json:"lost"` // offsets, not events
	SkippedGaps  int64 `json:"skipped_offsets"`
	Unaccounted  int64 `json:"unaccounted"`
}

// Check returns how a does not balance. It computes the sums again: the
// member's own result is not enough.
func (a Account) Check() error {
	sum := a.Delivered + a.DeadLettered + a.Skipped + a.Filtered + a.InFlight + a.Released
	if a.Read != sum || a.Unaccounted != 0 {
		return fmt.Errorf("read %d is not %d: delivered %d, dead-lettered %d, skipped %d, filtered %d, in flight %d, released %d; unaccounted %d",
			a.Read, sum, a.Delivered, a.DeadLettered, a.Skipped, a.Filtered, a.InFlight, a.Released, a.Unaccounted)
	}
	if sum := a.Records + a.Lost + a.SkippedGaps; a.Offsets != sum {
		return fmt.Errorf("offsets %d are not %d: records %d, lost %d, skipped %d", a.Offsets, sum, a.Records, a.Lost, a.SkippedGaps)
	}
	return nil
}

// Duplicates compares a table with the events produced, all of which must become
// rows, and returns how many rows it has besides one for each.
func Duplicates(produced, rows, distinct int) (int, error) {
	switch {
	case distinct < produced:
		return 0, fmt.Errorf("%d events were produced and the table has %d of them: %d are lost", produced, distinct, produced-distinct)
	case distinct > produced:
		return 0, fmt.Errorf("%d events were produced and the table has %d message ids", produced, distinct)
	}
	return rows - distinct, nil
}
