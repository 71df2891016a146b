package main

import (
	"fmt"
	"sync"
)

// The rules of the audit. docs/reliability.md says what each demands.
const (
	ruleLost       = "lost"            // an acknowledged event is nowhere
	ruleInvented   = "invented"        // something arrived that was not produced, or not there
	ruleValue      = "value"           // a column or a byte differs
	ruleMisplaced  = "misplaced"       // a good event among the dead letters, a bad one in the table
	ruleAborted    = "aborted"         // an event of a transaction that was not committed arrived
	ruleOrder      = "order"           // a row came first after a later one, and nothing explains it
	ruleDuplicate  = "duplicate"       // a row came again, and nothing explains it
	ruleBound      = "duplicate-bound" // more came again than a cause explains
	ruleCommit     = "commit"          // an offset was committed before what is below it was durable
	ruleTakeover   = "takeover"        // a new owner began below the committed offset
	ruleReload     = "reload"          // rows of two blueprints in one request, or of one that was replaced
	ruleFlow       = "flow"            // events stand still although all is mended
	ruleMember     = "member"          // a member ended by itself, or not as it should
	ruleProbe      = "probe"           // a member did not answer a probe beside idle connections
	ruleBooks      = "books"           // a member's own count of events does not balance
	ruleLossReport = "loss-report"     // what Kafka deleted and what members report as lost differ
	ruleSecret     = "secret"          // a secret stands in a log
	rulePromise    = "kafka"           // Kafka itself lost an acknowledged event; not the bridge's doing
)

// maxExamples is how many violations of one rule are told in full.
const maxExamples = 5

// violation is a rule that was broken.
type violation struct {
	Rule     string   `json:"rule"`
	Count    int      `json:"count"`
	Examples []string `json:"examples"`
}

// violations collects what was broken. It is safe for concurrent use.
type violations struct {
	first chan struct{}              // closed with the first
	tell  func(rule, example string) // hears the first of each rule, if not nil

	mu  sync.Mutex // guards all
	all []*violation
}

func newViolations() *violations { return &violations{first: make(chan struct{})} }

func (v *violations) add(rule, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.all) == 0 {
		close(v.first)
	}
	var of *violation
	for _, have := range v.all {
		if have.Rule == rule {
			of = have
		}
	}
	if of == nil {
		of = &violation{Rule: rule}
		v.all = append(v.all, of)
		if v.tell != nil {
			v.tell(rule, fmt.Sprintf(format, args...))
		}
	}
	of.Count++
	if len(of.Examples) < maxExamples {
		of.Examples = append(of.Examples, fmt.Sprintf(format, args...))
	}
}

// list returns the broken rules, the first broken first.
func (v *violations) list() []violation {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]violation, len(v.all))
	for i, have := range v.all {
		out[i] = *have
	}
	return out
}
