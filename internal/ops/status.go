// Package ops serves what operators need of a running bridge: metrics, liveness and
// readiness, and the present state. It shows no event and no row.
//
// The pipelines count in IntegrationMetrics and return their state through a Source.
package ops

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/zerobus"
)

// Source returns the present state. It is called once for each request that needs
// it, from any goroutine and concurrently; it must not wait for Kafka or the sink.
type Source func() Status

// States of the process and of an integration.
const (
	StateStarting = "starting" // not yet a member of the group
	StateRunning  = "running"
	StateDraining = "draining" // completing the writes in flight before leaving
	StateStopped  = "stopped"
	// StateFailed and StateDisabled are of integrations only: one that ended with an
	// error and starts again later, and one that the configuration turns off.
	StateFailed   = "failed"
	StateDisabled = "disabled"
	// StateBlocked is of an installed integration whose record cannot run.
	StateBlocked = "blocked"
)

// defaultIntegration is the slug of the integration that a configuration without
// integrations describes.
const defaultIntegration = "default"

// Status is the state of one process at one moment, and the JSON of /status. A zero
// time is left out of the JSON. [NewStatus] makes one.
type Status struct {
	Time       time.Time `json:"time"`
	Version    string    `json:"version"`
	Deployment string    `json:"deployment"`
	Instance   string    `json:"instance"` // random, of this process
	State      string    `json:"state"`    // one of the State constants
	Started    time.Time `json:"started,omitzero"`

	// Live is false if the poll loop of an integration has stopped for good and only a
	// restart helps. An unavailable sink does not change it.
	Live       bool   `json:"live"`
	LiveReason string `json:"live_reason,omitempty"` // why Live is false

	// Ready is false while no enabled integration delivers, and while the process has a
	// reason of its own. NotReady has the reasons of the process, then those of every
	// integration that does not deliver.
	Ready    bool                `json:"ready"`
	NotReady []consumer.NotReady `json:"not_ready,omitempty"`

	// BufferedBytes are polled and not yet durable, over all integrations;
	// BufferedLimit is their budget.
	BufferedBytes int64 `json:"buffered_bytes"`
	BufferedLimit int64 `json:"buffered_limit_bytes"`

	Memory memory.State `json:"memory"`
	Totals Totals       `json:"totals"` // of all integrations listed

	// LogLinesDropped counts the log lines that standard error did not accept. It does
	// not affect Ready.
	LogLinesDropped int64 `json:"log_lines_dropped"`

	// Reload is the state of the configuration. It does not affect Ready.
	Reload ReloadStatus `json:"reload"`

	// Store is nil without a store of installed integrations.
	Store *StoreStatus `json:"store,omitempty"`

	// Webhook is nil unless webhook.url is set.
	Webhook *WebhookStatus `json:"webhook,omitempty"`

	Integrations []IntegrationStatus `json:"integrations"`
	// LeftOut counts disabled and blocked integrations that the JSON does not list.
	LeftOut int `json:"integrations_left_out,omitempty"`
}

// StoreStatus is the state of the store of installed integrations. It does not affect
// Ready while an integration runs.
type StoreStatus struct {
	Topic    string `json:"topic"`
	Known    bool   `json:"known"`    // it was read at least once
	Revision int64  `json:"revision"` // offset up to which it was read
	// Problem is why nothing can be written, or why the topic is not followed; nil: none.
	// What was read last stays in force.
	Problem      *consumer.NotReady `json:"problem,omitempty"`
	Since        time.Time          `json:"problem_since,omitzero"`
	Integrations int                `json:"integrations"`          // installed
	Shadowed     []Shadowed         `json:"shadowed,omitempty"`    // of them: a file describes one of the same slug
	Ignored      int                `json:"ignored"`               // records that are foreign, malformed or of a newer format
	Notes        []string           `json:"ignored_why,omitempty"` // of the first few
}

// Shadowed is an installed integration that does not run, since a file describes one of
// the same slug.
type Shadowed struct {
	ID          string `json:"id"`
	Integration string `json:"integration"` // slug
	Name        string `json:"name"`
	Table       string `json:"table"`
}

// WebhookStatus counts the messages to webhook.url since the start.
type WebhookStatus struct {
	Sent    int64  `json:"sent"`            // messages
	Failed  int64  `json:"failed"`          // attempts
	Dropped int64  `json:"dropped"`         // messages that were never sent
	Queued  int    `json:"queued"`          // messages that wait
	Error   string `json:"error,omitempty"` // of the last attempt
}

// IntegrationStatus is the state of one integration. Of a failed or disabled one, what
// only a running pipeline knows is empty.
type IntegrationStatus struct {
	Integration string    `json:"integration"` // slug
	Name        string    `json:"name"`        // for people; default: the slug
	State       string    `json:"state"`       // one of the State constants
	Reason      string    `json:"reason,omitempty"`
	NextTry     time.Time `json:"next_try,omitzero"` // of a failed one
	Table       string    `json:"table"`
	Group       string    `json:"group"`     // consumer group
	MemberID    string    `json:"member_id"` // assigned by the group coordinator; empty before the join

	// Live is false if only a restart of the process helps; LiveReason is why.
	Live       bool      `json:"live"`
	LiveReason string    `json:"live_reason,omitempty"`
	LastPoll   time.Time `json:"last_poll,omitzero"` // last iteration of the poll loop

	// Ready is false while events are not being delivered. NotReady has the reasons, the
	// most severe first.
	Ready    bool                `json:"ready"`
	NotReady []consumer.NotReady `json:"not_ready,omitempty"`

	Sink          zerobus.State              `json:"sink"`
	BufferedBytes int64                      `json:"buffered_bytes"`
	Partitions    []consumer.PartitionStatus `json:"partitions"`

	// Ledger has the outcomes of all events read since the integration was started in
	// this process, over all partitions it was ever assigned.
	Ledger consumer.LedgerStatus `json:"ledger"`
	// TopicLedgers are the parts of Ledger, by topic.
	TopicLedgers map[string]consumer.LedgerStatus `json:"-"`

	// Verdict is nil until [Histories.Judge] sets it. History is served where asked for.
	Verdict *Verdict `json:"verdict,omitempty"`
	History *History `json:"history,omitempty"`

	Totals Totals `json:"totals"`
	Ack    *Acks  `json:"ack,omitempty"` // nil without an acknowledgement in the last 10 seconds

	// Config is the effective configuration, with secrets redacted.
	Config any `json:"config,omitempty"`
}

// Acks are quantiles of the acknowledgement times of the last 10 seconds.
type Acks struct {
	P50 float64 `json:"p50_seconds"`
	P99 float64 `json:"p99_seconds"`
}

// NewStatus completes the facts of a process and its integrations: readiness,
// liveness and sums. s.NotReady are reasons of the process itself. An empty s.State is
// derived from the integrations.
func NewStatus(s Status, integrations []IntegrationStatus) Status {
	if s.Time.IsZero() {
		s.Time = time.Now()
	}
	of := make(map[string]int) // integrations by state
	ready, own := 0, len(s.NotReady)
	s.Integrations = make([]IntegrationStatus, 0, len(integrations))
	for _, i := range integrations {
		i.complete()
		s.Integrations = append(s.Integrations, i)
		of[i.State]++
		s.BufferedBytes += i.BufferedBytes
		s.Totals.Add(i.Totals)
		if !i.Live && s.LiveReason == "" {
			s.LiveReason = "integration " + i.Integration + ": " + i.LiveReason
		}
		if i.Ready {
			ready++
		}
		for _, r := range i.NotReady {
			r.Integration = i.Integration
			s.NotReady = append(s.NotReady, r)
		}
	}
	enabled := len(integrations) - of[StateDisabled]
	if s.State == "" {
		s.State = StateRunning
		for _, state := range []string{StateStarting, StateDraining, StateStopped} {
			if of[state] > 0 && of[StateRunning] == 0 {
				s.State = state
				break
			}
		}
	}
	s.Live = s.LiveReason == ""
	s.Ready = own == 0 && (ready > 0 || enabled == 0 && s.State == StateRunning)
	if enabled == 0 {
		remedy := "add one below integrations or in integrations_dir, or set zerobus.table; a running bridge starts it"
		if s.Store != nil {
			remedy = "install one with bridge integrations install, the API or the console, or add one to integrations_dir"
		}
		s.NotReady = append(s.NotReady, consumer.NotReady{Code: "no_integration", Text: "no integration is enabled, so nothing is delivered", Remedy: remedy})
	}
	return s
}

// complete sets what follows from the state and the reasons.
func (i *IntegrationStatus) complete() {
	i.Name = cmp.Or(i.Name, i.Integration)
	i.Live = i.LiveReason == ""
	i.Ready = i.State == StateRunning && len(i.NotReady) == 0
	if i.Partitions == nil {
		i.Partitions = []consumer.PartitionStatus{} // [] in JSON
	}
	switch {
	case i.Ready || i.State == StateDisabled || len(i.NotReady) > 0:
	case i.State == StateFailed:
		i.NotReady = []consumer.NotReady{{Code: "integration_failed", Text: i.Reason, Remedy: "fix this; the integration starts again automatically, or at once when its configuration changes"}}
	default:
		text := strings.TrimSuffix("the integration is "+i.State+"; "+i.Reason, "; ")
		i.NotReady = []consumer.NotReady{{Code: i.State, Text: text, Remedy: "wait; this state ends automatically"}}
	}
}

// Only returns the status as if the named integration were the only one; ok is false if
// there is none of this name. Reasons of the process stay.
func (s Status) Only(integration string) (only Status, ok bool) {
	at := slices.IndexFunc(s.Integrations, func(i IntegrationStatus) bool { return i.Integration == integration })
	if at < 0 {
		return s, false
	}
	i := s.Integrations[at]
	s.Integrations, s.State, s.Totals, s.BufferedBytes = s.Integrations[at:at+1], i.State, i.Totals, i.BufferedBytes
	s.NotReady = slices.DeleteFunc(slices.Clone(s.NotReady), func(r consumer.NotReady) bool { return r.Integration != "" && r.Integration != integration })
	s.Ready = len(s.NotReady) == 0 && i.Ready
	return s, true
}

// Bounds of /status. With ?integration=NAME, it has all of that one.
const (
	maxConfigs = 20  // integrations up to which it has the configuration of each
	maxOff     = 100 // integrations that it lists of those that are disabled or blocked
	maxReasons = 100 // reasons of NotReady
)

// bounded returns s without what would make the answer too large: installed integrations
// can be a thousand.
func (s Status) bounded() Status {
	all, off := make([]IntegrationStatus, 0, len(s.Integrations)), 0
	for _, i := range s.Integrations {
		if i.State == StateDisabled || i.State == StateBlocked {
			if off++; off > maxOff {
				s.LeftOut++
				continue
			}
		}
		if len(s.Integrations) > maxConfigs {
			i.Config = nil
		}
		all = append(all, i)
	}
	s.Integrations = all
	if more := len(s.NotReady) - maxReasons; more > 0 {
		s.NotReady = append(slices.Clone(s.NotReady[:maxReasons]), consumer.NotReady{Code: "and_more", Text: fmt.Sprintf("%d more reasons are not listed", more), Remedy: "resolve these first"})
	}
	return s
}

// oldestPoll returns when the integration polled that has not polled for longest; zero
// without one.
func (s Status) oldestPoll() (at time.Time) {
	for _, i := range s.Integrations {
		if at.IsZero() || !i.LastPoll.IsZero() && i.LastPoll.Before(at) {
			at = i.LastPoll
		}
	}
	return at
}

// Lag returns the events behind over the partitions whose lag is known, and whether all
// are known. Without partitions none is.
func (i *IntegrationStatus) Lag() (events int64, known bool) {
	known = len(i.Partitions) > 0
	for _, p := range i.Partitions {
		if p.Lag < 0 {
			known = false
			continue
		}
		events += p.Lag
	}
	return events, known
}

// Oldest returns the age of the oldest unacknowledged event; 0 if there is none.
func (i *IntegrationStatus) Oldest() (oldest time.Duration) {
	for _, p := range i.Partitions {
		oldest = max(oldest, time.Duration(p.Oldest))
	}
	return oldest
}

// Totals count since the start, over all topics and partitions.
type Totals struct {
	EventsRead        int64 `json:"events_read"`
	EventBytesRead    int64 `json:"event_bytes_read"`
	RowsDelivered     int64 `json:"rows_delivered"`
	RowBytesDelivered int64 `json:"row_bytes_delivered"`
	EventsRejected    int64 `json:"events_rejected"`
	EventsFiltered    int64 `json:"events_filtered"`
	DeadLetters       int64 `json:"dead_letters"`
	BatchesDelivered  int64 `json:"batches_delivered"`
	BatchesSplit      int64 `json:"batches_split"`
	SinkRequests      int64 `json:"sink_requests"`
	SinkRetries       int64 `json:"sink_retries"`
	Commits           int64 `json:"commits"`
	CommitErrors      int64 `json:"commit_errors"`
	TokensMinted      int64 `json:"tokens_minted"`
	TokenErrors       int64 `json:"token_errors"`
	Rebalances        int64 `json:"rebalances"`
}

// Add adds the counts of o.
func (t *Totals) Add(o Totals) {
	sum, more := reflect.ValueOf(t).Elem(), reflect.ValueOf(o)
	for i := range sum.NumField() {
		sum.Field(i).SetInt(sum.Field(i).Int() + more.Field(i).Int())
	}
}

// States of the configuration, for ReloadStatus.State.
const (
	ReloadOK     = "ok"     // the files are in force, except for PendingRestart
	ReloadFailed = "failed" // the files were refused; the previous configuration is in force
)

// ReloadStatus is the state of the configuration and of the last attempt to reload
// it.
type ReloadStatus struct {
	State string    `json:"state"`           // one of the Reload constants
	At    time.Time `json:"at,omitzero"`     // of the last attempt; of the start before the first
	Error string    `json:"error,omitempty"` // why the files were refused: file, line, remedy
	// Generation counts the configurations in force since the start, from 1.
	Generation int `json:"generation"`
	// Hash is the same for members with the same configuration and blueprint in force.
	// It does not depend on secrets.
	Hash string `json:"hash"`
	// PendingRestart are changed keys that take effect after a restart.
	PendingRestart []string `json:"pending_restart,omitempty"`
}
