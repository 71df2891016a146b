package zerobus_test

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// TestTheRescueColumnDecidesForEachTable has two clients of one process. One writes to a table
// with a rescue column. Each has the format of its own table after a start, a restart and a
// change of columns. The log reports it once per start.
func TestTheRescueColumnDecidesForEachTable(t *testing.T) {
	em, err := emulator.New(emulator.Config{DDL: "CREATE TABLE datafly.events.stream (message_id STRING, extra VARIANT);" +
		"CREATE TABLE datafly.events.other (message_id STRING, extra VARIANT);"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, em) })
	for _, start := range []func(string) error{em.Start, em.StartZerobus} {
		if err := start("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	em.SetIngestAPI(false)
	if err := em.Table(target).SetColumnTags("extra", "zerobus-rescue"); err != nil {
		t.Fatal(err)
	}
	formats := map[string]string{target: zerobus.FormatJSON, "datafly.events.other": zerobus.FormatProtobuf}
	for _, start := range []string{"start", "restart"} {
		connections := zerobus.NewConnections()
		for table, want := range formats {
			core, logs := observer.New(zap.DebugLevel)
			client, err := zerobus.New(zerobus.Config{Connections: connections, Settings: zerobus.Settings{WorkspaceURL: em.URL(), ClientID: emulator.DefaultClientID,
				ClientSecret: emulator.DefaultClientSecret, Table: table}}, zap.New(core), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := client.Decide(t.Context()); err != nil || client.State().Transport != "grpc" {
				t.Fatal(err, client.State())
			}
			for _, when := range []string{start, "the next read", "a column more"} {
				if when == "a column more" {
					if err := em.Table(table).AddColumn(emulator.Column{Name: "of_" + start, Type: "STRING"}); err != nil {
						t.Fatal(err)
					}
				}
				cols, err := client.Columns(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				form, err := client.Encoding(cols)
				if err != nil || form.Format != want {
					t.Errorf("%s, %s: got %s, %v, want %s", table, when, form.Format, err, want)
				}
				row := []byte(`{"message_id":"m","unknown":1}`)
				if want == zerobus.FormatProtobuf {
					row = []byte("\x0a\x01m")
				}
				if _, err := client.Write(t.Context(), client.SetRowColumns(cols[:1]), [][]byte{row}); err != nil {
					t.Errorf("%s, %s: Write: %v", table, when, err)
				}
			}
			lines := logs.FilterMessageSnippet("rows are sent as").Len()
			if said := map[bool]int{true: 1, false: 0}[want == zerobus.FormatJSON]; lines != said {
				t.Errorf("%s, %s: %d lines about the format, want %d", table, start, lines, said)
			}
			client.Close()
		}
	}
	if n := em.Stats().StreamRows; n != 12 {
		t.Errorf("%d rows arrived, want 12", n)
	}
}
