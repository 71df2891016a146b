package mapping_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/datafly/bridge/mapping"
)

// outcomes is an Out that writes every call down as one line, and holds the
// mapper to the contract: a row is what was appended to Buf and nothing else.
type outcomes struct {
	lines []string
	rows  [][]byte
	codes []string
	buf   []byte
}

func (o *outcomes) Buf() []byte {
	o.buf = append(o.buf, "guard"...)
	return o.buf
}

func (o *outcomes) Row(extended []byte) {
	row := extended[len(o.buf):]
	o.lines = append(o.lines, "row "+string(row))
	o.rows = append(o.rows, append([]byte(nil), row...))
	o.codes = append(o.codes, "row")
	o.buf = extended
}

func (o *outcomes) Reject(code, column, reason string) {
	o.lines = append(o.lines, fmt.Sprintf("reject %s %q %s", code, column, reason))
	o.codes = append(o.codes, code)
}

func (o *outcomes) Filter(reason string) {
	o.lines = append(o.lines, "filter "+reason)
	o.codes = append(o.codes, "filter "+reason)
}

// recordAt is the position that golden and table cases give their event.
func recordAt(value []byte) *mapping.Record {
	return &mapping.Record{Topic: "delivery-int_zb01", Partition: 2, Offset: 90311, Value: value,
		Timestamp: time.Date(2026, 3, 4, 9, 21, 0, 123456789, time.UTC), Key: []byte("a1"),
		Headers: []mapping.Header{{Key: "tenant", Value: []byte("first")}, {Key: "tenant", Value: []byte("acme")}, {Key: "raw", Value: []byte{0xff, 0x00}}}}
}

func mustCompile(tb testing.TB, blueprint string, o mapping.Options) *mapping.Mapping {
	tb.Helper()
	b := mapping.Default()
	if blueprint != "" {
		var err error
		if b, err = mapping.Parse("test.yaml", []byte(blueprint)); err != nil {
			tb.Fatal(err)
		}
	}
	m, err := b.Compile(o)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// mapOne maps a value and returns the outcomes of its events.
func mapOne(m *mapping.Mapper, value []byte) *outcomes {
	out := &outcomes{}
	m.Map(recordAt(value), out)
	return out
}
