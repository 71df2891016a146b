package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/oracle"
	"github.com/datafly/bridge/zerobus/emulator"
)

// Every member has five integrations. Most faults are about the main one. The others
// have a small topic, a table and a group each.
const (
	mainIntegration = "default"
	otherCount      = 4
	otherPartitions = 3
	// isolatedWithin bounds how long the other integrations may take to commit a new
	// event on every partition, while a fault affects one alone. Other faults of the
	// schedule may affect all of them meanwhile.
	isolatedWithin = 3 * time.Minute
	// aloneWithin is how long such a fault waits for the one before it to end.
	aloneWithin = 30 * time.Second
)

// source is an integration: its events, and the ledger of their outcomes.
type source struct {
	name, group, deadLetters string
	gen                      generator
	ledger                   *oracle.Ledger
	producer                 *producer
	reader                   *reader

	table  string // full name of the one it writes to now; guarded by run.alone
	faults int    // that affected it alone; guarded by run.mu
}

func newSource(name string, gen generator, cfg oracle.Config, v *oracle.Violations) *source {
	cfg.Kind = gen.outcome
	s := &source{name: name, group: group, deadLetters: deadLetters, gen: gen, table: tableName}
	if name != mainIntegration {
		v = v.Of("integration " + name)
		s.group, s.deadLetters, s.table = group+"-"+name, gen.topic+"-dlq-"+name, otherTables(name)[0]
	}
	s.ledger = oracle.NewLedger(cfg, v)
	return s
}

// otherNames lists the integrations besides the main one.
func otherNames() (names []string) {
	for i := range otherCount {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	return names
}

func otherTopic(name string) string { return "chaos." + name }

// otherTables are those that an integration uses in turn.
func otherTables(name string) []string {
	return []string{tableName + "_" + name, tableName + "_" + name + "b"}
}

// otherSecret is the file with the client secret of an integration.
func (r *rig) otherSecret(name string) string { return r.secrets.file + "-" + name }

// overlays is the folder of integrations_dir, which all members read.
func (r *rig) overlays() string { return filepath.Join(r.dir, "integrations") }

func (r *rig) overlay(name string) string { return filepath.Join(r.overlays(), name+".yaml") }

// putOverlay writes the configuration of an integration.
func (r *rig) putOverlay(name, table string) error {
	_, table, _ = strings.Cut(table, "events.")
	return replaceFile(r.overlay(name), fmt.Sprintf("%s:\n  kafka: {topics: [%s]}\n  zerobus: {table: %s, client_secret_file: %s}\n",
		name, otherTopic(name), table, r.otherSecret(name)))
}

// prepareOthers makes topics, tables and configurations of the other integrations.
func (r *rig) prepareOthers(ctx context.Context) error {
	if err := os.Mkdir(r.overlays(), 0o700); err != nil {
		return fmt.Errorf("making the folder of integrations: %w; free some space", err)
	}
	for _, name := range otherNames() {
		for _, topic := range []string{otherTopic(name), otherTopic(name) + "-dlq-" + name} {
			if _, err := r.adm.CreateTopic(ctx, otherPartitions, -1, nil, topic); err != nil {
				return fmt.Errorf("creating topic %s: %w", topic, err)
			}
		}
		for _, table := range otherTables(name) {
			if _, err := r.workspace.CreateTable(strings.Replace(tableDDL, tableName, table, 1)); err != nil {
				return err
			}
		}
		if err := r.putOverlay(name, otherTables(name)[0]); err != nil {
			return err
		}
	}
	return nil
}

// sources lists all integrations, the main one first.
func (r *run) sources() []*source { return append([]*source{r.source}, r.others...) }

// sourceOf returns an integration by its name, which a member has logged or reported;
// without a name it is the main one.
func (r *run) sourceOf(name string) *source {
	i := slices.IndexFunc(r.others, func(s *source) bool { return s.name == name })
	if i < 0 {
		return r.source
	}
	return r.others[i]
}

// start makes the clients of an integration and has its rows added to the ledger.
// The caller closes them.
func (r *run) start(ctx context.Context, src *source) (err error) {
	if src.producer, err = newProducer(r, src); err != nil {
		return err
	}
	if src.reader, err = newReader(r, src); err != nil {
		return err
	}
	src.reader.start(ctx)
	if src == r.source {
		r.rig.table.OnRows(r.kept)
		return nil
	}
	for _, table := range otherTables(src.name) {
		r.rig.workspace.Table(table).OnRows(func(rows []emulator.Row) {
			src.ledger.Written(r.readRows(src, rows, src.producer.produced), time.Now())
		})
	}
	return nil
}

func (s *source) close() {
	if s.producer != nil {
		s.producer.close()
	}
	if s.reader != nil {
		s.reader.close()
	}
}

// alone has a fault affect one of the other integrations. One of them at a time has
// such a fault: else two could wait for each other.
func alone(act func(r *run, f fault, victim *source) error) action {
	return func(r *run, f fault) error {
		if !until(r.ctx, aloneWithin, r.alone.TryLock) {
			r.logf("%s does not come: another integration has a fault of its own", f.Kind)
			return nil
		}
		defer r.alone.Unlock()
		victim := r.others[f.Target%len(r.others)]
		r.mu.Lock()
		victim.faults++
		r.mu.Unlock()
		return act(r, f, victim)
	}
}

// untilOthersAdvance waits until the fault has taken hold of the victim, and then
// until each of the other integrations has committed an event on every partition
// that was produced after that. The fault must last meanwhile.
func (r *run) untilOthersAdvance(f fault, victim *source, tookHold func() bool) error {
	if !until(r.ctx, isolatedWithin, tookHold) {
		if r.ctx.Err() == nil {
			return fmt.Errorf("integration %s was not affected within %s", victim.name, isolatedWithin)
		}
		return nil
	}
	others := slices.DeleteFunc(r.sources(), func(s *source) bool { return s == victim })
	ends := map[*source]map[int32]int64{}
	for _, s := range others {
		err := r.retry("reading the ends of topic "+s.gen.topic, func(ctx context.Context) (err error) {
			ends[s], err = r.ends(ctx, s.gen.topic)
			return err
		})
		if err != nil {
			return err
		}
	}
	r.logf("%s: integration %s is affected; the others must commit new events within %s", f.Kind, victim.name, isolatedWithin)
	began := time.Now()
	r.last(f)
	waiting := ""
	if !until(r.ctx, isolatedWithin, func() bool {
		others = slices.DeleteFunc(others, func(s *source) bool {
			committed, err := r.committed(r.ctx, s.group, s.gen.topic)
			if err != nil {
				return false // a broker is away
			}
			for p, end := range ends[s] {
				if at := committed[s.gen.topic][p]; at <= end {
					waiting = fmt.Sprintf("integration %s has committed offset %d of %d/%s, whose end was %d", s.name, at, p, s.gen.topic, end)
					return false
				}
			}
			return true
		})
		return len(others) == 0
	}) && r.ctx.Err() == nil {
		r.v.Add(oracle.RuleFlow, "%s affects integration %s alone, and %d others have not committed a new event on every partition within %s: %s",
			f.Kind, victim.name, len(others), isolatedWithin, waiting)
	}
	r.logf("%s of integration %s ends after %.0f s", f.Kind, victim.name, time.Since(began).Seconds())
	return nil
}

// failing has requests for the victim's table fail.
func failing(e emulator.Fault, at ...string) action {
	return alone(func(r *run, f fault, victim *source) error {
		e := e
		if e.Status == http.StatusForbidden && f.Target/otherCount%2 == 0 {
			e.Status = http.StatusNotFound
		}
		var ids []string
		var err error
		for _, e.Endpoint = range append(r.endpoints(), at...) {
			e.Table = victim.table
			added, aerr := r.rig.workspace.AddFault(e)
			err = errors.Join(err, aerr)
			ids = append(ids, added.ID)
			defer r.rig.workspace.RemoveFault(added.ID)
		}
		if err != nil {
			return err
		}
		return r.untilOthersAdvance(f, victim, func() bool {
			return slices.ContainsFunc(r.rig.workspace.Faults(), func(e emulator.Fault) bool { return e.Hits > 0 && slices.Contains(ids, e.ID) })
		})
	})
}

// integrationSecret puts a wrong secret into the victim's file, and expires every
// token, or it would not be read within the run.
var integrationSecret = alone(func(r *run, f fault, victim *source) error {
	file := r.rig.otherSecret(victim.name)
	if err := r.rig.secrets.spoil(file); err != nil {
		return err
	}
	r.rig.workspace.RevokeTokens()
	err := r.untilOthersAdvance(f, victim, func() bool {
		return r.members(func(i *integrationStatus) bool { return i != nil && !i.Ready }, victim) > 0
	})
	return errors.Join(err, r.rig.secrets.restore(file))
})

// integrationPoison sends the victim events that cannot become rows.
var integrationPoison = alone(func(r *run, f fault, victim *source) error {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); victim.producer.produceArrays(ctx) }() // ends with ctx
	err := r.untilOthersAdvance(f, victim, func() bool { return victim.ledger.Totals().DeadLetters > 0 })
	cancel()
	<-done
	return err
})

// integrationChanged removes the victim from every member for a while, or gives it
// another table for good.
var integrationChanged = alone(func(r *run, f fault, victim *source) error {
	// Beside half a blueprint a member refuses every change.
	r.blueprint.Lock()
	remove := f.Target/otherCount%2 == 0
	var err error
	if remove {
		err = os.Remove(r.rig.overlay(victim.name))
	} else {
		tables := otherTables(victim.name)
		victim.table = tables[1-slices.Index(tables, victim.table)]
		err = r.rig.putOverlay(victim.name, victim.table)
	}
	took := func(i *integrationStatus) bool {
		if remove {
			return i == nil
		}
		return i != nil && i.Table == victim.table
	}
	if err == nil && !until(r.ctx, inUseWithin, func() bool { n := len(r.fleet.running()); return n > 0 && r.members(took, victim) == n }) && r.ctx.Err() == nil {
		r.v.Add(oracle.RuleReload, "integration %s was changed, and a member has not followed within %s", victim.name, inUseWithin)
	}
	r.blueprint.Unlock()
	if err == nil {
		err = r.untilOthersAdvance(f, victim, func() bool { return true })
	}
	return errors.Join(err, r.rig.putOverlay(victim.name, victim.table))
})

// integrationStatus is what /status has of an integration.
type integrationStatus struct {
	Integration string         `json:"integration"`
	Ready       bool           `json:"ready"`
	Table       string         `json:"table"`
	Account     oracle.Account `json:"ledger"`
	Partitions  []struct {
		Partition int32          `json:"partition"`
		Account   oracle.Account `json:"ledger"`
	} `json:"partitions"`
}

// statusOf returns the integrations of a process; ok is false without an answer: it is
// starting, ending or frozen.
func (r *run) statusOf(ctx context.Context, p *process) (all []integrationStatus, ok bool) {
	var status struct {
		Integrations []integrationStatus `json:"integrations"`
	}
	ok = p != nil && p.get(ctx, "/status", 2*time.Second, &status) == nil
	return status.Integrations, ok
}

// members counts those whose answer about an integration fulfils is; it is called
// with nil if a member does not have the integration.
func (r *run) members(is func(i *integrationStatus) bool, of *source) (n int) {
	for _, s := range r.fleet.running() {
		all, ok := r.statusOf(r.ctx, r.fleet.process(s))
		i := slices.IndexFunc(all, func(i integrationStatus) bool { return i.Integration == of.name })
		if ok && (i < 0 && is(nil) || i >= 0 && is(&all[i])) {
			n++
		}
	}
	return n
}
