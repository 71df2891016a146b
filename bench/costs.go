package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafkatest"
)

// costLine is what differs from the usual: 4 partitions (or --partitions), lz4, the
// generator's events, the built-in blueprint, no security, all cores.
type costLine struct {
	name       string
	partitions int
	beside     int // partitions of the topic it is compared with, if not the usual
	codec      string
	shape      shape
	columns    int  // of the table
	sparse     bool // no event has the columns beyond those of wideSources
	tls        bool
	sasl       string
	env        []string
}

// costLines are the lines of costs after that of the first row.
var costLines = []costLine{
	{name: firstRowLine},
	{name: "partitions 1000, beside 1", partitions: 1000, beside: 1},
	{name: "size 200 B", shape: shape{size: 200}},
	{name: "size 10 kB", shape: shape{size: 10_000}},
	{name: "size 100 kB", shape: shape{size: 100_000}},
	{name: "columns 60", columns: 60},
	{name: "columns 300, most NULL", columns: 300, sparse: true},
	{name: "columns 300, most filled", columns: 300},
	{name: "rejects 1 %", shape: shape{malformedEvery: 100}},
	{name: "rejects 20 %", shape: shape{malformedEvery: 5}},
	{name: "codec zstd", codec: "zstd"},
	{name: "codec snappy", codec: "snappy"},
	{name: "codec gzip", codec: "gzip"},
	{name: "codec none", codec: "none"},
	{name: "kafka TLS", tls: true},
	{name: "kafka SCRAM", sasl: kafkatest.ScramSHA512},
	{name: "kafka TLS and SCRAM", tls: true, sasl: kafkatest.ScramSHA512},
	{name: "cores 1", env: []string{"GOMAXPROCS=1"}},
	{name: "cores 2", env: []string{"GOMAXPROCS=2"}},
}

const firstRowLine = "first row"

// eventBytes is about the size of the generator's events.
const eventBytes = 1141

// events returns how many events of a line have about as many bytes as the usual
// topic: at most twice as many events, and enough for a measurement.
func (l costLine) events(usual int) int {
	if l.shape.size == 0 {
		return usual
	}
	return min(max(usual*eventBytes/l.shape.size, 400), 2*usual)
}

// costsResult has a comparison for each line: the usual, and the line.
type costsResult struct {
	FirstRow *comparison  `json:"first_row,omitempty"` // poll-only, and the bridge
	Lines    []comparison `json:"lines"`
}

// costs measures what a row costs where something is not as usual. Each line takes
// turns with the usual.
func costs(ctx context.Context, r *rig) (any, error) {
	var out costsResult
	usual, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], r.o.events)
	if err != nil {
		return nil, err
	}
	for _, l := range costLines {
		if len(r.o.lines) > 0 && !slices.ContainsFunc(r.o.lines, func(beginning string) bool { return strings.HasPrefix(l.name, beginning) }) {
			continue
		}
		if l.name == firstRowLine {
			out.FirstRow, err = r.firstRows(ctx)
		} else {
			var c comparison
			c, err = r.costOf(ctx, l, usual)
			out.Lines = append(out.Lines, c)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return out, r.drop(ctx, usual)
}

// costOf measures one line beside the usual topic.
func (r *rig) costOf(ctx context.Context, l costLine, usual string) (c comparison, err error) {
	base := r.full(usual)
	if l.beside > 0 {
		if base.topic, err = r.topic(ctx, l.beside, r.o.codecs[0], r.o.events); err != nil {
			return c, err
		}
		defer func() { err = errors.Join(err, r.drop(ctx, base.topic)) }()
	}
	d := r.full("")
	d.events, d.env = l.events(r.o.events), l.env
	d.rejects = l.shape.malformed(d.events)
	at := r
	if l.tls || l.sasl != "" {
		if at, err = r.secured(kafkatest.Options{TLS: l.tls, SASL: l.sasl}); err != nil {
			return c, err
		}
		defer func() { at.admin.Close(); err = errors.Join(err, at.stopBroker()) }()
		sets, env := securitySettings(at.security)
		d.sets, d.env = sets, append(d.env, env...)
	}
	if l.columns > 0 {
		ddl, blueprint := wideTable(l.columns, l.sparse)
		if d.to, err = startWorkspace(ctx, r.dir, emulatorSettings{TLS: r.o.tls, DDL: ddl}); err != nil {
			return c, err
		}
		defer func() { err = errors.Join(err, d.to.stop()) }()
		file := filepath.Join(r.dir, "wide.yaml")
		if err := os.WriteFile(file, []byte(blueprint), 0o600); err != nil {
			return c, err
		}
		d.sets = append(d.sets, "mapping.blueprint="+file)
	}
	d.topic, err = at.shaped(ctx, cmp.Or(l.partitions, r.o.partitions), cmp.Or(l.codec, r.o.codecs[0]), d.events, l.shape)
	if err != nil {
		return c, err
	}
	c, err = r.takeTurns(ctx, l.name, r.o.rounds, r.asSubject("usual", base), at.asSubject("line", d))
	return c, errors.Join(err, at.drop(ctx, d.topic))
}

// secured returns a rig whose broker, in this process, asks clients for TLS or SASL. Its
// admin client and its broker are for the caller to close.
func (r *rig) secured(o kafkatest.Options) (*rig, error) {
	dir, err := os.MkdirTemp(r.dir, "security-*")
	if err != nil {
		return nil, fmt.Errorf("making a folder for certificates: %w", err)
	}
	s := *r
	if s.security, err = kafkatest.NewSecurity(dir, o); err != nil {
		return nil, err
	}
	broker, err := kfake.NewCluster(append(s.security.FakeOpts(), kfake.NumBrokers(1))...)
	if err != nil {
		return nil, fmt.Errorf("starting a broker: %w", err)
	}
	s.brokers, s.stopBroker = broker.ListenAddrs(), func() error { broker.Close(); return nil }
	if s.admin, err = kgo.NewClient(append(s.security.ClientOpts(), kgo.SeedBrokers(s.brokers...))...); err != nil {
		broker.Close()
		return nil, fmt.Errorf("preparing the kafka client: %w", err)
	}
	return &s, nil
}

// securitySettings returns the settings by which the bridge connects, and the environment
// with the secret among them.
func securitySettings(s kafkatest.Security) (sets, env []string) {
	if s.CAFile != "" {
		sets = append(sets, "kafka.tls.enabled=true", "kafka.tls.ca_file="+s.CAFile)
	}
	if s.Mechanism != "" {
		sets = append(sets, "kafka.sasl.mechanism="+s.Mechanism, "kafka.sasl.username="+s.Username)
		env = append(env, "BRIDGE_KAFKA_SASL_PASSWORD="+s.Password)
	}
	return sets, env
}

// wideSources are further fields of the generator's events: 47, for a table of 60
// columns. Events have a third of them, some more and some less.
var wideSources = []string{
	"context.library.name", "context.library.version", "context.consent.analytics", "context.consent.advertising", "context.consent.functional",
	"context.consent.marketing", "context.device.type", "context.device.model", "context.device.manufacturer", "context.session.number",
	"context.session.id", "context.geo.region", "context.geo.country", "context.geo.city", "context.page.search", "context.page.path",
	"context.page.title", "context.campaign.name", "context.campaign.medium", "context.campaign.source", "context.app.name", "context.app.version",
	"context.os.name", "context.os.version", "properties.currency", "properties.title", "properties.product_id", "properties.price",
	"properties.name", "properties.section", "properties.in_stock", "properties.rating", "properties.category", "properties.query",
	"properties.results", "properties.value", "properties.list_id", "properties.revenue", "properties.quantity", "properties.cart_id",
	"properties.step", "properties.order_id", "traits.city", "traits.plan", "name", "sent_at", "received_at",
}

// builtInColumns is how many columns the built-in blueprint has.
const builtInColumns = 13

// wideTable returns the statement and the blueprint of a table with so many columns.
// Those beyond wideSources have fields that no event has if it is sparse, or those of
// wideSources again.
func wideTable(columns int, sparse bool) (ddl, blueprint string) {
	var table, mappings strings.Builder
	for i := range columns - builtInColumns {
		source := wideSources[i%len(wideSources)]
		if sparse && i >= len(wideSources) {
			source = fmt.Sprintf("properties.attribute_%03d", i)
		}
		fmt.Fprintf(&table, ", c%03d STRING", i)
		fmt.Fprintf(&mappings, "    - {source: %s, target: c%03d}\n", source, i)
	}
	return fmt.Sprintf("CREATE TABLE %s (event_name STRING, event_type STRING, message_id STRING, user_id STRING, anonymous_id STRING, event_timestamp TIMESTAMP, "+
			"ip_address STRING, user_agent STRING, locale STRING, timezone STRING, page_url STRING, page_referrer STRING, source_id STRING%s) USING DELTA;", benchTable, &table),
		"version: 2\nextends: default\nglobal:\n  mappings:\n" + mappings.String()
}

// firstRows compares the time to the bridge's first row with that to poll-only's first
// event, from the start of each process. The topic is small, so that both are idle when
// they stop.
func (r *rig) firstRows(ctx context.Context) (*comparison, error) {
	topic, err := r.topic(ctx, r.o.partitions, r.o.codecs[0], 1000)
	if err != nil {
		return nil, err
	}
	c, err := r.takeTurns(ctx, firstRowLine, 4*r.o.rounds,
		subject{"poll-only", func(ctx context.Context) (figures, error) {
			first, err := r.firstEvent(ctx, topic)
			return figures{FirstRow: first.Seconds()}, err
		}},
		subject{"bridge", func(ctx context.Context) (figures, error) {
			first, err := r.firstRow(ctx, delivery{topic: topic, transport: r.o.transport})
			return figures{FirstRow: first.Seconds()}, err
		}})
	return &c, errors.Join(err, r.drop(ctx, topic))
}

// firstEvent starts the consumer that only polls and waits for its first event.
func (r *rig) firstEvent(ctx context.Context, topic string) (took time.Duration, err error) {
	began := time.Now()
	c, err := startRole(ctx, r.dir, "poll", reading{Brokers: r.brokers, Topic: topic, Group: r.name("group"), Warm: 1000, All: 1000})
	if err != nil {
		return 0, err
	}
	var m pollMark
	err = c.read(ctx, &m)
	took = time.Since(began)
	return took, errors.Join(err, c.stop())
}

func (all costsResult) String() string {
	var s strings.Builder
	if c := all.FirstRow; c != nil {
		var ratios []float64
		for round, f := range c.Series[1].Runs {
			ratios = append(ratios, f.FirstRow/c.Series[0].Runs[round].FirstRow)
		}
		fmt.Fprintf(&s, "first row %.0f ms, poll-only's first event %.0f ms after the process starts: %.2fx (%.2f to %.2f, %d starts)\n\n",
			c.Series[1].Median.FirstRow*1000, c.Series[0].Median.FirstRow*1000, medianOf(ratios), slices.Min(ratios), slices.Max(ratios), len(ratios))
	}
	if len(all.Lines) == 0 {
		return s.String()
	}
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "line\tevent\tus/row\tns/B\trows/CPU s\trows/write\tpeak RSS\tusual us/row\tto usual\tleast\tmost\tother CPU\truns\t")
	for _, c := range all.Lines {
		usual, line := c.Series[0], c.Series[1]
		m, size := line.Median, line.Runs[0].EventBytes
		fmt.Fprintf(w, "%s\t%.0f B\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f MiB\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f %%\t%d of %d\t\n", c.Name, size, m.CPUMicros, 1000*m.CPUMicros/size, m.PerCPU, m.BatchRows,
			m.PeakMemory/(1<<20), usual.Median.CPUMicros, line.Ratio[0], line.Ratio[1], line.Ratio[2], 100*m.OtherCPU, line.Kept, len(line.Runs))
	}
	_ = w.Flush() // into memory
	s.WriteString("\nTo usual is CPU per row against the usual topic in the same round: median, least and most. A dead letter counts as a row. " +
		"Every run left each well-formed event in the table once, and a dead letter for each other.\n")
	return s.String()
}
