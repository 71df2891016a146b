package zerobus_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

// formatted is a stage whose rows are of one form: what start-up does is done.
func formatted(t *testing.T, format string) stage {
	t.Helper()
	s := staged(t, emulator.Config{}, func(c *zerobus.Config) { c.RecordFormat = format })
	cols, err := s.Columns(t.Context())
	if err != nil {
		t.Fatalf("Columns: %v", err)
	}
	if got, err := s.Encoding(cols); err != nil || got.Format != format {
		t.Fatalf("Encoding = %+v, %v, want %s", got, err, format)
	}
	s.SetRowColumns(cols)
	return s
}

// stored fails unless the target table holds these rows, in this order.
func (s stage) stored(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, r := range s.rows() {
		got = append(got, string(r.JSON))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the table holds %q, want %q", got, want)
	}
}

// opened fails unless streams of these formats were opened, in this order.
func (s stage) opened(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, info := range s.em.Streams() {
		got = append(got, info.Format)
	}
	if !slices.Equal(got, want) {
		t.Errorf("streams of %q were opened, want %q", got, want)
	}
}

// protoRow is row(n) as the target table's protobuf message.
func protoRow(n int) []byte {
	l := live{proto: true}
	return l.row(fmt.Sprintf("m-%d", n), n, false)
}

// formatScenarios are the forms a row can have, and rows of the wrong form.
func formatScenarios(t *testing.T) {
	// Every message is a batch, of one row or more.
	scenario(t, "json_record", func(t *testing.T) {
		s := formatted(t, zerobus.FormatJSON)
		write(t, s.bench, rows(1))
		s.stored(t, string(row(0)))
		s.opened(t, "JSON")
	})
	scenario(t, "json_batch", func(t *testing.T) {
		s := formatted(t, zerobus.FormatJSON)
		write(t, s.bench, rows(3))
		s.stored(t, asText(rows(3))...)
		s.opened(t, "JSON")
	})
	// The client does not look into rows: the service does, and the row is
	// refused like any other that does not fit.
	for name, n := range map[string]int{"single": 1, "batch": 3} {
		scenario(t, "json_into_proto_stream_fails/"+name, func(t *testing.T) {
			s := formatted(t, zerobus.FormatProtobuf)
			isRefused(t, s.WriteLatest(t.Context(), rows(n)), zerobus.RefusedSchemaMismatch)
			write(t, s.bench, [][]byte{protoRow(7)})
			s.stored(t, string(row(7)))
			s.opened(t, slices.Repeat([]string{"PROTO"}, 1+map[int]int{1: 2, 3: 1}[n])...) // a row alone is refused twice
		})
		scenario(t, "proto_into_json_stream_fails/"+name, func(t *testing.T) {
			s := formatted(t, zerobus.FormatJSON)
			isRefused(t, s.WriteLatest(t.Context(), slices.Repeat([][]byte{protoRow(7)}, n)), zerobus.RefusedSchemaMismatch)
			write(t, s.bench, rows(1))
			s.stored(t, string(row(0)))
			s.opened(t, slices.Repeat([]string{"JSON"}, 1+map[int]int{1: 2, 3: 1}[n])...)
		})
	}
	// The descriptor is made from the table's columns: without them no stream
	// for protobuf is ever asked for, and the error has a remedy.
	scenario(t, "proto_stream_without_descriptor_fails", func(t *testing.T) {
		s := staged(t, emulator.Config{}, func(c *zerobus.Config) { c.RecordFormat = zerobus.FormatProtobuf })
		_, err := s.Encoding(nil)
		if !zerobus.IsPermanent(err) || !strings.Contains(err.Error(), "GRANT SELECT") {
			t.Errorf("Encoding without columns: %v, want a permanent fault with the grants", err)
		}
		s.opened(t)
	})
	// Nobody hands descriptors in, so there is none to warn of: a JSON stream
	// goes without, though the columns are known.
	scenario(t, "json_stream_with_descriptor", func(t *testing.T) {
		b := streamed(t, &service{}, func(c *zerobus.Config) { c.RecordFormat = zerobus.FormatJSON })
		if _, err := b.Encoding(rowColumns); err != nil {
			t.Fatalf("Encoding: %v", err)
		}
		b.SetRowColumns(rowColumns)
		write(t, b.bench, rows(1))
		if got := b.svc.stream(1).create; got.GetRecordType() != zerobuspb.RecordType_JSON || got.DescriptorProto != nil {
			t.Errorf("create_stream is %v, want JSON and no descriptor", got)
		}
	})
}
