package zerobus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/datafly/bridge/internal/plaintext"
)

// headersMax bounds the headers of an answer, and the trailers of a stream.
const headersMax = 256 << 10

// newHTTPClient returns the client all requests go through. It never follows a
// redirect: they carry credentials.
func newHTTPClient(rt http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     rt,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// roundTripper makes its http.Transport at the first request, so that
// constructing a Client reads no file.
type roundTripper struct {
	caFile string

	mu    sync.Mutex // guards the fields below
	made  *http.Transport
	alone *http.Transport // makes a connection for each request
}

// RoundTrip sends a request that has Close set on a connection of its own.
func (r *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	t, err := r.transport(req.Close)
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, rootsError{err}
	}
	return t.RoundTrip(req)
}

// rootsError says that the certificate authorities could not be read.
type rootsError struct{ error }

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (r *roundTripper) CloseIdleConnections() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made != nil {
		r.made.CloseIdleConnections()
	}
}

func (r *roundTripper) transport(alone bool) (*http.Transport, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.made != nil && alone:
		return r.alone, nil
	case r.made != nil:
		return r.made, nil
	}
	roots, err := readRoots(r.caFile)
	if err != nil {
		return nil, err
	}
	// HTTP/1.1: one connection per write in flight. A dead connection then
	// costs one batch its timeout instead of all of them, and batches do not
	// share one connection's flow control. A connection holds the two buffers.
	r.made = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialGuarded,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 512,
		IdleConnTimeout:     90 * time.Second,
		WriteBufferSize:     32 << 10,
		ReadBufferSize:      4 << 10,

		MaxResponseHeaderBytes: headersMax,
	}
	r.alone = r.made.Clone()
	r.alone.DisableKeepAlives = true
	if alone {
		return r.alone, nil
	}
	return r.made, nil
}

func dialGuarded(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return guard(conn), nil
}

// readRoots returns the system's authorities and those of the file; nil: only
// the system's.
func readRoots(caFile string) (*x509.CertPool, error) {
	if caFile == "" {
		return nil, nil
	}
	pem, err := plaintext.ReadPEM(caFile)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", caFile)
	}
	return pool, nil
}

// innermost strips what http.Client wraps around an error: method and URL,
// which our own errors say already.
func innermost(err error) error {
	var wire *url.Error
	if errors.As(err, &wire) {
		return wire.Err
	}
	return err
}
