// Package connectproxy is an HTTP CONNECT proxy for tests. Every host that is asked for
// leads to one address, so that names which no name server knows can be used.
package connectproxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Config is what a Proxy does with connections. The zero value passes bytes on unread.
type Config struct {
	// To is the host:port that connections lead to.
	To string
	// Inspects makes the proxy end TLS with a certificate of its own, negotiate no
	// protocol and speak HTTP/1.1 only, as proxies that inspect traffic do.
	Inspects *Authority
	// Roots verify the host behind an inspecting proxy.
	Roots *x509.CertPool
	// SwallowsHTTP2 makes an inspecting proxy leave TLS clients that offer HTTP/2 alone
	// without an answer.
	SwallowsHTTP2 bool
}

// Authority is a certificate for one host that is its own authority.
type Authority struct {
	PEM         []byte
	certificate tls.Certificate
}

// NewAuthority makes one for a host.
func NewAuthority(host string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Authority{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}, nil
}

// Proxy is a running proxy. Its methods are safe for concurrent use.
type Proxy struct {
	// URL is the value for HTTPS_PROXY.
	URL string

	cfg      Config
	listener net.Listener
	onward   *http.Transport
	all      sync.WaitGroup
	ctx      context.Context
	stop     context.CancelFunc

	mu    sync.Mutex
	asked []string
}

// Start listens on a free loopback port. Close, or the end of ctx, ends the proxy.
func Start(ctx context.Context, cfg Config) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{URL: "http://" + listener.Addr().String(), cfg: cfg, listener: listener,
		onward: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots, NextProtos: []string{"http/1.1"}}, Protocols: new(http.Protocols), DisableCompression: true}}
	p.onward.Protocols.SetHTTP1(true)
	p.ctx, p.stop = context.WithCancel(ctx)
	context.AfterFunc(p.ctx, func() { listener.Close() })
	p.all.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			p.all.Go(func() { p.serve(in) })
		}
	})
	return p, nil
}

// Close ends the proxy and its connections, and waits for them.
func (p *Proxy) Close() {
	p.stop()
	p.listener.Close()
	p.all.Wait()
	p.onward.CloseIdleConnections()
}

// Asked returns the different host:port that were asked for, sorted.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(p.asked)))
}

func (p *Proxy) serve(in net.Conn) {
	defer in.Close()
	defer context.AfterFunc(p.ctx, func() { in.Close() })()
	reader := bufio.NewReader(in)
	req, err := http.ReadRequest(reader)
	if err != nil || req.Method != http.MethodConnect {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, req.Host)
	p.mu.Unlock()
	if _, err := io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	if p.cfg.Inspects != nil {
		p.inspect(in)
		return
	}
	out, err := new(net.Dialer).DialContext(p.ctx, "tcp", p.cfg.To)
	if err != nil {
		return
	}
	defer out.Close()
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(out, reader); out.Close() })
	_, _ = io.Copy(in, out)
	in.Close()
	back.Wait()
}

// inspect serves requests of a TLS connection, one after the other.
func (p *Proxy) inspect(in net.Conn) {
	conn := tls.Server(in, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{p.cfg.Inspects.certificate}, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if !p.cfg.SwallowsHTTP2 || !slices.Contains(hello.SupportedProtos, "h2") {
			return nil, nil // use the one given
		}
		_, _ = io.Copy(io.Discard, in) // until the client leaves
		return nil, errors.New("left without an answer")
	}})
	if conn.HandshakeContext(p.ctx) != nil {
		return
	}
	for reader := bufio.NewReader(conn); ; {
		req, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		req.RequestURI, req.URL.Scheme, req.URL.Host = "", "https", p.cfg.To
		resp, err := p.onward.RoundTrip(req.WithContext(p.ctx))
		if err != nil {
			return
		}
		err = resp.Write(conn)
		resp.Body.Close()
		if err != nil {
			return
		}
	}
}
