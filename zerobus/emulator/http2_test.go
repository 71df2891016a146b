package emulator_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/datafly/bridge/zerobus/emulator"
	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

// rawHTTP2 speaks frames (RFC 9113, section 4.1) on a bare connection.
type rawHTTP2 struct {
	t testing.TB
	net.Conn
}

const (
	frameData     = 0
	frameHeaders  = 1
	frameSettings = 4
)

func (c rawHTTP2) write(kind, flags byte, id uint32, payload []byte) {
	c.t.Helper()
	head := make([]byte, 9, 9+len(payload))
	head[0], head[1], head[2], head[3], head[4] = byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags
	binary.BigEndian.PutUint32(head[5:], id)
	if _, err := c.Write(append(head, payload...)); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next frame that belongs to a stream.
func (c rawHTTP2) read() (kind, flags byte, payload []byte) {
	c.t.Helper()
	for {
		var head [9]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			c.t.Fatalf("read a frame: %v", err)
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(c, payload); err != nil {
			c.t.Fatalf("read a frame: %v", err)
		}
		if head[3] == frameSettings && head[4] == 0 {
			c.write(frameSettings, 1, 0, nil)
		}
		if binary.BigEndian.Uint32(head[5:]) != 0 {
			return head[3], head[4], payload
		}
	}
}

// literal is a header in HPACK without indexing or Huffman (RFC 7541, section
// 6.2.2).
func literal(b []byte, name, value string) []byte {
	b = append(b, 0)
	for _, text := range []string{name, value} {
		if n := len(text); n < 127 {
			b = append(b, byte(n))
		} else {
			b = append(b, 127)
			for n -= 127; n > 127; n >>= 7 {
				b = append(b, byte(n)|0x80)
			}
			b = append(b, byte(n))
		}
		b = append(b, text...)
	}
	return b
}

// TestHeadersComeBeforeAnyData is about clients that wait for the response
// headers before they send create_stream, as those built on tonic do: a server
// that sends headers with its first message would leave both waiting.
func TestHeadersComeBeforeAnyData(t *testing.T) {
	for _, secure := range []bool{false, true} {
		z := startZerobus(t, emulator.Config{TLS: secure})
		u, err := url.Parse(z.ZerobusURL())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		if secure {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(z.CAPEM())
			conn = tls.Client(conn, &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}, ServerName: "77." + emulator.LocalDomain, MinVersion: tls.VersionTLS12})
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		c := rawHTTP2{t, conn}
		if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		c.write(frameSettings, 0, 0, nil)
		var headers []byte
		for _, h := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", "/databricks.zerobus.Zerobus/EphemeralStream"}, {":authority", u.Host},
			{"content-type", "application/grpc"}, {"te", "trailers"}, {"authorization", z.grant(stream)}, {emulator.TableHeader, stream},
		} {
			headers = literal(headers, h[0], h[1])
		}
		const endHeaders = 4
		c.write(frameHeaders, endHeaders, 1, headers)

		// Nothing has been sent on the stream but its headers.
		kind, flags, _ := c.read()
		if kind != frameHeaders || flags&1 != 0 {
			t.Fatalf("TLS %v: got frame %d with flags %#x, want HEADERS that leave the stream open", secure, kind, flags)
		}
		message, err := proto.Marshal(createRequest(jsonCreate(stream)))
		if err != nil {
			t.Fatal(err)
		}
		frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
		c.write(frameData, 0, 1, append(frame, message...))
		for {
			kind, _, payload := c.read()
			if kind != frameData {
				continue
			}
			r := &pb.EphemeralStreamResponse{}
			if err := proto.Unmarshal(payload[5:], r); err != nil || r.GetCreateStreamResponse().GetStreamId() == "" {
				t.Errorf("TLS %v: got %v, %v, want create_stream_response", secure, r, err)
			}
			break
		}
		if secure {
			if got := conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != "h2" {
				t.Errorf("ALPN: got %q, want h2", got)
			}
		}
	}
}

// TestConnectionsWithoutARequest must not hold Close up.
func TestConnectionsWithoutARequest(t *testing.T) {
	for _, secure := range []bool{false, true} {
		z := startZerobus(t, emulator.Config{TLS: secure})
		u, err := url.Parse(z.ZerobusURL())
		if err != nil {
			t.Fatal(err)
		}
		for _, first := range []string{"", "P", "PRI * HTTP/2.0\r\n"} {
			conn, err := net.Dial("tcp", u.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.Copy(conn, bytes.NewReader([]byte(first))); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		stop(t, z.workspace)
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("TLS %v: Close took %v", secure, took)
		}
		if err := z.StartZerobus("127.0.0.1:0"); err == nil {
			t.Error("a second StartZerobus: got no error")
		}
	}
}
