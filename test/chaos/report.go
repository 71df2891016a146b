package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// report is the audit of a run.
type report struct {
	Seed        uint64         `json:"seed"`
	Transport   string         `json:"transport"`
	Protocol    string         `json:"protocol"`
	Seconds     float64        `json:"seconds"` // of the schedule and the rest
	Interrupted bool           `json:"interrupted,omitempty"`
	Faults      map[string]int `json:"faults"` // that were carried out, by kind
	Lives       int            `json:"member_processes"`
	Fresh       float64        `json:"fresh_event_seconds"` // from the end of the faults to a new row on every partition
	Books       int64          `json:"books_held"`
	Produced    int64          `json:"produced"`
	Totals      totals         `json:"totals"`
	Violations  []violation    `json:"violations"`
	Dir         string         `json:"dir,omitempty"` // with the logs, when it is kept
	Repeat      string         `json:"repeat"`
}

func (r *run) report(start time.Time, planned []fault, interrupted bool) *report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := &report{
		Seed: r.o.seed, Transport: r.o.transport, Protocol: r.o.protocol, Seconds: time.Since(start).Seconds(), Interrupted: interrupted,
		Faults: map[string]int{}, Lives: r.fleet.begun(), Fresh: r.fresh.Seconds(), Books: r.books,
		Produced: int64(r.producer.next.Load()), Totals: r.ledger.totals(), Violations: r.v.list(), Repeat: r.o.repeat(),
	}
	for _, d := range r.faults {
		rep.Faults[d.Kind]++
	}
	return rep
}

func (rep *report) failed() bool { return rep.Interrupted || len(rep.Violations) > 0 }

func (rep *report) print(w io.Writer) {
	t := rep.Totals
	faults := 0
	for _, n := range rep.Faults {
		faults += n
	}
	line := func(what string, n any, more ...string) {
		fmt.Fprintf(w, "  %-52s %12v  %s\n", what, n, strings.Join(more, " "))
	}
	fmt.Fprintf(w, "\nAudit, seed %d, transport %s, %s protocol, %.0f s\n\n", rep.Seed, rep.Transport, rep.Protocol, rep.Seconds)
	line("faults", faults, fmt.Sprintf("of %d kinds", len(rep.Faults)))
	line("member processes", rep.Lives)
	line("events produced", rep.Produced)
	line("events acknowledged by Kafka", t.Acked)
	line("  rows in the table, each event once", t.Distinct)
	line("  dead letters, each event once", t.DistinctDLQ)
	line("  filtered (tombstones)", t.Filtered)
	line("  deleted in Kafka before delivery, and reported", t.Deleted)
	line("  lost", t.Lost)
	line("events of aborted transactions", t.Aborted)
	line("rows that came again", t.Rows-t.Distinct)
	line("  because a partition changed its member", t.AgainTakeover, fmt.Sprintf("in %d tenures; at most %d at a time", t.Takeovers, t.LongestBack))
	line("  because an acknowledgement was lost", t.AgainAck, fmt.Sprintf("in %d of %d writes", t.RepeatWrites, t.Writes))
	line("  because columns or blueprint changed", t.AgainRefused)
	line("dead letters that came again", t.AgainLetters)
	line("rows first seen behind a later one, two members", t.Overlaps)
	line("committed offsets held against the rows", t.Checks)
	line("partitions that took up another blueprint", t.Reloads)
	line("books of members held", rep.Books)
	line("fresh event on every partition after", fmt.Sprintf("%.1f s", rep.Fresh))
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
			fmt.Fprintf(w, "  rule %s, broken %d times:\n", v.Rule, v.Count)
			for _, text := range v.Examples {
				fmt.Fprintf(w, "    %s\n", text)
			}
		}
	case rep.Interrupted:
		fmt.Fprintf(w, "\nInterrupted: nothing was found so far, and what was in flight is not judged.\n")
	default:
		fmt.Fprintf(w, "\nPassed: %d acknowledged events, 0 lost.\n", t.Acked)
	}
	if rep.Dir != "" {
		fmt.Fprintf(w, "\nLogs: %s\nThe same schedule again: %s\n", rep.Dir, rep.Repeat)
	}
}
