package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus/emulator"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

// announcement collects stderr and detects the end of the start-up text.
type announcement struct {
	mu   sync.Mutex
	text bytes.Buffer
	said chan struct{}
	once sync.Once
}

func (a *announcement) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.text.Write(p)
	if strings.Contains(a.text.String(), "rows, newest first: ") {
		a.once.Do(func() { close(a.said) })
	}
	return len(p), nil
}

func (a *announcement) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.text.String()
}

// runEmulator runs `bridge emulator` on a free port. It returns its address,
// what it has printed, and a function that ends it as Ctrl-C does.
func runEmulator(t *testing.T, args ...string) (address, stderr string, end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	a := &announcement{said: make(chan struct{})}
	root := newRoot()
	root.SetArgs(append([]string{"emulator", "--listen", "127.0.0.1:0"}, args...))
	root.SetOut(io.Discard)
	root.SetErr(a)
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	ended := false
	end = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("bridge emulator: %v", err)
		}
	})
	select {
	case <-a.said:
	case err := <-done:
		ended = true
		t.Fatalf("bridge emulator ended: %v\n%s", err, a)
	case <-time.After(await.Limit(t)):
		t.Fatalf("bridge emulator does not say where it is:\n%s", a)
	}
	return regexp.MustCompile(`workspace_url: (\S+)`).FindStringSubmatch(a.String())[1], a.String(), end
}

func TestEmulatorServesUntilInterrupted(t *testing.T) {
	dir := t.TempDir()
	ddl, rows, ca := filepath.Join(dir, "t.sql"), filepath.Join(dir, "rows.jsonl"), filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ddl, []byte("CREATE TABLE shop.raw.orders (id STRING); CREATE TABLE shop.raw.zoo (id STRING)"), 0o600); err != nil {
		t.Fatal(err)
	}
	address, said, end := runEmulator(t, "--tls", "--ca-out", ca, "--ddl", ddl, "--jsonl", rows, "--latency", "1ms", "--client-secret", "hunter2")
	for _, want := range []string{"workspace_url: https://127.0.0.1:", "client_id: emulator", "catalog: shop", "schema: raw", "table: orders", "ca_file: " + ca, "tables: shop.raw.orders, shop.raw.zoo"} {
		if !strings.Contains(said, want) {
			t.Errorf("stderr: got\n%s\nwant %q in it", said, want)
		}
	}
	if strings.Contains(said, "hunter2") {
		t.Errorf("stderr repeats the secret:\n%s", said)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	res, err := client.PostForm(address+emulator.TokenPath, url.Values{
		"grant_type": {"client_credentials"}, "scope": {"all-apis"}, "client_id": {"emulator"}, "client_secret": {"hunter2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("token: got %d, want 200", res.StatusCode)
	}
	if err := end(); err != nil {
		t.Errorf("interrupted: got %v, want a clean end", err)
	}
	if _, err := os.Stat(rows); err != nil {
		t.Errorf("rows file: %v", err)
	}
}

func TestEmulatorPrintsTheSixKeys(t *testing.T) {
	_, said, _ := runEmulator(t)
	const keys = "\n  client_id: emulator\n  client_secret: emulator-secret\n  catalog: datafly\n  schema: events\n  table: stream\n"
	if !strings.Contains(said, keys) || strings.Contains(said, "warning") {
		t.Errorf("stderr: got\n%s\nwant the keys %s and no warning", said, keys)
	}
	for _, want := range []string{"\n  transport: workspace ", "\n  transport: grpc ", "\n  transport: rest ", " endpoint at http://127.0.0.1:"} {
		if !strings.Contains(said, want) {
			t.Errorf("stderr: got\n%s\nwant %q in it", said, want)
		}
	}
	_, said, _ = runEmulator(t, "--listen", "0.0.0.0:0", "--tls")
	if !strings.Contains(said, "warning: 0.0.0.0:0 is not a loopback address") || !strings.Contains(said, "https://127.0.0.1:") || !strings.Contains(said, "--ca-out") {
		t.Errorf("stderr: got\n%s\nwant a warning and an address that can be used", said)
	}
}

// TestEmulatorTakesItsSwitches asks the command for what its flags change.
func TestEmulatorTakesItsSwitches(t *testing.T) {
	address, said, _ := runEmulator(t, "--no-ingest-api", "--no-http2", "--no-create", "--admin-token", "boss", "--cloud", "gcp", "--region", "r1",
		"--no-workspace-header", "--no-endpoint-url", "--warehouse", "w1,state=stopped,start=1h", "--warehouse", "w2,no-use", "--visible-after", "1h", "--auth", "off")
	ask := func(method, path, body string) string {
		req, err := http.NewRequestWithContext(t.Context(), method, address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer boss")
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(res.StatusCode, " ", string(answer), res.Header.Get(emulator.WorkspaceHeader))
	}
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", emulator.IngestPath, "{}", "ENDPOINT_NOT_FOUND"},
		{"GET", emulator.MetastorePath, "", `"region":"r1"}`},
		{"GET", emulator.MetastorePath, "", `"cloud":"gcp"`},
		{"GET", emulator.WarehousesPath, "", `"state":"STOPPED"`},
		{"GET", "/emulator/warehouses", "", `"no_use":true`},
		{"POST", emulator.StatementsPath, `{"statement":"SELECT count(*) FROM datafly.events.stream","warehouse_id":"w2"}`, `[["0"]]`},
		{"GET", emulator.GrantsPath + "catalog/datafly", "", `["USE_CATALOG"]`},
	} {
		if got := ask(c.method, c.path, c.body); !strings.Contains(got, c.want) || strings.Contains(got, "zerobus_endpoint") || strings.HasSuffix(got, emulator.DefaultWorkspaceID) {
			t.Errorf("%s %s: got %s, want %s", c.method, c.path, got, c.want)
		}
	}
	c, err := net.Dial("tcp", regexp.MustCompile(`endpoint at http://([0-9.:]+)`).FindStringSubmatch(said)[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer := make([]byte, len("HTTP/1.1 400"))
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "HTTP/1.1 400" {
		t.Errorf("HTTP/2: got %q, %v, want HTTP/1.1 400", answer, err)
	}
}

// TestEmulatorWithoutTables: a script that creates a catalog alone leaves no table to name.
func TestEmulatorWithoutTables(t *testing.T) {
	ddl := filepath.Join(t.TempDir(), "c.sql")
	if err := os.WriteFile(ddl, []byte("CREATE CATALOG shop"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, said, _ := runEmulator(t, "--ddl", ddl); !strings.Contains(said, "\n  table: stream\n") || strings.Contains(said, "tables: ") {
		t.Errorf("stderr: got\n%s", said)
	}
}

// TestEmulatorServesTheZerobusEndpoint opens a stream and inserts a row with
// nothing but what the command prints.
func TestEmulatorServesTheZerobusEndpoint(t *testing.T) {
	address, said, _ := runEmulator(t, "--zerobus-listen", "127.0.0.1:0", "--auth", "presence", "--workspace-id", "77", "--ack-interval", "1ms", "--stream-max-age", "-1s")
	found := regexp.MustCompile(`endpoint at http://(\S+)`).FindStringSubmatch(said)
	if found == nil {
		t.Fatalf("stderr: got\n%s\nwant the endpoint", said)
	}
	conn, err := grpc.NewClient("passthrough:///"+found[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const table = "datafly.events.stream"
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	s, err := zerobuspb.NewZerobusClient(conn).EphemeralStream(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer x", emulator.TableHeader, table))
	if err != nil {
		t.Fatal(err)
	}
	create := &zerobuspb.CreateIngestStreamRequest{TableName: proto.String(table), RecordType: zerobuspb.RecordType_JSON.Enum()}
	if err := s.Send(&zerobuspb.EphemeralStreamRequest{Payload: &zerobuspb.EphemeralStreamRequest_CreateStream{CreateStream: create}}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Recv(); err != nil || r.GetCreateStreamResponse().GetStreamId() == "" {
		t.Errorf("create: got %v, %v, want a stream", r, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+found[1]+emulator.InsertPath(table), strings.NewReader(`[{}]`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer x")
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("insert: got %d, want 200", res.StatusCode)
	}
	if req, err = http.NewRequestWithContext(ctx, http.MethodGet, address+"/emulator/tables/"+table+"/count", nil); err != nil {
		t.Fatal(err)
	}
	if res, err = client.Do(req); err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), `"rows":1`) {
		t.Errorf("count: got %s, %v, want the row", body, err)
	}
}

// streamTo opens an EphemeralStream to the default table of the emulator that
// said this, without a token.
func streamTo(t *testing.T, said string) zerobuspb.Zerobus_EphemeralStreamClient {
	t.Helper()
	found := regexp.MustCompile(`endpoint at http://(\S+)`).FindStringSubmatch(said)
	if found == nil {
		t.Fatalf("stderr: got\n%s\nwant the endpoint", said)
	}
	conn, err := grpc.NewClient("passthrough:///"+found[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), emulator.TableHeader, "datafly.events.stream"), await.Patience)
	t.Cleanup(cancel)
	s, err := zerobuspb.NewZerobusClient(conn).EphemeralStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func createStream(c *zerobuspb.CreateIngestStreamRequest) *zerobuspb.EphemeralStreamRequest {
	c.TableName = proto.String("datafly.events.stream")
	return &zerobuspb.EphemeralStreamRequest{Payload: &zerobuspb.EphemeralStreamRequest_CreateStream{CreateStream: c}}
}

func TestEmulatorEndsStreamsWithTheStatusChosen(t *testing.T) {
	large := &zerobuspb.EphemeralStreamRequest{Payload: &zerobuspb.EphemeralStreamRequest_IngestRecord{IngestRecord: &zerobuspb.IngestRecordRequest{
		OffsetId: proto.Int64(0), Record: &zerobuspb.IngestRecordRequest_JsonRecord{JsonRecord: strings.Repeat(" ", 10<<20)},
	}}}
	for want, args := range map[codes.Code][]string{
		codes.OutOfRange:        nil,
		codes.ResourceExhausted: {"--oversize-status", "RESOURCE_EXHAUSTED"},
		codes.InvalidArgument:   {"--oversize-status", "INVALID_ARGUMENT"},
	} {
		_, said, _ := runEmulator(t, append([]string{"--auth", "off"}, args...)...)
		s := streamTo(t, said)
		for _, m := range []*zerobuspb.EphemeralStreamRequest{createStream(&zerobuspb.CreateIngestStreamRequest{RecordType: zerobuspb.RecordType_JSON.Enum()}), large} {
			if err := s.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		for err == nil {
			_, err = s.Recv()
		}
		if got := grpcstatus.Code(err); got != want {
			t.Errorf("%q: got %v, want %v", args, err, want)
		}
	}
}

func TestEmulatorWantsTheSchemaChosen(t *testing.T) {
	descriptor, err := proto.Marshal(&descriptorpb.DescriptorProto{Name: proto.String("Row"), Field: []*descriptorpb.FieldDescriptorProto{{
		Name: proto.String("event_name"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]string{"by-name": "", "exact": "the message has 1 fields, expected 13"} {
		_, said, _ := runEmulator(t, "--auth", "off", "--schema", mode)
		s := streamTo(t, said)
		if err := s.Send(createStream(&zerobuspb.CreateIngestStreamRequest{DescriptorProto: descriptor})); err != nil {
			t.Fatal(err)
		}
		_, err := s.Recv()
		if got := grpcstatus.Convert(err).Message(); (err == nil) != (want == "") || !strings.Contains(got, want) {
			t.Errorf("--schema %s: got %v, want %q", mode, err, want)
		}
	}
}

// TestEmulatorTokensOutliveItsProcess uses a token of one run in the next.
func TestEmulatorTokensOutliveItsProcess(t *testing.T) {
	address, _, end := runEmulator(t, "--client-secret", "hunter2")
	res, err := http.PostForm(address+emulator.TokenPath, url.Values{
		"grant_type": {"client_credentials"}, "scope": {"all-apis"}, "client_id": {"emulator"}, "client_secret": {"hunter2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Token == "" {
		t.Fatalf("token: %v", err)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	for secret, want := range map[string]int{"hunter2": http.StatusOK, "another": http.StatusUnauthorized} {
		address, _, _ := runEmulator(t, "--client-secret", secret)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+emulator.ColumnsPath+"datafly.events.stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+answer.Token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("secret %s: got %d, want %d", secret, res.StatusCode, want)
		}
	}
}

// TestEmulatorPortsWithoutAChoice: an address of the Zerobus endpoint that
// nobody chose gives way, and one that is empty is none.
func TestEmulatorPortsWithoutAChoice(t *testing.T) {
	const attempts = 20
	for n := range attempts {
		// Below the ephemeral ports, so that no connection of another test takes
		// the first one between this look and the emulator's.
		port := 11000 + rand.IntN(8000)
		free, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		free.Close()
		if err != nil { // somebody has it: the next pair may be free
			if n == attempts-1 {
				t.Fatalf("no two ports in a row are free: %v", err)
			}
			continue
		}
		_, said, _ := runEmulator(t, "--listen", fmt.Sprintf("127.0.0.1:%d", port))
		taken.Close()
		if !strings.Contains(said, " endpoint at http://127.0.0.1:") || strings.Contains(said, fmt.Sprintf(" endpoint at http://127.0.0.1:%d\n", port+1)) {
			t.Errorf("stderr: got\n%s\nwant an endpoint on another port than %d", said, port+1)
		}
		break
	}
	if _, said, _ := runEmulator(t, "--zerobus-listen", ""); strings.Contains(said, "endpoint at") {
		t.Errorf("stderr: got\n%s\nwant no endpoint", said)
	}
}

// TestEmulatorTakesTheBridgesDDL runs the script that bridge ddl prints for an
// operator.
func TestEmulatorTakesTheBridgesDDL(t *testing.T) {
	var script, errs bytes.Buffer
	args := []string{"ddl", "--dedupe-view", "--rescue", "--optional", "--set", "zerobus.table=shop.raw.stream"}
	if code := execute(args, strings.NewReader(""), &script, &errs); code != exitFine {
		t.Fatalf("bridge ddl: got code %d and %s", code, &errs)
	}
	path := filepath.Join(t.TempDir(), "t.sql")
	if err := os.WriteFile(path, append([]byte("\ufeff"), script.Bytes()...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, said, _ := runEmulator(t, "--ddl", path); !strings.Contains(said, "catalog: shop\n  schema: raw\n  table: stream\n") {
		t.Errorf("stderr: got\n%s\nwant the table of the script\n%s", said, &script)
	}
}

func TestEmulatorRefusesItsFlags(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.sql")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--latency soon", exitUsage, "p50=150ms"},
		{"--ca-out x.pem", exitUsage, "--tls"},
		{"--listen 8090", exitUsage, "host:port"},
		{"--listen 127.0.0.1:http", exitUsage, "not a number"},
		{"--zerobus-listen 8091", exitUsage, "127.0.0.1:8091"},
		{"--zerobus-listen " + taken.Addr().String(), exitFailed, "address already in use"},
		{"--auth lax", exitUsage, "presence"},
		{"--oversize-status ABORTED", exitUsage, "OUT_OF_RANGE, RESOURCE_EXHAUSTED, INVALID_ARGUMENT"},
		{"--schema loose", exitUsage, "by-name, exact"},
		{"--ack-interval -1ms", exitUsage, "ack interval"},
		{"--ddl /does/not/exist.sql", exitUsage, "/does/not/exist.sql"},
		{"--ddl " + empty, exitUsage, "empty"},
		{"--token-lifetime 1ms", exitUsage, "token lifetime"},
		{"--max-rows -1", exitUsage, "--max-rows is -1"},
		{"--nope", exitUsage, "--nope"},
		{"extra", exitUsage, "extra"},
		{"--listen " + taken.Addr().String(), exitFailed, "address already in use"},
	} {
		var out, errs bytes.Buffer
		args := append([]string{"emulator", "--listen", "127.0.0.1:0"}, strings.Fields(c.args)...)
		code := execute(args, strings.NewReader(""), &out, &errs)
		if code != c.code || !strings.Contains(errs.String(), c.want) || out.Len() > 0 {
			t.Errorf("bridge emulator %s: got code %d, stdout %q, stderr %q, want code %d and %q", c.args, code, &out, &errs, c.code, c.want)
		}
	}
}
