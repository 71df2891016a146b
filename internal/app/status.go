package app

import (
	"slices"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/console"
	"github.com/datafly/bridge/internal/integrations"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/group"
	"github.com/datafly/bridge/internal/ops/live"
	"github.com/datafly/bridge/internal/panics"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/webhook"
	"github.com/datafly/bridge/zerobus"
)

// facts returns what the console shows of the process.
func (a *App) facts() console.Facts {
	base := a.base.Load()
	return console.Facts{Deployment: base.Deployment, Version: a.o.Version, Mode: base.Ops.LiveEvents}
}

// Status returns what /status shows. A process that runs out of file descriptors is not
// ready.
func (a *App) Status() ops.Status {
	known := a.integrations.Status()
	var all []ops.IntegrationStatus
	for _, i := range known {
		s := statusOf(i)
		if len(known) > 1 || a.installed.store != nil {
			s.LiveReason = "" // one that is stuck is started again, without the process
		}
		all = append(all, s)
	}
	all = a.addInstalled(all)
	base := a.base.Load()
	s := ops.Status{Version: a.o.Version, Deployment: base.Deployment, Instance: a.instance, Started: a.started, BufferedLimit: int64(base.Delivery.MaxBuffered),
		Memory: a.memory.keeper.State(), Reload: a.reloads.now(), LogLinesDropped: a.droppedLogLines(), Store: a.storeStatus()}
	if short := a.descriptors.short(time.Now(), a.memory.descriptorsNeeded()); short != nil {
		s.NotReady = append(s.NotReady, *short)
	}
	if s.Store != nil && !s.Store.Known && !slices.ContainsFunc(all, func(i ops.IntegrationStatus) bool { return i.State != ops.StateDisabled }) {
		s.NotReady = append(s.NotReady, consumer.NotReady{Code: "store_not_read", Text: "the installed integrations are not known: " + s.Store.Topic + " was not read yet",
			Remedy: "see whether the brokers answer; it is read as soon as they do"})
	}
	if a.webhook != nil {
		s.Webhook = new(a.webhook.Status())
	}
	s = ops.NewStatus(s, all)
	a.histories.Judge(&s)
	return s
}

// states returns what the webhook reports of each integration.
func (a *App) states() (all []webhook.State) {
	for _, i := range a.Status().Integrations {
		v := i.Verdict
		all = append(all, webhook.State{Integration: i.Integration, State: v.State, Reason: v.Text, Remedy: v.Remedy, Since: v.Since})
	}
	return all
}

// statusOf returns the state of an integration. One that does not run is shown as it is
// wanted, with the counts of its last pipeline and without its sink.
func statusOf(i integrations.Status) (s ops.IntegrationStatus) {
	runs := i.State == integrations.Running || i.State == integrations.Draining
	if p := pipelineOf(i); p != nil {
		if err := guarded(func() { s = p.Status() }); err != nil {
			runs, i.State, i.Reason = false, integrations.Failed, err.Error()
		}
	}
	if !runs {
		z := i.Config.Zerobus
		s.Integration, s.Group, s.Table, s.Config = i.Name, i.Config.Kafka.Group, z.Catalog+"."+z.Schema+"."+z.Table, i.Config
		s.State, s.NotReady, s.LiveReason, s.Sink = i.State, nil, "", zerobus.State{Table: s.Table}
	}
	s.Reason, s.NextTry = i.Reason, i.NextTry
	return s
}

// guarded calls f and returns its panic as an error.
func guarded(f func()) (err error) {
	defer panics.To(&err)
	f()
	return nil
}

// pipelineOf returns the present pipeline of an integration, or the last one; nil
// without.
func pipelineOf(i integrations.Status) *pipeline.Pipeline {
	p, _ := i.Runner.(*pipeline.Pipeline)
	return p
}

// settingsOf returns the settings in force of an integration; of one that does not
// run, those it would run with.
func settingsOf(i integrations.Status) *config.Config {
	if p := pipelineOf(i); p != nil && i.State == integrations.Running {
		return p.Settings()
	}
	return i.Config
}

// enabled returns the integrations that the configuration enables.
func (a *App) enabled() (all []group.Integration) {
	for _, i := range a.integrations.Status() {
		if i.State != integrations.Disabled {
			all = append(all, group.Integration{Name: i.Name, Group: i.Config.Kafka.Group, Topics: i.Config.Kafka.Topics})
		}
	}
	return all
}

// deadLetters returns what reads the dead letters of an integration; nil without.
func (a *App) deadLetters(integration string) live.DeadLetters {
	for _, i := range a.integrations.Status() {
		if p := pipelineOf(i); p != nil && i.Name == integration {
			return p.DeadLetters()
		}
	}
	return nil
}
