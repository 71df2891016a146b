package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/datafly/bridge/consumer"
)

// replayReport is what bridge replay says, and the JSON of --output json.
type replayReport struct {
	At       time.Time `json:"at"`
	By       string    `json:"by"` // OS user@host
	Reason   string    `json:"reason,omitempty"`
	Group    string    `json:"group"`
	To       string    `json:"to"` // a relative time made absolute
	Executed bool      `json:"executed"`

	Partitions []replayPartition `json:"partitions"`
	Totals     replayTotals      `json:"totals"`
	Members    []replayMember    `json:"members"` // who is in the group; --execute refuses while there is one

	members   []consumer.Member
	execute   bool // asked for
	allowSkip bool
}

// replayPartition is one line of the table. Offsets are counted as events.
type replayPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed *int64 `json:"committed"` // null: none
	Target    int64  `json:"target"`
	LogStart  int64  `json:"log_start"`
	LogEnd    int64  `json:"log_end"`
	ToRead    int64  `json:"to_read"`         // from the target to the log's end
	Again     int64  `json:"delivered_again"` // delivered before, as far as the group has committed
	Skipped   int64  `json:"skipped"`         // never delivered, and passed over
	Note      string `json:"note,omitempty"`
}

type replayTotals struct {
	Partitions int   `json:"partitions"`
	Changed    int   `json:"changed"`
	ToRead     int64 `json:"to_read"`
	Again      int64 `json:"delivered_again"`
	Skipped    int64 `json:"skipped"`
}

type replayMember struct {
	ID         string `json:"member_id"`
	InstanceID string `json:"instance_id,omitempty"`
	ClientID   string `json:"client_id"`
	Host       string `json:"host"`
	Partitions int    `json:"partitions"`
}

func (r *replayReport) add(moves []consumer.Move) {
	for _, m := range moves {
		p := replayPartition{Topic: m.Topic, Partition: m.Partition, Target: m.Target, LogStart: m.LogStart, LogEnd: m.LogEnd,
			ToRead: m.LogEnd - m.Target, Again: m.Again, Skipped: m.Skipped, Note: replayNote(m)}
		if m.Committed >= 0 {
			p.Committed = &m.Committed
		}
		r.Partitions = append(r.Partitions, p)
		r.Totals.Partitions++
		if m.Changed() {
			r.Totals.Changed++
		}
		r.Totals.ToRead += p.ToRead
		r.Totals.Again += m.Again
		r.Totals.Skipped += m.Skipped
	}
}

// replayNote says what is out of the ordinary.
func replayNote(m consumer.Move) string {
	var notes []string
	if m.Asked < m.LogStart {
		notes = append(notes, fmt.Sprintf("the log begins at %d: %d events before it are removed already", m.LogStart, m.LogStart-m.Asked))
	}
	if m.Asked > m.LogEnd {
		notes = append(notes, fmt.Sprintf("%d lies past the log's end", m.Asked))
	}
	if m.Committed > m.LogEnd {
		notes = append(notes, "the committed offset lies past the log's end: was the topic made anew?")
	}
	if !m.Changed() {
		notes = append(notes, "is there already")
	}
	return strings.Join(notes, "; ")
}

func (r *replayReport) addMembers() {
	r.Members = make([]replayMember, 0, len(r.members))
	for _, m := range r.members {
		r.Members = append(r.Members, replayMember(m))
	}
}

// offsets are the changed partitions as topic/partition:from->to.
func (r *replayReport) offsets() []string {
	var all []string
	for _, p := range r.Partitions {
		if p.Committed != nil && *p.Committed == p.Target {
			continue
		}
		all = append(all, fmt.Sprintf("%s/%d:%s->%d", p.Topic, p.Partition, offsetText(p.Committed), p.Target))
	}
	return all
}

func offsetText(offset *int64) string {
	if offset == nil {
		return "none"
	}
	return fmt.Sprint(*offset)
}

func (r *replayReport) write(w io.Writer, form outputForm, look style) error {
	if form == outputJSON {
		return json.NewEncoder(w).Encode(r)
	}
	var b strings.Builder
	mode := "dry run, nothing is changed"
	switch {
	case r.Executed:
		mode = "done, and read back"
	case r.execute:
		mode = "refused, nothing is changed"
	}
	fmt.Fprintf(&b, "group %s to %s: %s\n\n", r.Group, r.To, mode)
	r.table(&b)
	b.WriteByte('\n')
	r.expect(&b)
	r.standing(&b)
	if r.Executed {
		b.WriteString("Start the group's members again: they go on from these offsets.\n")
	}
	_, err := io.WriteString(w, look.table(b.String()))
	return err
}

func (r *replayReport) table(w io.Writer) {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TOPIC\tPARTITION\tCOMMITTED\tTARGET\tLOG END\tTO READ\tAGAIN\tSKIPPED\tNOTE")
	for _, p := range r.Partitions {
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", p.Topic, p.Partition, offsetText(p.Committed), p.Target, p.LogEnd, p.ToRead, p.Again, p.Skipped, p.Note)
	}
	fmt.Fprintf(t, "total\t\t\t\t\t%d\t%d\t%d\t\n", r.Totals.ToRead, r.Totals.Again, r.Totals.Skipped)
	_ = t.Flush() // into memory
	for line := range strings.Lines(b.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// expect says what the moves mean for the table's rows.
func (r *replayReport) expect(w io.Writer) {
	switch {
	case r.Totals.Again > 0:
		fmt.Fprintf(w, "Up to %d rows will be in the table once more, with the message_id they have there already;\nthe view of bridge ddl --dedupe-view shows each once.\n", r.Totals.Again)
	case r.Totals.Changed > 0:
		fmt.Fprintln(w, "No event is delivered twice.")
	default:
		fmt.Fprintln(w, "Every partition is there already.")
	}
	if r.Totals.Skipped > 0 {
		fmt.Fprintf(w, "WARNING: %d events that were never delivered are PASSED OVER: they will not reach the table.\n", r.Totals.Skipped)
		if !r.Executed && !r.allowSkip {
			fmt.Fprintln(w, "--execute refuses this without --allow-skip.")
		}
	}
}

// nameMax is how many bytes of a member's names are shown: it chose them itself.
const nameMax = 100

// standing lists who is in the group and how to end that.
func (r *replayReport) standing(w io.Writer) {
	switch {
	case r.Executed:
		return
	case len(r.Members) == 0 && r.Totals.Changed == 0:
		return // there is nothing to act on
	case len(r.Members) == 0 && !r.execute:
		fmt.Fprintln(w, "The group has no members: repeat this with --execute to act.")
		return
	case len(r.Members) == 0:
		return
	}
	fmt.Fprintf(w, "\nThe group has %s; --execute needs it to have none:\n\n", counted(len(r.Members), "member"))
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tCLIENT\tHOST\tINSTANCE\tPARTITIONS")
	static := false
	for _, m := range r.Members {
		static = static || m.InstanceID != ""
		instance := m.InstanceID
		if instance == "" {
			instance = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\n", legible(m.ID, nameMax), legible(m.ClientID, nameMax), legible(m.Host, nameMax), legible(instance, nameMax), m.Partitions)
	}
	_ = t.Flush() // into memory
	fmt.Fprint(w, "\nStop them in the way they were started:\n  kubectl scale deployment/bridge --replicas=0\n  docker compose stop bridge\n  systemctl stop bridge\n")
	if static {
		fmt.Fprintln(w, "A member with an instance id may stay listed until kafka.session_timeout has passed after its end.")
	}
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
