package zerobus_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"go.uber.org/zap"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

const mintedToken = "token-of-the-fuzzed-27182"

// FuzzIngestAnswer is the ingest path saying anything at all, over both HTTP
// transports: success is believed only where it confirms the rows, and what is
// error text is one line of bounded length without a secret.
func FuzzIngestAnswer(f *testing.F) {
	f.Add(200, "application/json", "", []byte(`{"records_ingested":0}`))
	f.Add(200, "text/html", "", []byte(`<html>sign in</html>`))
	f.Add(200, "application/json", "", []byte(`{"records_ingested":1}`))
	f.Add(204, "", "", []byte(nil))
	f.Add(307, "", "https://elsewhere.example", []byte(nil))
	f.Add(400, "application/json", "", []byte(`{"error_code":"INVALID_PARAMETER_VALUE","message":"unrecognized field name 'ip'"}`))
	f.Add(401, "application/json", mintedToken, []byte(`{"error_code":"`+mintedToken+`","message":"Bearer `+mintedToken+` is bad"}`))
	f.Add(403, "application/json", secretOne, []byte(`{"message":"`+secretOne+`\nand more"}`))
	f.Add(429, "", "3", []byte("slow down"))
	f.Add(503, "", "Wed, 21 Oct 2099 07:28:00 GMT", []byte("\xff\x00"))
	basic := base64.StdEncoding.EncodeToString([]byte(principal + ":" + escaped(secretOne)))
	f.Fuzz(func(t *testing.T, status int, kind, header string, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		for _, transport := range []string{zerobus.TransportWorkspace, zerobus.TransportREST} {
			rt := roundTrip(func(r *http.Request) (*http.Response, error) {
				if err := drain(r); err != nil {
					return nil, err
				}
				if strings.HasSuffix(r.URL.Path, "/token") {
					return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
						Body: io.NopCloser(strings.NewReader(`{"access_token":"` + mintedToken + `","expires_in":3600}`))}, nil
				}
				if r.URL.Host == "elsewhere.example" {
					t.Errorf("the redirect was followed with %v", r.Header)
				}
				return &http.Response{StatusCode: status, Request: r, Body: io.NopCloser(bytes.NewReader(body)), Header: http.Header{
					"Content-Type": {kind}, "Retry-After": {header}, "X-Request-Id": {header}, "X-Databricks-Reason-Phrase": {header},
					"Location": {"https://elsewhere.example/"}}}, nil
			})
			cfg := config("https://abc.cloud.databricks.com")
			if transport == zerobus.TransportREST {
				cfg.Transport, cfg.Endpoint = transport, "1234567890123456.zerobus.us-west-2.cloud.databricks.com"
			}
			c, err := zerobus.NewOver(cfg, zap.NewNop(), nil, rt)
			if err != nil {
				t.Fatal(err)
			}
			err = c.Reachable(context.Background())
			if err == nil {
				// A row refused is an endpoint reached; all else is no success.
				if status/100 != 2 && status != 400 && status != 413 && status != 422 {
					t.Errorf("%s: status %d passed for reached", transport, status)
				}
				if text := bytes.TrimSpace(body); status/100 == 2 && len(text) > 0 && text[0] != '{' {
					t.Errorf("%s: %q passed for a confirmation", transport, body)
				}
				continue
			}
			reported := err.Error()
			for _, secret := range []string{secretOne, escaped(secretOne), mintedToken, basic} {
				if strings.Contains(reported, secret) {
					t.Errorf("%s: %q is in %q", transport, secret, reported)
				}
			}
			if len(reported) > 4000 || strings.ContainsAny(reported, "\n\r\x00") || !utf8.ValidString(reported) {
				t.Errorf("%s: got %q, want one line of UTF-8 and some length", transport, reported)
			}
		}
	})
}

// FuzzStreamAnswer decodes a message of the service from any bytes: what is
// understood means the same when it is encoded and decoded again.
func FuzzStreamAnswer(f *testing.F) {
	f.Add([]byte("\x0a\x0a\x0a\x08stream-1")) // create_stream_response
	f.Add([]byte("\x12\x02\x08\x07"))         // ingest_record_response
	f.Add([]byte("\x1a\x04\x0a\x02\x08\x05")) // close_stream_signal
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{0x12, 0x00, 0x12, 0x02, 0x08, 0x01})
	f.Fuzz(func(t *testing.T, data []byte) {
		var answer zerobuspb.EphemeralStreamResponse
		if err := zerobus.StreamCodec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, &answer); err != nil {
			return
		}
		text, err := proto.Marshal(&answer)
		if err != nil {
			t.Fatalf("%x was understood and cannot be encoded: %v", data, err)
		}
		var again zerobuspb.EphemeralStreamResponse
		if err := zerobus.StreamCodec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(text)}, &again); err != nil {
			t.Fatalf("%x was understood, its own encoding is not: %v", data, err)
		}
		if !proto.Equal(&answer, &again) {
			t.Errorf("%x: got %v, and then %v", data, &answer, &again)
		}
	})
}

// Each file of a bundle may begin with a byte order mark, which hides the
// certificate behind it.
func TestRootsMayBeMarked(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	block := "\ufeff" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	file := filepath.Join(t.TempDir(), "ca.pem")
	for name, text := range map[string]string{"first": block, "behind a comment": "# ours\n" + block} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		pool, err := zerobus.ReadRoots(file)
		if err != nil {
			t.Errorf("%s: got %v, want the certificate read", name, err)
			continue
		}
		if _, err := server.Certificate().Verify(x509.VerifyOptions{Roots: pool}); err != nil {
			t.Errorf("%s: got %v, want the server trusted", name, err)
		}
	}
}

// FuzzCAFile reads authorities from any bytes. A file without one is a fault of
// configuration that names the key; it is never taken for the system's.
func FuzzCAFile(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("hello"))
	f.Add([]byte{})
	file := filepath.Join(f.TempDir(), "ca.pem")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		pool, err := zerobus.ReadRoots(file)
		if (pool == nil) == (err == nil) {
			t.Fatalf("got authorities %v and error %v, want one of them", pool, err)
		}
		if err != nil && (!strings.Contains(err.Error(), file) || len(err.Error()) > 1000) {
			t.Errorf("got %v, want the file named, briefly", err)
		}
	})
}
