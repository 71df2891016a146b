package zerobus_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

func asText(rows [][]byte) []string {
	out := make([]string, len(rows))
	for i, row := range rows {
		out[i] = string(row)
	}
	return out
}

func TestAStreamTakesTheRowsAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := streamed(t, &service{}, func(c *zerobus.Config) { c.UserAgent = "bridge/1.2" })
		batch := rows(5000) // several pieces
		write(t, b.bench, batch)
		write(t, b.bench, rows(1))
		want := append(asText(batch), string(row(0)))
		if got := b.svc.stored(); !slices.Equal(got, want) {
			t.Errorf("stored %d rows that differ from the %d written", len(got), len(want))
		}
		if got := b.svc.opened(); got != 1 {
			t.Errorf("%d streams for two batches, want 1", got)
		}
		s := b.svc.stream(1)
		if s.create.GetTableName() != "datafly.events.stream" || s.create.GetRecordType() != zerobuspb.RecordType_JSON || s.create.DescriptorProto != nil {
			t.Errorf("create_stream is %v, want the table, JSON and no descriptor", s.create)
		}
		for key, want := range map[string]string{"x-databricks-zerobus-table-name": "datafly.events.stream",
			"authorization": "Bearer token-1-of-test", "content-type": "application/grpc"} {
			if got := s.md.Get(key); !slices.Equal(got, []string{want}) {
				t.Errorf("metadata %s is %q, want %q", key, got, want)
			}
		}
		if got := b.State().Streams; !slices.Equal(got, []string{"stream-1"}) {
			t.Errorf("State.Streams is %q, want stream-1", got)
		}
	})
}
