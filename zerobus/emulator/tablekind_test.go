package emulator_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/datafly/bridge/zerobus/emulator"
)

// Unity Catalog names the kind of a table, and no transport writes to a kind that
// the service does not write to.
func TestKindsOfTables(t *testing.T) {
	for _, tc := range []struct {
		kind, format string
		writable     bool
	}{
		{"MANAGED", "DELTA", true},
		{"STREAMING_TABLE", "DELTA", true},
		{"streaming_table", "", true},
		{"VIEW", "", false},
		{"MATERIALIZED_VIEW", "", false},
		{"EXTERNAL", "DELTA", false},
		{"FOREIGN", "", false},
		{"MANAGED", "ICEBERG", false},
	} {
		z := startZerobus(t, emulator.Config{DDL: "CREATE TABLE a.b.c (message_id STRING)"})
		if r := z.admin("PUT", "tables/a.b.c/kind", `{"table_type":"`+tc.kind+`","data_source_format":"`+tc.format+`"}`); r.status/100 != 2 {
			t.Fatalf("%s %s: got %d %s", tc.kind, tc.format, r.status, r.body)
		}
		want, refused := 200, ""
		if !tc.writable {
			want, refused = 400, "Unsupported table kind. Error Code: 4024"
		}
		if r := z.ingest(`{"table":"a.b.c","records":[{"message_id":"1"}]}`); r.status != want || !strings.Contains(r.body, refused) {
			t.Errorf("workspace, %s %s: got %d %s, want %d and %q", tc.kind, tc.format, r.status, r.body, want, refused)
		}
		if r := z.insert("a.b.c", `[{"message_id":"1"}]`); r.status != want || !strings.Contains(r.body, refused) {
			t.Errorf("REST, %s %s: got %d %s, want %d and %q", tc.kind, tc.format, r.status, r.body, want, refused)
		}
		if tc.writable {
			z.open(jsonCreate("a.b.c"))
		} else {
			wantStatus(t, "gRPC, "+tc.kind, z.dialStream("a.b.c").refused(jsonCreate("a.b.c")), codes.InvalidArgument, "4024")
		}
	}
	if z := startZerobus(t, emulator.Config{}); z.admin("PUT", "tables/datafly.events.stream/kind", `{"table_type":""}`).status != 400 {
		t.Error("an empty table_type was taken, want 400")
	}
}
