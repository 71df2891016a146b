package emulator_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/datafly/bridge/zerobus/emulator"
	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

// get calls GET as the service principal.
func (w *workspace) get(path string) response {
	w.t.Helper()
	return w.do("GET", path, "", "", "Authorization", w.bearer())
}

func TestMetastore(t *testing.T) {
	z := startZerobus(t, emulator.Config{})
	r := z.get(emulator.MetastorePath)
	m := r.json(t)
	if m["cloud"] != "aws" || m["region"] != "us-west-2" || m["zerobus_endpoint"] != z.ZerobusURL() || r.header.Get(emulator.WorkspaceHeader) != emulator.DefaultWorkspaceID {
		t.Errorf("summary: got %s with the workspace id %q", r.body, r.header.Get(emulator.WorkspaceHeader))
	}
	r = z.get(emulator.AssignmentPath)
	r.want(t, 200, `"workspace_id":1234567890123456}`, m["metastore_id"].(string))
	z.do("GET", emulator.MetastorePath, "", "", "Authorization", "Bearer "+emulator.DefaultAdminToken).want(t, 200, `"cloud":"aws"`)
	z.do("GET", emulator.MetastorePath, "", "").wantError(t, 401, "UNAUTHENTICATED", "token")
	z.do("GET", emulator.AssignmentPath, "", "", "Authorization", z.grant(stream)).wantError(t, 401, "UNAUTHENTICATED", "audience")
	z.add(emulator.Fault{Endpoint: emulator.EndpointMetastore, Effect: emulator.EffectStatus, Status: 403})
	z.get(emulator.MetastorePath).wantError(t, 403, "PERMISSION_DENIED", "")
	z.get(emulator.AssignmentPath).want(t, 200)
	if s := z.Stats(); s.Requests[emulator.EndpointMetastore] != 4 || s.Responses[emulator.EndpointMetastore]["403"] != 1 || s.Requests[emulator.EndpointAssignment] != 3 {
		t.Errorf("stats: got %+v", s)
	}
	other := startZerobus(t, emulator.Config{Cloud: "gcp", Region: "europe-west3", WorkspaceID: "77", NoWorkspaceHeader: true, NoEndpointURL: true, AdminToken: "boss"})
	r = other.do("GET", emulator.MetastorePath, "", "", "Authorization", "Bearer boss")
	if m := r.json(t); m["cloud"] != "gcp" || m["region"] != "europe-west3" || m["zerobus_endpoint"] != nil || r.header.Get(emulator.WorkspaceHeader) != "" {
		t.Errorf("summary of another workspace: got %s, header %q", r.body, r.header.Get(emulator.WorkspaceHeader))
	}
	if got := other.EndpointHost(); got != "77.zerobus.europe-west3.gcp.databricks.com" {
		t.Errorf("EndpointHost: got %s", got)
	}
	for _, bad := range []emulator.Config{{Cloud: "moon"}, {WorkspaceID: "abc"}, {WorkspaceID: "007"}} {
		if _, err := emulator.New(bad); err == nil {
			t.Errorf("%+v: got no error", bad)
		}
	}
}

func TestCertificateNames(t *testing.T) {
	e, err := emulator.New(emulator.Config{TLS: true, Names: []string{"abc-12345.cloud.databricks.com"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(e.CAPEM())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(e.URL(), "https://"))
	}
	client := &http.Client{Transport: transport}
	for _, host := range []string{"abc-12345.cloud.databricks.com", "1234567890123456.zerobus.us-west-2.cloud.databricks.com", "7." + emulator.LocalDomain} {
		resp, err := client.Get("https://" + host + "/healthz")
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		resp.Body.Close()
	}
	if resp, err := client.Get("https://other.cloud.databricks.com/healthz"); err == nil {
		resp.Body.Close()
		t.Error("a name that the certificate does not cover: got no error")
	}
}

func TestIngestAPIOffFromTheStart(t *testing.T) {
	w := start(t, emulator.Config{NoIngestAPI: true})
	w.ingest(envelope()).wantError(t, 404, "ENDPOINT_NOT_FOUND", "")
	w.SetIngestAPI(true)
	w.ingest(envelope()).want(t, 200)
	if err := w.Reset(); err != nil {
		t.Fatal(err)
	}
	w.ingest(envelope()).wantError(t, 404, "ENDPOINT_NOT_FOUND", "")
}

func TestHTTP2Off(t *testing.T) {
	for _, secure := range []bool{false, true} {
		z := startZerobus(t, emulator.Config{NoHTTP2: true, TLS: secure})
		open := func() error {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", z.grant(stream), emulator.TableHeader, stream)
			s, err := z.client.EphemeralStream(ctx)
			if err == nil {
				_ = s.Send(createRequest(jsonCreate(stream))) // Recv has the reason
				_, err = s.Recv()
			}
			return err
		}
		if err := open(); status.Code(err) != codes.Unavailable {
			t.Errorf("TLS %v, HTTP/2 off: got %v, want UNAVAILABLE", secure, err)
		}
		z.insert(stream, `[]`).want(t, 200)
		z.SetHTTP2(true)
		z.client = pb.NewZerobusClient(z.dial())
		if err := open(); err != nil {
			t.Errorf("TLS %v, HTTP/2 on again: got %v", secure, err)
		}
		s := z.openJSON()
		z.SetHTTP2(false)
		wantStatus(t, "an open stream", s.end(), codes.Unavailable, "")
		z.insert(stream, `[]`).want(t, 200)
	}
}

func TestPrefaceGetsHTTP1(t *testing.T) {
	z := startZerobus(t, emulator.Config{NoHTTP2: true})
	c, err := net.Dial("tcp", strings.TrimPrefix(z.ZerobusURL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, len("HTTP/1.1 400"))
	if _, err := c.Read(head); err != nil || string(head) != "HTTP/1.1 400" {
		t.Errorf("got %q, %v, want HTTP/1.1 400", head, err)
	}
}
