package ops_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/ops"
)

// certificateFiles writes a certificate with a serial number, and its key. Clients that
// use trusted accept it.
func certificateFiles(t *testing.T, trusted *x509.CertPool, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	trusted.AddCert(issued)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A server with a certificate serves HTTPS, with the bounds of the others, and takes a
// renewed certificate over; one that cannot be used leaves the last in force.
func TestServerWithCertificate(t *testing.T) {
	dir, trusted := t.TempDir(), x509.NewCertPool()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	core, logs := observer.New(zap.WarnLevel)
	log := zap.New(core)
	cfg := ops.ServerConfig{Name: "admin endpoints", Key: "admin.address", Address: "127.0.0.1:0", Example: "127.0.0.1:8084",
		Certificate: ops.Certificate(cert, key, "admin.tls_cert_file", log),
		Handler:     http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Proto)) })}
	if err := ops.NewServer(cfg, log).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "admin.tls_cert_file") {
		t.Fatalf("without files: got %v, want the key named", err)
	}
	certificateFiles(t, trusted, cert, key, 1)
	s := ops.NewServer(cfg, log)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	serial := func() (n int64) {
		t.Helper()
		dialer := &tls.Dialer{Config: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}}
		conn, err := dialer.DialContext(t.Context(), "tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		secure, _ := conn.(*tls.Conn)
		return secure.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Errorf("got certificate %d, want 1", got)
	}
	certificateFiles(t, trusted, cert, key, 2)
	if got := serial(); got != 2 {
		t.Errorf("renewed: got certificate %d, want 2", got)
	}
	if err := os.WriteFile(key, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := serial(); got != 2 {
			t.Errorf("damaged: got certificate %d, want the last", got)
		}
	}
	if got := logs.FilterMessageSnippet("not renewed").Len(); got != 1 {
		t.Errorf("got %d lines about the damaged key, want 1", got)
	}
	certificateFiles(t, trusted, cert, key, 3)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Addr()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.TLS.PeerCertificates[0].SerialNumber.Int64() != 3 {
		t.Errorf("got %s with certificate %v", resp.Status, resp.TLS.PeerCertificates[0].SerialNumber)
	}
	taken := ops.NewServer(ops.ServerConfig{Name: "admin endpoints", Key: "admin.address", Address: s.Addr(), Handler: cfg.Handler}, log)
	if err := taken.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "listening on admin.address "+s.Addr()+": another process has it") {
		t.Errorf("got %v, want the address that is in use", err)
	}
	plain, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_, _ = plain.Write([]byte("no handshake\r\n\r\n"))
	if _, err := plain.Read(make([]byte, 100)); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection without TLS is not ended")
	}
	if got := logs.FilterMessageSnippet("andshake").Len(); got != 0 {
		t.Errorf("got %d lines about handshakes, want none: any scanner causes them", got)
	}
}
