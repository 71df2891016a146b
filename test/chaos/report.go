package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/oracle"
)

// report is the audit of a run.
type report struct {
	Seed        uint64             `json:"seed"`
	Transport   string             `json:"transport"`
	Protocol    string             `json:"protocol"`
	Seconds     float64            `json:"seconds"` // of the schedule and the rest
	Interrupted bool               `json:"interrupted,omitempty"`
	Faults      map[string]int     `json:"faults"` // that were carried out, by kind
	Processes   int                `json:"member_processes"`
	Fresh       float64            `json:"fresh_event_seconds"` // from the end of the faults to a new row on every partition
	Accounts    int64              `json:"accounts_checked"`
	Produced    int64              `json:"produced"`
	Totals      oracle.Totals      `json:"totals"`
	Others      []otherReport      `json:"other_integrations"`
	Violations  []oracle.Violation `json:"violations"`
	Dir         string             `json:"dir,omitempty"` // with the logs, when it is kept
	Repeat      string             `json:"repeat"`
}

// otherReport is the audit of an integration besides the main one.
type otherReport struct {
	Integration string        `json:"integration"`
	Faults      int           `json:"faults"` // that affected it alone
	Totals      oracle.Totals `json:"totals"`
}

func (r *run) report(start time.Time, interrupted bool) *report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := &report{
		Seed: r.o.seed, Transport: r.o.transport, Protocol: r.o.protocol, Seconds: time.Since(start).Seconds(), Interrupted: interrupted,
		Faults: map[string]int{}, Processes: r.fleet.processes(), Fresh: r.fresh.Seconds(), Accounts: r.accounts,
		Produced: int64(r.producer.next.Load()), Totals: r.ledger.Totals(), Violations: r.v.List(), Repeat: r.o.repeat(),
	}
	for _, s := range r.others {
		rep.Others = append(rep.Others, otherReport{s.name, s.faults, s.ledger.Totals()})
	}
	for _, a := range r.faults {
		rep.Faults[a.Kind]++
	}
	return rep
}

func (rep *report) failed() bool { return rep.Interrupted || len(rep.Violations) > 0 }

// acknowledged counts events of all integrations.
func (rep *report) acknowledged() int64 {
	n := rep.Totals.Acknowledged
	for _, o := range rep.Others {
		n += o.Totals.Acknowledged
	}
	return n
}

func (rep *report) print(w io.Writer) {
	t := rep.Totals
	faults := 0
	for _, n := range rep.Faults {
		faults += n
	}
	fmt.Fprintf(w, "\nAudit, seed %d, transport %s, %s protocol, %.0f s\n\n", rep.Seed, rep.Transport, rep.Protocol, rep.Seconds)
	for _, line := range []struct {
		what string
		n    any
		more string
	}{
		{"faults", faults, fmt.Sprintf("of %d kinds", len(rep.Faults))},
		{"member processes", rep.Processes, ""},
		{"events produced", rep.Produced, ""},
		{"events acknowledged by Kafka", t.Acknowledged, ""},
		{"  rows in the table, each event once", t.DistinctRows, ""},
		{"  dead letters, each event once", t.DistinctDeadLetters, ""},
		{"  filtered (tombstones)", t.Filtered, ""},
		{"  deleted in Kafka before delivery, and reported", t.Deleted, ""},
		{"  lost", t.Lost, ""},
		{"events of aborted transactions", t.Aborted, ""},
		{"duplicate rows", t.Rows - t.DistinctRows, ""},
		{"  because a partition was assigned again", t.AgainByAssignment, fmt.Sprintf("in %d assignments; at most %d at a time", t.Assignments, t.LongestStepBack)},
		{"  because an acknowledgement was lost", t.AgainByLostAck, fmt.Sprintf("in %d of %d writes", t.RepeatedWrites, t.Writes)},
		{"  because columns or blueprint changed", t.AgainByRemapping, ""},
		{"duplicate dead letters", t.AgainDeadLetters, ""},
		{"rows first seen after a later one, two members", t.Overlaps, ""},
		{"committed offsets compared with the rows", t.CommitChecks, ""},
		{"partitions that used another blueprint", t.Reloads, ""},
		{"accounts of members checked", rep.Accounts, ""},
		{"fresh event on every partition after", fmt.Sprintf("%.1f s", rep.Fresh), ""},
	} {
		fmt.Fprintf(w, "  %-52s %12v  %s\n", line.what, line.n, line.more)
	}
	fmt.Fprintf(w, "\n  %-20s %12s %8s %12s %6s %10s %18s\n", "other integrations", "acknowledged", "rows", "dead letters", "lost", "duplicates", "faults of its own")
	for _, o := range rep.Others {
		t := o.Totals
		fmt.Fprintf(w, "  %-20s %12d %8d %12d %6d %10d %18d\n", o.Integration, t.Acknowledged, t.DistinctRows, t.DistinctDeadLetters, t.Lost, t.Rows-t.DistinctRows, o.Faults)
	}
	fmt.Fprintf(w, "\nFaults:")
	for i, name := range slices.Sorted(maps.Keys(rep.Faults)) {
		if i%5 == 0 {
			fmt.Fprintf(w, "\n ")
		}
		fmt.Fprintf(w, " %-19s", fmt.Sprintf("%s %d", name, rep.Faults[name]))
	}
	fmt.Fprintln(w)
	switch {
	case len(rep.Violations) > 0:
		fmt.Fprintf(w, "\nFAILED, seed %d\n", rep.Seed)
		for _, v := range rep.Violations {
			fmt.Fprintf(w, "  rule %s, broken %d times:\n    %s\n", v.Rule, v.Count, strings.Join(v.Examples, "\n    "))
		}
	case rep.Interrupted:
		fmt.Fprintf(w, "\nInterrupted: no violation so far; what was in flight was not checked.\n")
	default:
		fmt.Fprintf(w, "\nPassed: %d acknowledged events, 0 lost.\n", rep.acknowledged())
	}
	if rep.Dir != "" {
		fmt.Fprintf(w, "\nLogs: %s\nThe same schedule again: %s\n", rep.Dir, rep.Repeat)
	}
}
