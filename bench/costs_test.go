package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/traffic"
)

// Events of every size are JSON with their message id, near the size asked for.
func TestSizesOfEvents(t *testing.T) {
	gen := traffic.New(traffic.Config{Seed: 1})
	for _, size := range []int{0, 200, 10_000, 100_000} {
		for range 50 {
			var e traffic.Event
			gen.Next(&e)
			value := shape{size: size}.sized(&e)
			if !json.Valid(value) || !strings.Contains(string(value), e.MessageID) {
				t.Fatalf("size %d: got %.300s", size, value)
			}
			if size == 0 && string(value) != string(e.Value) {
				t.Fatalf("no size: got %s, want the event as it is", value)
			}
			if size > 0 && (len(value) < size*9/10 || len(value) > size*11/10) {
				t.Fatalf("got %d bytes, want about %d", len(value), size)
			}
		}
	}
}

// An event without a byte stays one: a null would be a tombstone, and no dead letter.
func TestEmptyEventsStayEmpty(t *testing.T) {
	if got := (shape{}).sized(&traffic.Event{Value: []byte{}}); got == nil || len(got) != 0 {
		t.Errorf("got %v, want an empty value", got)
	}
}

func TestMalformedEventsOfAShape(t *testing.T) {
	for _, every := range []int{0, 5, 100} {
		const n = 1234
		want := n - traffic.Config{MalformedEvery: every}.Count(n)[traffic.OK]
		if got := (shape{malformedEvery: every}).malformed(n); got != want {
			t.Errorf("every %d: got %d malformed events of %d, want %d as the generator makes", every, got, n, want)
		}
	}
}

func TestEventsOfALine(t *testing.T) {
	for size, want := range map[int]int{0: 400_000, 200: 800_000, 10_000: 45_640, 100_000: 4564} {
		if got := (costLine{shape: shape{size: size}}).events(400_000); got != want {
			t.Errorf("%d bytes: got %d events, want %d", size, got, want)
		}
	}
	if got := (costLine{shape: shape{size: 100_000}}).events(1000); got != 400 {
		t.Errorf("a small topic: got %d events, want enough for a measurement", got)
	}
}

func TestWideTables(t *testing.T) {
	for _, tc := range []struct {
		columns int
		sparse  bool
		absent  int
	}{{60, false, 0}, {60, true, 0}, {300, true, 240}, {300, false, 0}} {
		ddl, blueprint := wideTable(tc.columns, tc.sparse)
		if got := strings.Count(ddl, " STRING") + strings.Count(ddl, " TIMESTAMP"); got != tc.columns {
			t.Errorf("%+v: got %d columns in %s", tc, got, ddl)
		}
		if got := strings.Count(blueprint, "target:"); got != tc.columns-builtInColumns {
			t.Errorf("%+v: got %d mappings", tc, got)
		}
		if got := strings.Count(blueprint, "properties.attribute_"); got != tc.absent {
			t.Errorf("%+v: got %d fields that no event has, want %d", tc, got, tc.absent)
		}
	}
}

func TestSecuritySettings(t *testing.T) {
	s, err := kafkatest.NewSecurity(t.TempDir(), kafkatest.Options{TLS: true, SASL: kafkatest.ScramSHA512})
	if err != nil {
		t.Fatal(err)
	}
	sets, env := securitySettings(s)
	if got := fmt.Sprint(sets); !strings.Contains(got, "kafka.tls.enabled=true") || !strings.Contains(got, "kafka.sasl.mechanism=SCRAM-SHA-512") || strings.Contains(got, s.Password) {
		t.Errorf("got %s", got)
	}
	if len(env) != 1 || !strings.HasSuffix(env[0], s.Password) {
		t.Errorf("got environment %v, want the password", env)
	}
	if sets, env := securitySettings(kafkatest.Security{}); sets != nil || env != nil {
		t.Errorf("without security: got %v, %v", sets, env)
	}
}

func TestLinesOfCosts(t *testing.T) {
	for args, want := range map[string]string{
		"costs --lines size,codec":  "",
		"costs --lines first":       "",
		"costs --lines size,colour": `names "colour"`,
		"costs --codec zstd":        "",
	} {
		_, err := parse(strings.Fields(args), io.Discard)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("bench %s: got %v, want %q", args, err, want)
		}
	}
}

func TestCostsReport(t *testing.T) {
	of := func(name string, f ...figures) series {
		s := series{Name: name, Runs: f}
		return s
	}
	first := comparison{Series: []series{of("poll-only", figures{FirstRow: 0.02}, figures{FirstRow: 0.02}), of("bridge", figures{FirstRow: 0.03}, figures{FirstRow: 0.05})}}
	line := comparison{Name: "size 200 B", Series: []series{of("usual", figures{CPUMicros: 2}), of("line", figures{CPUMicros: 1, PerCPU: 1e6, EventBytes: 250, BatchRows: 5000, PeakMemory: 64 << 20})}}
	for _, c := range []comparison{first, line} {
		for i := range c.Series {
			c.Series[i].summarise(c.Series[0].Runs)
		}
	}
	report := costsResult{FirstRow: &first, Lines: []comparison{line}}.String()
	got := strings.Join(strings.Fields(report), " ")
	for _, want := range []string{"first row 40 ms, poll-only's first event 20 ms", "2.00x (1.50 to 2.50, 2 starts)", "size 200 B 250 B 1.00 4.00 1000000 5000 64 MiB 2.00 0.50 0.50 0.50 0 % 1 of 1"} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %q in it", report, want)
		}
	}
	if got := (costsResult{FirstRow: &first}).String(); strings.Contains(got, "usual") {
		t.Errorf("without lines: got\n%s", got)
	}
}
