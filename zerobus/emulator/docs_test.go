package emulator_test

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

// TestManualRequests sends every admin request of docs/emulator.md.
func TestManualRequests(t *testing.T) {
	manual, err := os.ReadFile("../../docs/emulator.md")
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, emulator.Config{})
	curl := regexp.MustCompile(`(?m)^curl -s (-X (\w+) )?'?127\.0\.0\.1:8090(/emulator/[^\s']+)'?( (?:-d|--data-binary) '(.*)')?$`)
	found := curl.FindAllStringSubmatch(string(manual), -1)
	if want := strings.Count(string(manual), "127.0.0.1:8090/emulator/"); len(found) != want || want < 30 {
		t.Fatalf("requests understood: got %d, want all of %d", len(found), want)
	}
	for _, m := range found {
		method := m[2]
		switch {
		case method == "" && m[4] != "":
			method = "POST"
		case method == "":
			method = "GET"
		}
		if r := w.do(method, m[3], "", m[5]); r.status/100 != 2 {
			t.Errorf("%s\ngot %d %s, want success", m[0], r.status, r.body)
		}
	}
}

// TestManualStatements runs the statements of docs/emulator.md.
func TestManualStatements(t *testing.T) {
	manual, err := os.ReadFile("../../docs/emulator.md")
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, emulator.Config{})
	_, block, _ := strings.Cut(string(manual), "```sql\n")
	block, _, _ = strings.Cut(block, "```")
	statements := strings.Split(strings.TrimSpace(block), ";\n")
	if len(statements) < 10 {
		t.Fatalf("got %d statements", len(statements))
	}
	for _, s := range statements {
		w.sql(asAdmin, s, "")
	}
}

// TestManualNamesFlags compares the manual with the flags of a Config.
func TestManualNamesFlags(t *testing.T) {
	manual, err := os.ReadFile("../../docs/emulator.md")
	if err != nil {
		t.Fatal(err)
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	new(emulator.Config).Flags(flags)
	flags.VisitAll(func(f *flag.Flag) {
		if !strings.Contains(string(manual), "`--"+f.Name+"`") {
			t.Errorf("docs/emulator.md does not name --%s", f.Name)
		}
	})
}

// TestManualNamesEverything compares the manual with fields, effects and
// endpoints.
func TestManualNamesEverything(t *testing.T) {
	manual, err := os.ReadFile("../../docs/emulator.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		emulator.TokenPath, emulator.IngestPath, emulator.ColumnsPath, emulator.DefaultClientID, emulator.DefaultClientSecret,
		emulator.EffectStatus, emulator.EffectLatency, emulator.EffectHang, emulator.EffectLoseAck, emulator.EffectCut, emulator.EffectRefuse, emulator.EffectSlowBody,
		emulator.EffectFreeze, emulator.EffectGoAway, emulator.EffectStallAcks, emulator.EffectCloseSignal, emulator.EffectAck, emulator.EffectUnknown, emulator.EffectNoStreamID,
		emulator.EndpointInsert, emulator.EndpointCreate, emulator.EndpointStream, emulator.TableHeader, emulator.InsertPath("{c.s.t}"), emulator.LocalDomain, emulator.DefaultWorkspaceID,
		"grpc_code", "error_info", "in_trailer", "end_after", "ack_offset", "ack_by", "unacked_rows", "AckEvery", "CloseWindow", "OversizeCode", "AnyOffsets",
		emulator.TagsPath, emulator.RescueTag, "--oversize-status", "OUT_OF_RANGE", "--schema exact", "4033", "FIELD_NOT_IN_TABLE", "MISSING_REQUIRED_COLUMN", "TYPE_INCOMPATIBLE", "FIELD_COUNT_MISMATCH", "FIELD_OUT_OF_ORDER",
		emulator.PrivilegeModify, emulator.PrivilegeSelect, emulator.PrivilegeUseCatalog, emulator.PrivilegeUseSchema,
		emulator.MetastorePath, emulator.AssignmentPath, emulator.CatalogsPath, emulator.SchemasPath, emulator.GrantsPath, emulator.EffectivePath, emulator.StatementsPath, emulator.WarehousesPath,
		strings.ToLower(emulator.WorkspaceHeader), emulator.AdminPrincipal, emulator.DefaultAdminToken, emulator.DefaultWarehouse, emulator.EndpointStatementResult, emulator.EndpointStatementCancel,
		emulator.PrivilegeCreateCatalog, emulator.PrivilegeCreateSchema, emulator.PrivilegeCreateTable, emulator.PrivilegeManage, emulator.PrivilegeAll,
		"retry_after", "as_date", "numeric_code", "byte_every_ms", "message_ids", "probability", "keep", "content_type", "cut_after",
	} {
		if !strings.Contains(string(manual), name) {
			t.Errorf("docs/emulator.md does not name %s", name)
		}
	}
}
