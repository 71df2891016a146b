package emulator_test

import (
	"flag"
	"io"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/datafly/bridge/zerobus/emulator"
)

func parseFlags(args ...string) (emulator.Config, error) {
	var cfg emulator.Config
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	cfg.Flags(fs)
	return cfg, fs.Parse(args)
}

// TestFlags sets every flag, and finds each in the Config.
func TestFlags(t *testing.T) {
	defaults, err := parseFlags()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := emulator.New(defaults); err != nil {
		t.Errorf("defaults: %v", err)
	}
	want := emulator.Config{
		Federation: emulator.Federation{Issuer: "i", Audience: "a", Subject: "s"},
		ClientID:   "id", ClientSecret: "secret", AdminToken: "boss", TokenLifetime: time.Minute, JSONL: "rows", MaxRows: 7, MaxIDs: 8, WorkspaceID: "77",
		Cloud: "gcp", Region: "r1", Auth: emulator.AuthOff, AckInterval: time.Second, StreamMaxAge: 2 * time.Second, OversizeCode: codes.InvalidArgument,
		Schema: emulator.SchemaExact, TLS: true, Names: []string{"a.example", "b.example"}, Latency: emulator.Latency{P50: time.Millisecond},
		AcceptTextTimestamps: true, VisibleAfter: 5 * time.Second, NoCreate: true, NoIngestAPI: true, NoHTTP2: true, NoWorkspaceHeader: true, NoEndpointURL: true,
		Warehouses: []emulator.Warehouse{{ID: "w1", Name: "w1", State: "STOPPED", StartUp: emulator.Duration(3 * time.Second)}, {ID: "w2", Name: "w2", State: "RUNNING", NoUse: true}},
	}
	got, err := parseFlags("--client-id=id", "--client-secret=secret", "--admin-token=boss", "--federation=issuer=i,audience=a,subject=s", "--token-lifetime=1m", "--jsonl=rows", "--max-rows=7", "--max-ids=8", "--workspace-id=77",
		"--cloud=gcp", "--region=r1", "--auth=off", "--ack-interval=1s", "--stream-max-age=2s", "--oversize-status=INVALID_ARGUMENT", "--schema=exact", "--tls",
		"--tls-name=a.example", "--tls-name=b.example", "--latency=1ms", "--accept-text-timestamps", "--visible-after=5s", "--no-create", "--no-ingest-api",
		"--no-http2", "--no-workspace-header", "--no-endpoint-url", "--warehouse=w1,state=stopped,start=3s", "--warehouse=w2,no-use")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if none, err := parseFlags("--warehouse=none"); err != nil || none.Warehouses == nil || len(none.Warehouses) != 0 {
		t.Errorf("no warehouses: got %+v, %v", none.Warehouses, err)
	}
	for _, bad := range []string{"--warehouse=w,state=asleep", "--oversize-status=ABORTED", "--latency=soon"} {
		if _, err := parseFlags(bad); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
}
