package zerobus

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"time"

	"github.com/datafly/bridge/internal/databricks"
	"go.uber.org/zap"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// NewOver is New with the sockets replaced, for tests in virtual time. Delays
// lose their randomness: each is the longest its step allows.
func NewOver(cfg Config, log *zap.Logger, obs Observer, rt http.RoundTripper) (*Client, error) {
	return NewDialed(cfg, log, obs, rt, nil)
}

// NewDialed is NewOver with gRPC's sockets replaced, too. A nil dial leaves them, or those
// of cfg.Connections.
func NewDialed(cfg Config, log *zap.Logger, obs Observer, rt http.RoundTripper,
	dial func(context.Context, string) (net.Conn, error)) (*Client, error) {
	if dial != nil {
		cfg.Connections = DialedConnections(dial)
	}
	c, err := newClient(cfg, log, obs, rt)
	if err == nil {
		c.jitter = func(d time.Duration) time.Duration { return d }
	}
	return c, err
}

// DialedConnections returns Connections with gRPC's sockets replaced.
func DialedConnections(dial func(context.Context, string) (net.Conn, error)) *Connections {
	c := NewConnections()
	c.dial = dial
	return c
}

// ReadRoots returns the authorities of a file.
func ReadRoots(caFile string) (*x509.CertPool, error) {
	ca, err := NewConnections().authorities(caFile)
	return ca.pool, err
}

// WriteLatest is Write for rows of the latest schema version.
func (c *Client) WriteLatest(ctx context.Context, rows [][]byte) error {
	_, err := c.Write(ctx, c.schemaVersion.Load(), rows)
	return err
}

// ProbeLatest is Probe for rows of the latest schema version.
func (c *Client) ProbeLatest(ctx context.Context, rows [][]byte) error {
	_, err := c.Probe(ctx, c.schemaVersion.Load(), rows)
	return err
}

// The parsers of what comes from outside, for fuzzing.
var (
	DecodeColumns   = decodeColumns
	ParseRetryAfter = databricks.RetryAfter
	Confirm         = confirm
	StreamCodec     = codec{}
	ErrClosed       = errClosed
)

// StreamFault returns the error and the reason of a stream that ended so, and whether it is
// a configuration fault.
func (c *Client) StreamFault(st *status.Status, phrase string, created bool, secrets ...string) (text string, permanent bool) {
	end := newStreamEnd(st.Err(), "stream-1", created, metadata.Pairs("content-type", "application/grpc", reasonPhrase, phrase), nil)
	e := c.current.Load().rem.ended(end, secrets)
	return e.Error() + "\n" + e.Reason(), IsPermanent(e)
}

// Descriptor returns the descriptor of a row of the given columns.
func (c *Client) Descriptor(cols []Column) ([]byte, error) {
	numbers := map[string]int32{}
	for i, col := range cols {
		numbers[col.Name] = int32(i + 1)
	}
	return c.current.Load().grpc.descriptor(cols, numbers)
}

// DecodeAnswer returns the content of an error body.
func DecodeAnswer(body []byte) (code, message, column string) {
	a := databricks.DecodeAnswer(body)
	return a.Code, databricks.Clean(a.Message, 500), a.Column
}

// Tracked is a tracked connection.
type Tracked struct{ *trackedConn }

// NewTracked tracks conn.
func NewTracked(conn net.Conn) Tracked { return Tracked{track(conn)} }

// Begin announces a request.
func (c Tracked) Begin() { c.begins.Store(true) }

// Answered reports whether anything was read since.
func (c Tracked) Answered() bool { return c.answered() }
