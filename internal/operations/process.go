package operations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/deadletter"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus"
)

// Options of a Process. All are required, except where stated.
type Options struct {
	// Integration returns an integration by id or slug, a disabled one, too. Its errors
	// are returned as they are.
	Integration func(ctx context.Context, id string) (config.Integration, error)
	// All returns the integrations of the deployment, and Base its base.
	All  func() []config.Integration
	Base func() *config.Config
	// StoreTopics are those of the store of integrations.
	StoreTopics func() []string
	Kafka       *kafka.Client
	Connections *zerobus.Connections // nil: each operation has its own
	// Note adds an entry to the audit log: action is integration.replayed or
	// integration.redriven, result what was done. Nil without a store.
	Note    func(ctx context.Context, slug, action, by, requestID, reason string, result map[string]any) error
	Version string
	Log     *zap.Logger
	Now     func() time.Time // nil: time.Now
}

// Process does operations in a running bridge: it implements admin.Operations. Its
// methods are safe for concurrent use. One replay, redrive or reading of dead letters runs
// at a time.
type Process struct {
	o    Options
	long chan struct{} // holds a token while a long operation runs
	try  chan struct{} // holds one while a blueprint is tried

	mu     sync.Mutex // guards tables
	tables map[string]*table
}

// New returns a Process. It does no I/O.
func New(o Options) *Process {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Process{o: o, long: make(chan struct{}, 1), try: make(chan struct{}, 1), tables: map[string]*table{}}
}

// Times that operations may take.
const (
	turnTimeout    = 5 * time.Second // to wait for another operation
	readTimeout    = 2 * time.Minute
	redriveTimeout = 10 * time.Minute
	tryTimeout     = 5 * time.Second // of the expressions of a blueprint that is tried
	topicsTimeout  = 15 * time.Second
	noteTimeout    = 10 * time.Second
)

// begin waits for its turn, and returns the context of a long operation and what ends it.
func (p *Process) begin(ctx context.Context, patience, timeout time.Duration) (context.Context, func(), error) {
	turn, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case p.long <- struct{}{}:
	case <-turn.Done():
		return nil, nil, cmp.Or(ctx.Err(), error(&pipeline.Refused{Reason: "this bridge is busy with another replay, redrive or reading of dead letters", Remedy: "try again when it has ended"}))
	}
	ctx, cancel = context.WithTimeout(ctx, timeout)
	return ctx, func() { cancel(); <-p.long }, nil
}

// note adds an entry to the audit log. ctx may have ended: what was done is noted.
func (p *Process) note(ctx context.Context, slug, action, by, requestID, reason string, result map[string]any) error {
	if p.o.Note == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancel()
	if err := p.o.Note(ctx, slug, action, by, requestID, reason, result); err != nil {
		return fmt.Errorf("it was done, and could not be added to the audit log: %w; the log of the bridge has the entry", err)
	}
	return nil
}

// Replay sets the offsets of an integration's group, or with a dry run shows what that
// would do.
func (p *Process) Replay(ctx context.Context, slug string, r pipeline.ReplayRequest) (none pipeline.ReplayReport, err error) {
	i, err := p.o.Integration(ctx, slug)
	if err != nil {
		return none, err
	}
	o, err := replayOptions(i, r, p.o.Now())
	if err != nil {
		return none, err
	}
	ctx, end, err := p.begin(ctx, turnTimeout, replayTimeout)
	if err != nil {
		return none, err
	}
	defer end()
	report, err := Replay(ctx, p.o.Kafka, o, p.o.Log)
	if refused, ok := errors.AsType[*pipeline.Refused](err); ok && refused.Field == "" {
		refused.Remedy = "the integration is disabled, so wait until its last member has left the group, and replay then"
	}
	if err != nil {
		return none, err
	}
	if report.Executed {
		err = p.note(ctx, i.Name, "integration.replayed", r.By, r.RequestID, r.Reason, map[string]any{"to": report.To, "group": report.Group, "delivered_again": report.Totals.Again, "skipped": report.Totals.Skipped, "offsets": report.Offsets()})
	}
	return report.ReplayReport, err
}

// maxPosition is the longest text of a position, in bytes.
const maxPosition = 100

// replayOptions validates a request.
func replayOptions(i config.Integration, r pipeline.ReplayRequest, now time.Time) (o ReplayOptions, err error) {
	k := i.Config.Kafka
	o = ReplayOptions{Integration: i.Name, By: r.By, Reason: r.Reason, Execute: r.Execute, AllowSkip: r.AllowSkip}
	o.Group, o.Start, o.Partitions, o.Topics = k.Group, k.Start, r.Partitions, r.Topics
	if len(o.Topics) == 0 {
		o.Topics = k.Topics
	}
	if len(r.To) > maxPosition {
		return o, &pipeline.Refused{Field: "to", Reason: fmt.Sprintf("has more than %d characters", maxPosition), Remedy: "shorten it"}
	}
	if o.To, err = kafka.ParsePosition(r.To, ReplayForms, now); err != nil {
		reason, remedy, _ := strings.Cut(err.Error(), "; ")
		return o, &pipeline.Refused{Field: "to", Reason: reason, Remedy: remedy}
	}
	for _, topic := range o.Topics {
		if !slices.Contains(k.Topics, topic) {
			return o, &pipeline.Refused{Field: "topics", Reason: fmt.Sprintf("%.100q is not among the topics of the integration", topic), Remedy: "use " + strings.Join(k.Topics, " or ")}
		}
	}
	switch {
	case len(o.Partitions) > 0 && len(o.Topics) > 1:
		return o, &pipeline.Refused{Field: "partitions", Reason: "partitions need one topic", Remedy: "name one of the topics"}
	case o.Execute && i.Enabled:
		return o, &pipeline.Refused{Reason: "the integration is enabled, and its members would commit over the new offsets", Remedy: "disable it, replay, and enable it again"}
	}
	return o, nil
}

// DeadLetters groups the unresolved dead letters that f selects.
func (p *Process) DeadLetters(ctx context.Context, slug string, f pipeline.DeadLetterFilter) (none pipeline.DeadLetterGroups, err error) {
	i, err := p.o.Integration(ctx, slug)
	if err != nil {
		return none, err
	}
	ctx, end, err := p.begin(ctx, turnTimeout, readTimeout)
	if err != nil {
		return none, err
	}
	defer end()
	list, err := List(ctx, p.o.Kafka, filterOf(f), 0, nil, i.Config)
	if err != nil {
		return none, err
	}
	return pipeline.DeadLetterGroups{Topics: list.Topics, Matched: list.Matched, Resolved: list.Resolved, Groups: append([]*deadletter.Group{}, list.Groups...)}, nil
}

func filterOf(f pipeline.DeadLetterFilter) deadletter.Filter {
	return deadletter.Filter{Codes: f.Codes, Column: f.Column, From: f.From, To: f.To, Partitions: f.Partitions}
}

// Redrive maps dead letters again, and with Execute writes their rows. It ends after ten
// minutes with what it has delivered until then.
func (p *Process) Redrive(ctx context.Context, slug string, r pipeline.RedriveRequest) (none pipeline.RedriveReport, err error) {
	i, err := p.o.Integration(ctx, slug)
	if err != nil {
		return none, err
	}
	if r.Limit < 0 {
		return none, &pipeline.Refused{Field: "limit", Reason: "limit is below 0", Remedy: "use 0 for all dead letters, or how many"}
	}
	ctx, end, err := p.begin(ctx, turnTimeout, redriveTimeout)
	if err != nil {
		return none, err
	}
	defer end()
	log := p.o.Log.With(zap.String("integration", i.Name))
	parts, err := pipeline.NewParts(i.Config, p.o.Version, log, p.o.Connections)
	if err != nil {
		return none, err
	}
	defer parts.Close()
	report, err := Redrive(ctx, i.Config, parts, RedriveOptions{Filter: filterOf(r.DeadLetterFilter), Limit: r.Limit, Execute: r.Execute, By: r.By, Reason: r.Reason}, log)
	if table, ok := errors.AsType[*tableError](err); ok && ctx.Err() == nil {
		reason, remedy, _ := strings.Cut(table.Error(), "; ")
		return none, &pipeline.Refused{Reason: reason, Remedy: remedy}
	}
	if err != nil {
		return none, err
	}
	report.Groups = append([]*deadletter.Group{}, report.Groups...)
	if report.Executed && report.Matched > 0 {
		err = p.note(ctx, i.Name, "integration.redriven", r.By, r.RequestID, r.Reason, map[string]any{"matched": report.Matched, "delivered": report.Delivered, "rows": report.Rows, "rejected": report.Rejected, "filtered": report.Filtered, "failed": report.Failed})
	}
	return report.RedriveReport, err
}

// Topics returns the topics that an integration can read.
func (p *Process) Topics(ctx context.Context) ([]pipeline.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, topicsTimeout)
	defer cancel()
	hidden := map[string]bool{}
	for _, topic := range p.o.StoreTopics() {
		hidden[topic] = true
	}
	for _, i := range p.o.All() {
		for _, topic := range i.Config.Kafka.Topics {
			hidden[i.Config.Rejects.TopicFor(topic)] = true
		}
	}
	return pipeline.Topics(ctx, p.o.Kafka, func(name string) bool {
		source, of, found := strings.Cut(name, "-dlq")
		return hidden[name] || found && source != "" && (of == "" || of[0] == '-') // also of integrations that were removed
	}, p.o.Now())
}

// maxRecent bounds the events that RecentEvents returns.
const maxRecent = 50

// RecentEvents returns the newest events that an integration reads. It shows none where
// ops.live_events shows none.
func (p *Process) RecentEvents(ctx context.Context, slug string, limit int) ([]pipeline.RecentEvent, error) {
	i, err := p.o.Integration(ctx, slug)
	if err != nil {
		return nil, err
	}
	if mode := p.o.Base().Ops.LiveEvents; mode != "full" {
		return nil, &pipeline.Refused{Reason: "ops.live_events is " + mode + ", so the content of events is not shown", Remedy: "paste an event, or set ops.live_events to full"}
	}
	return pipeline.RecentEvents(ctx, p.o.Kafka, i.Config, min(max(limit, 1), maxRecent))
}
