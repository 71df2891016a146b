// Package operations holds what people do with an integration besides changing it:
// replay, redrive, list dead letters, try a blueprint. The command line and the API use
// the same functions and reports.
package operations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
)

// replayTimeout bounds a replay, which is a handful of requests.
const replayTimeout = time.Minute

// ReplayForms are the forms of the position of a replay, besides times.
const ReplayForms = kafka.FormEarliest | kafka.FormLatest | kafka.FormOffset

// ReplayOptions describe a replay.
type ReplayOptions struct {
	kafka.Replay
	Integration string
	By, Reason  string // for the audit line
	Execute     bool   // commit the offsets; without it nothing is changed
	AllowSkip   bool   // execute it also where it skips events that were never delivered
}

// ReplayReport is what a replay did, or would do, with what its text needs.
type ReplayReport struct {
	pipeline.ReplayReport

	execute     bool // asked for
	allowSkip   bool
	integration string
}

// stopMembers are commands that end the members of a group.
const stopMembers = `"kubectl scale deployment/bridge --replicas=0", "docker compose stop bridge" or "systemctl stop bridge"`

// Replay plans a replay and, with Execute, commits its offsets, reads them back and logs
// one audit line. With a *pipeline.Refused the report shows why; without a report, the
// error is that of Kafka. It takes a minute at most.
func Replay(ctx context.Context, cluster *kafka.Client, o ReplayOptions, log *zap.Logger) (*ReplayReport, error) {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	r := &ReplayReport{ReplayReport: pipeline.ReplayReport{At: time.Now().UTC(), By: o.By, Reason: o.Reason, Group: o.Group, To: o.To.String()}, execute: o.Execute, allowSkip: o.AllowSkip, integration: o.Integration}
	if _, err := cluster.ID(ctx); err != nil {
		return nil, err // ends with ctx if a broker takes connections and never answers
	}
	moves, err := cluster.PlanReplay(ctx, o.Replay)
	switch {
	case errors.Is(err, kafka.ErrNoPartition):
		reason, remedy, _ := strings.Cut(err.Error(), "; ")
		return nil, &pipeline.Refused{Field: "partitions", Reason: reason, Remedy: remedy}
	case err != nil:
		return nil, err
	}
	r.ReplaySummary = kafka.Summarize(moves)
	if r.Members, err = cluster.Members(ctx, o.Group); err != nil {
		return nil, err
	}
	var refused error
	switch {
	case !o.Execute:
	case r.Totals.Skipped > 0 && !o.AllowSkip:
		refused = &pipeline.Refused{Field: "allow_skip", Reason: fmt.Sprintf("%d events were never delivered and never would be", r.Totals.Skipped),
			Remedy: "choose an earlier position, or allow to skip them"}
	default:
		err := cluster.CommitReplay(ctx, o.Group, moves)
		if active, ok := errors.AsType[*kafka.ActiveGroupError](err); ok {
			r.Members = active.Members
			refused = &pipeline.Refused{Reason: active.Error(), Remedy: "for example with " + stopMembers}
			break
		}
		if err != nil {
			log.Warn("replay: failed; its offsets may be committed", append(r.audit(), zap.Error(err))...)
			return nil, err
		}
		r.Executed = true
		log.Info("replay: offsets committed", r.audit()...)
	}
	r.Members = append([]kafka.Member{}, r.Members...) // [] in JSON, not null
	return r, refused
}

// audit is the fields of the audit line.
func (r *ReplayReport) audit() []zap.Field {
	return []zap.Field{
		zap.String("by", r.By), zap.String("reason", r.Reason), zap.String("group", r.Group), zap.String("to", r.To),
		zap.Int64("delivered_again", r.Totals.Again), zap.Int64("skipped", r.Totals.Skipped), zap.Strings("offsets", r.Offsets()),
	}
}

// WriteText writes the report for people.
func (r *ReplayReport) WriteText(b *strings.Builder) {
	mode := "dry run, nothing is changed"
	switch {
	case r.Executed:
		mode = "done, and read back"
	case r.execute:
		mode = "refused, nothing is changed"
	}
	fmt.Fprintf(b, "group %s to %s: %s\n\n", r.Group, r.To, mode)
	rows := []string{"TOPIC\tPARTITION\tCOMMITTED\tTARGET\tLOG END\tTO READ\tAGAIN\tSKIPPED\tNOTE"}
	for _, p := range r.Partitions {
		rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%s", p.Topic, p.Partition, p.CommittedText(), p.Target, p.LogEnd, p.ToRead, p.Again, p.Skipped, p.Note))
	}
	terminal.Tabulate(b, append(rows, fmt.Sprintf("total\t\t\t\t\t%d\t%d\t%d\t", r.Totals.ToRead, r.Totals.Again, r.Totals.Skipped))...)
	b.WriteByte('\n')
	switch {
	case r.Totals.Again > 0:
		fmt.Fprintf(b, "Up to %d rows will be written to the table again, with the message_id they have there already;\nthe view of bridge ddl --dedupe-view shows each once.\n", r.Totals.Again)
	case r.Totals.Changed > 0:
		b.WriteString("No event is delivered twice.\n")
	default:
		b.WriteString("Every partition is there already.\n")
	}
	if r.Totals.Skipped > 0 {
		fmt.Fprintf(b, "WARNING: %d events that were never delivered are SKIPPED: they will not reach the table.\n", r.Totals.Skipped)
		if !r.Executed && !r.allowSkip {
			b.WriteString("--execute refuses this without --allow-skip.\n")
		}
	}
	switch {
	case r.Executed:
		b.WriteString("Start the group's members again: they continue from these offsets.\n")
	case len(r.Members) > 0:
		r.writeMembers(b)
	case r.Totals.Changed > 0 && !r.execute:
		b.WriteString("The group has no members: repeat this with --execute to act.\n")
	}
}

// maxMemberName is how many bytes of a member's names are shown, which it chose itself.
const maxMemberName = 100

// writeMembers lists the members of the group and how to stop them.
func (r *ReplayReport) writeMembers(b *strings.Builder) {
	count := "1 member"
	if len(r.Members) > 1 {
		count = fmt.Sprintf("%d members", len(r.Members))
	}
	fmt.Fprintf(b, "\nThe group has %s; --execute requires that it has none:\n\n", count)
	rows := []string{"MEMBER\tCLIENT\tHOST\tINSTANCE\tPARTITIONS"}
	static := false
	for _, m := range r.Members {
		static = static || m.InstanceID != ""
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%d", plaintext.ShortLine(m.ID, maxMemberName), plaintext.ShortLine(m.ClientID, maxMemberName), plaintext.ShortLine(m.Host, maxMemberName), plaintext.ShortLine(cmp.Or(m.InstanceID, "-"), maxMemberName), m.Partitions))
	}
	terminal.Tabulate(b, rows...)
	b.WriteString("\nStop them in the way they were started:\n  kubectl scale deployment/bridge --replicas=0\n  docker compose stop bridge\n  systemctl stop bridge\n")
	if r.integration != config.DefaultIntegration {
		fmt.Fprintf(b, "Or set enabled: false in %s alone: it leaves its group, and the other integrations continue.\n", plaintext.ShortLine(r.integration, maxMemberName))
	}
	if static {
		b.WriteString("A member with an instance id may stay listed until kafka.session_timeout has passed after its end.\n")
	}
}
