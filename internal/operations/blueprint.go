package operations

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/blueprinttest"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
	"github.com/datafly/bridge/zerobus"
)

const (
	// tableAge is how long the columns of a table are used: a blueprint is validated
	// while somebody types.
	tableAge = 30 * time.Second
	// maxResults bounds the events of one record that a try shows.
	maxResults = 100
)

// table is the table of an integration as it was read.
type table struct {
	cfg  *config.Config
	at   time.Time
	read chan struct{} // closed when the fields below are set

	client  *zerobus.Client // closed; it knows the table
	columns []zerobus.Column
	warning string // why columns or the form of the rows are not known
	err     error  // about the configuration
}

// table returns the table of an integration, read again where it is older than tableAge.
// Those that ask for the same table wait for whoever asked first.
func (p *Process) table(ctx context.Context, i config.Integration) (*table, error) {
	p.mu.Lock()
	now := p.o.Now()
	for name, t := range p.tables {
		if now.Sub(t.at) >= tableAge {
			delete(p.tables, name)
		}
	}
	t := p.tables[i.Name]
	known := t != nil && t.cfg == i.Config
	if !known {
		t = &table{cfg: i.Config, at: now, read: make(chan struct{})}
		p.tables[i.Name] = t
	}
	p.mu.Unlock()
	if !known {
		t.readNow(ctx, &p.o)
		close(t.read)
	}
	select {
	case <-t.read:
		return t, t.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readNow reads the table for whoever asks for it, so it does not end with ctx.
func (t *table) readNow(ctx context.Context, o *Options) {
	if t.client, t.err = pipeline.NewClient(t.cfg, o.Version, o.Log, o.Connections); t.err != nil {
		return
	}
	defer t.client.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pipeline.CheckTimeout)
	defer cancel()
	undecided := pipeline.DecideFirst(ctx, t.client)
	columns, unreadable, err := pipeline.ReadColumns(ctx, t.client)
	switch {
	case err != nil:
		t.warning = pipeline.UnreadColumns(err)
	case unreadable != nil:
		t.warning = pipeline.UnreadColumns(unreadable)
	case undecided != nil:
		t.warning = undecided.Error()
	}
	t.columns = columns
}

// compiled is a blueprint, compiled for a table where one is known.
type compiled struct {
	*mapping.Mapping // nil where there are problems
	pipeline.BlueprintReport
	cfg *config.Config
}

// compile compiles the blueprint of a request. Its mistakes are in the report.
func (p *Process) compile(ctx context.Context, r pipeline.BlueprintRequest) (c compiled, err error) {
	if len(r.Blueprint) > plaintext.MaxText {
		return c, &pipeline.Refused{Field: "blueprint", Reason: fmt.Sprintf("the blueprint is larger than %d bytes", plaintext.MaxText), Remedy: "take something out"}
	}
	c.cfg = p.o.Base()
	var i config.Integration
	if r.Integration != "" {
		if i, err = p.o.Integration(ctx, r.Integration); err != nil {
			return c, err
		}
		c.cfg = i.Config
	}
	c.Problems, c.Warnings = []pipeline.BlueprintProblem{}, []string{}
	settings := c.cfg.Mapping
	if r.Blueprint != "" || r.Variant != "" {
		settings.Blueprint, settings.BlueprintText, settings.Variant = "", r.Blueprint, r.Variant
	}
	plan, _, err := pipeline.ReadBlueprint(settings)
	o := pipeline.MappingOptions(c.cfg)
	var alone *mapping.Mapping
	if err == nil {
		alone, err = compileAlone(plan, o)
	}
	if err != nil {
		c.add(err)
		return c, nil
	}
	z := c.cfg.Zerobus
	name := zerobus.TableName{Catalog: cmp.Or(z.Catalog, "datafly"), Schema: cmp.Or(z.Schema, "events"), Table: cmp.Or(z.Table, "stream")}
	c.Mapping, c.DDL = alone, zerobus.DDL(name, pipeline.RowColumns(alone), cmp.Or(z.ClientID, "<service_principal_application_id>"))
	if r.Integration == "" {
		c.Valid = true
		return c, nil
	}
	t, err := p.table(ctx, i)
	if err != nil {
		return c, err
	}
	if t.warning != "" {
		c.Warnings = append(c.Warnings, t.warning)
	}
	if t.columns != nil {
		c.DDL = zerobus.AlterDiff(t.client.Table(), pipeline.RowColumns(alone), t.columns)
	}
	if c.Mapping, err = pipeline.Compile(t.client, o, plan, t.columns); err != nil {
		c.Mapping = nil
		if bad, ok := errors.AsType[*pipeline.BlueprintMismatch](err); ok {
			err = bad.Err // which has the lines
		}
		c.add(err)
		return c, nil
	}
	c.Valid = true
	return c, nil
}

// add adds mistakes.
func (c *compiled) add(err error) {
	for _, x := range blueprinttest.Problems(err) {
		message, remedy := x.What, ""
		if at := strings.LastIndex(x.What, "; "); at >= 0 {
			message, remedy = x.What[:at], x.What[at+2:]
		}
		c.Problems = append(c.Problems, pipeline.BlueprintProblem{Line: x.Line, Column: x.Column, Message: message, Remedy: remedy})
	}
}

// ValidateBlueprint compiles a blueprint, for the columns of the integration's table where
// one is named. Mistakes are in the report, with the statements that the table lacks.
func (p *Process) ValidateBlueprint(ctx context.Context, r pipeline.BlueprintRequest) (pipeline.BlueprintReport, error) {
	c, err := p.compile(ctx, r)
	return c.BlueprintReport, err
}

// TryBlueprint maps one event. A JSON string is an event of the text in it. One blueprint is
// tried at a time, so that expensive ones take no more than one CPU from what runs.
func (p *Process) TryBlueprint(ctx context.Context, r pipeline.TryRequest) (report pipeline.TryReport, err error) {
	c, err := p.compile(ctx, r.BlueprintRequest)
	if err != nil {
		return report, err
	}
	report.Problems, report.Results = c.Problems, []pipeline.TryResult{}
	if c.Mapping == nil {
		return report, nil
	}
	value := []byte(r.Event)
	if text := ""; json.Unmarshal(value, &text) == nil {
		value = []byte(text)
	}
	topic := "try"
	if topics := c.cfg.Kafka.Topics; len(topics) > 0 {
		topic = topics[0]
	}
	select {
	case p.try <- struct{}{}:
		defer func() { <-p.try }()
	case <-ctx.Done():
		return report, ctx.Err()
	}
	for _, x := range c.NewMapper().ExplainUntil(time.Now().Add(tryTimeout), &mapping.Record{Topic: topic, Timestamp: p.o.Now(), Value: value}) {
		if len(report.Results) == maxResults {
			break
		}
		result := pipeline.TryResult{Outcome: x.Outcome, Code: x.Code, Column: x.Column, Reason: plaintext.Visible(x.Reason), Section: x.Section, Row: x.Row, Columns: []pipeline.TryColumn{}}
		for _, col := range x.Columns {
			result.Columns = append(result.Columns, pipeline.TryColumn(col))
		}
		report.Results = append(report.Results, result)
	}
	return report, nil
}
