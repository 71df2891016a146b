package emulator_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus/emulator"
	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const stream = "datafly.events.stream"

// workspace is a running emulator and a client for it.
type workspace struct {
	*emulator.Emulator
	t      testing.TB
	client *http.Client
	token  string
}

func start(t testing.TB, cfg emulator.Config) *workspace {
	t.Helper()
	e, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	if cfg.TLS {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(e.CAPEM()) {
			t.Fatal("CAPEM holds no certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
		transport.ForceAttemptHTTP2 = true
	}
	w := &workspace{Emulator: e, t: t, client: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := e.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return w
}

// response is a whole response.
type response struct {
	status int
	header http.Header
	body   string
}

func (r response) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatalf("body %q: %v", r.body, err)
	}
	return v
}

func (w *workspace) try(method, path, contentType, body string, header ...string) (response, error) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.URL()+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := w.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, string(bytes.TrimSpace(b))}, err
}

func (w *workspace) do(method, path, contentType, body string, header ...string) response {
	w.t.Helper()
	r, err := w.try(method, path, contentType, body, header...)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

func (w *workspace) admin(method, path, body string) response {
	w.t.Helper()
	return w.do(method, "/emulator/"+path, "application/json", body)
}

func (w *workspace) mint(id, secret string) response {
	w.t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"all-apis"}, "client_id": {id}, "client_secret": {secret}}
	return w.do("POST", emulator.TokenPath, "application/x-www-form-urlencoded", form.Encode())
}

// bearer returns the Authorization header of a good token.
func (w *workspace) bearer() string {
	w.t.Helper()
	if w.token == "" {
		r := w.mint(emulator.DefaultClientID, emulator.DefaultClientSecret)
		token, _ := r.json(w.t)["access_token"].(string)
		if r.status != 200 || token == "" {
			w.t.Fatalf("token: got %d %s, want 200", r.status, r.body)
		}
		w.token = token
	}
	return "Bearer " + w.token
}

func envelope(rows ...string) string {
	return `{"table":"` + stream + `","records":[` + strings.Join(rows, ",") + `]}`
}

func (w *workspace) tryIngest(body string) (response, error) {
	w.t.Helper()
	return w.try("POST", emulator.IngestPath, "application/json", body, "Authorization", w.bearer())
}

func (w *workspace) ingest(body string) response {
	w.t.Helper()
	r, err := w.tryIngest(body)
	if err != nil {
		w.t.Fatalf("ingest: %v", err)
	}
	return r
}

// wantError compares a response with a status, an error code and a part of its
// message.
func (r response) wantError(t testing.TB, status int, code, message string) {
	t.Helper()
	got := r.json(t)
	name, text := "error_code", "message"
	if _, oauth := got["error"]; oauth {
		name, text = "error", "error_description"
	}
	if r.status != status || got[name] != code || !strings.Contains(got[text].(string), message) {
		t.Errorf("got %d %s, want %d %s with %q", r.status, r.body, status, code, message)
	}
}

// endpoint is a workspace with its Zerobus endpoint and a gRPC client for it.
type endpoint struct {
	*workspace
	client pb.ZerobusClient
	grants map[string]string // table -> token
}

func startZerobus(t testing.TB, cfg emulator.Config) *endpoint {
	t.Helper()
	w := start(t, cfg)
	if err := w.StartZerobus("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	z := &endpoint{workspace: w, grants: map[string]string{}}
	z.client = pb.NewZerobusClient(z.dial())
	return z
}

// startInMemory is startZerobus without sockets, for tests in virtual time. Any
// token opens a stream.
func startInMemory(t testing.TB, cfg emulator.Config) *endpoint {
	t.Helper()
	cfg.Auth = emulator.AuthPresence
	e, err := emulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	if err := e.ServeZerobus(listener); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(conn.Close(), e.Close(context.Background())); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return &endpoint{workspace: &workspace{Emulator: e, t: t}, grants: map[string]string{stream: "any"}, client: pb.NewZerobusClient(conn)}
}

// on is the same endpoint for a test inside a test.
func (z *endpoint) on(t testing.TB) *endpoint {
	w, other := *z.workspace, *z
	w.t, other.workspace = t, &w
	return &other
}

// dial opens another connection.
func (z *endpoint) dial() *grpc.ClientConn {
	z.t.Helper()
	creds := insecure.NewCredentials()
	if pem := z.CAPEM(); pem != nil {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		creds = credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
	}
	u, err := url.Parse(z.ZerobusURL())
	if err != nil {
		z.t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+u.Host, grpc.WithTransportCredentials(creds))
	if err != nil {
		z.t.Fatal(err)
	}
	z.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			z.t.Errorf("close connection: %v", err)
		}
	})
	return conn
}

// details is the authorization_details of a token that may write to a table.
func details(table string) string {
	p := strings.Split(table, ".")
	return fmt.Sprintf(`[
		{"type":"unity_catalog_privileges","privileges":["USE CATALOG"],"object_type":"CATALOG","object_full_path":%q},
		{"type":"unity_catalog_privileges","privileges":["USE SCHEMA"],"object_type":"SCHEMA","object_full_path":%q},
		{"type":"unity_catalog_privileges","privileges":["SELECT","MODIFY"],"object_type":"TABLE","object_full_path":%q,"operations":["zerobuswrite"]}]`,
		p[0], p[0]+"."+p[1], table)
}

func (z *endpoint) askGrant(table string) response {
	z.t.Helper()
	return z.do("POST", emulator.TokenPath, form, url.Values{
		"grant_type": {"client_credentials"}, "scope": {"all-apis"}, "resource": {z.Resource()}, "authorization_details": {details(table)},
		"client_id": {emulator.DefaultClientID}, "client_secret": {emulator.DefaultClientSecret},
	}.Encode())
}

// grant returns an Authorization header that may write to a table.
func (z *endpoint) grant(table string) string {
	z.t.Helper()
	if z.grants[table] == "" {
		r := z.askGrant(table)
		token, _ := r.json(z.t)["access_token"].(string)
		if r.status != 200 || token == "" {
			z.t.Fatalf("token for %s: got %d %s, want 200", table, r.status, r.body)
		}
		z.grants[table] = token
	}
	return "Bearer " + z.grants[table]
}

// rpc is an open EphemeralStream with the test's patience.
type rpc struct {
	pb.Zerobus_EphemeralStreamClient
	t      testing.TB
	id     string
	next   int64
	acked  int64 // the highest offset acknowledged, plus one
	cancel context.CancelFunc
}

// dialStream opens the RPC and sends nothing.
func (z *endpoint) dialStream(table string, header ...string) *rpc {
	z.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), await.Patience)
	z.t.Cleanup(cancel)
	ctx = metadata.AppendToOutgoingContext(ctx, header...)
	if len(header) == 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", z.grant(table), emulator.TableHeader, table)
	}
	c, err := z.client.EphemeralStream(ctx)
	if err != nil {
		z.t.Fatal(err)
	}
	return &rpc{Zerobus_EphemeralStreamClient: c, t: z.t, cancel: cancel}
}

func createRequest(c *pb.CreateIngestStreamRequest) *pb.EphemeralStreamRequest {
	return &pb.EphemeralStreamRequest{Payload: &pb.EphemeralStreamRequest_CreateStream{CreateStream: c}}
}

func jsonCreate(table string) *pb.CreateIngestStreamRequest {
	return &pb.CreateIngestStreamRequest{TableName: &table, RecordType: pb.RecordType_JSON.Enum()}
}

func protoCreate(t testing.TB, table string, d *descriptorpb.DescriptorProto) *pb.CreateIngestStreamRequest {
	t.Helper()
	b, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return &pb.CreateIngestStreamRequest{TableName: &table, DescriptorProto: b, RecordType: pb.RecordType_PROTO.Enum()}
}

// open opens a stream with this create_stream, which must succeed.
func (z *endpoint) open(c *pb.CreateIngestStreamRequest) *rpc {
	z.t.Helper()
	s := z.dialStream(c.GetTableName())
	s.send(createRequest(c))
	r, err := s.Recv()
	if err != nil || r.GetCreateStreamResponse().GetStreamId() == "" {
		z.t.Fatalf("create: got %v, %v, want a stream id", r, err)
	}
	s.id = r.GetCreateStreamResponse().GetStreamId()
	return s
}

// openJSON opens a stream of JSON records to the default table.
func (z *endpoint) openJSON() *rpc {
	z.t.Helper()
	return z.open(jsonCreate(stream))
}

// refused opens a stream that must be refused, and returns its status.
func (s *rpc) refused(c *pb.CreateIngestStreamRequest) *status.Status {
	s.t.Helper()
	s.send(createRequest(c))
	return s.end()
}

func (s *rpc) send(q *pb.EphemeralStreamRequest) {
	s.t.Helper()
	if err := s.Send(q); err != nil && !errors.Is(err, io.EOF) {
		s.t.Fatalf("send: %v", err)
	}
}

func jsonBatch(offset int64, records ...string) *pb.EphemeralStreamRequest {
	return &pb.EphemeralStreamRequest{Payload: &pb.EphemeralStreamRequest_IngestRecordBatch{IngestRecordBatch: &pb.IngestRecordBatchRequest{
		OffsetId: &offset, Batch: &pb.IngestRecordBatchRequest_JsonBatch{JsonBatch: &pb.JsonRecordBatch{Records: records}},
	}}}
}

func protoBatch(offset int64, records ...[]byte) *pb.EphemeralStreamRequest {
	return &pb.EphemeralStreamRequest{Payload: &pb.EphemeralStreamRequest_IngestRecordBatch{IngestRecordBatch: &pb.IngestRecordBatchRequest{
		OffsetId: &offset, Batch: &pb.IngestRecordBatchRequest_ProtoEncodedBatch{ProtoEncodedBatch: &pb.ProtoEncodedRecordBatch{Records: records}},
	}}}
}

// json sends a batch of JSON records with the next offset.
func (s *rpc) json(records ...string) {
	s.t.Helper()
	s.send(jsonBatch(s.next, records...))
	s.next++
}

// ack receives acks until this offset is acknowledged.
func (s *rpc) ack(offset int64) {
	s.t.Helper()
	for s.acked <= offset {
		r, err := s.Recv()
		if err != nil {
			s.t.Fatalf("wait for ack of %d: %v", offset, err)
		}
		a := r.GetIngestRecordResponse()
		if a == nil || a.DurabilityAckUpToOffset == nil {
			s.t.Fatalf("wait for ack of %d: got %v", offset, r)
		}
		s.acked = max(s.acked, a.GetDurabilityAckUpToOffset()+1)
	}
}

// end receives until the stream's end, and returns its status.
func (s *rpc) end() *status.Status {
	s.t.Helper()
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return status.New(codes.OK, "")
		}
		if err != nil {
			return status.Convert(err)
		}
		if r.GetCreateStreamResponse() != nil {
			s.t.Fatalf("got %v, want the stream's end", r)
		}
	}
}

func wantStatus(t testing.TB, what string, got *status.Status, code codes.Code, text string) {
	t.Helper()
	if got.Code() != code || !strings.Contains(got.Message(), text) {
		t.Errorf("%s: got %v %q, want %v with %q", what, got.Code(), got.Message(), code, text)
	}
}
