package zerobus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

// TestStreamsThatLiveTwoSeconds keeps writing for a minute over streams that
// are announced to end after two.
func TestStreamsThatLiveTwoSeconds(t *testing.T) {
	for name, end := range map[string]func(s *served) error{
		"signal, then the end": func(s *served) error {
			if err := s.signal(durationpb.New(500 * time.Millisecond)); err != nil {
				return err
			}
			reported := time.Now()
			for {
				m, err := s.message()
				if errors.Is(err, io.EOF) {
					return nil // the client closed its side
				}
				if err != nil {
					return err
				}
				if time.Since(reported) > 0 { // else the two crossed on the wire
					t.Errorf("message %d came %v after the signal", m.offset, time.Since(reported))
				}
			}
		},
		"the end at once": func(*served) error {
			return status.Error(codes.Unavailable, "Stream timeout reached. Error Code: 6002, Error State: 0.")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := &service{handle: func(_ int, s *served) error {
					if err := s.confirm(); err != nil {
						return err
					}
					for time.Since(s.opened) < 2*time.Second {
						m, err := s.message()
						if err != nil {
							return err
						}
						if time.Since(s.opened) >= 2*time.Second {
							break // the last one is not acknowledged
						}
						if err := s.ack(m.offset); err != nil {
							return err
						}
					}
					return end(s)
				}}
				b := streamed(t, svc, func(c *zerobus.Config) { c.Streams = 2 })
				const writers = 8
				var wg sync.WaitGroup
				for w := range writers {
					wg.Go(func() {
						for i := range 600 {
							if err := b.WriteLatest(t.Context(), [][]byte{fmt.Appendf(nil, `{"message_id":"%d-%d"}`, w, i)}); err != nil {
								t.Errorf("Write: %v", err)
							}
							<-time.After(100 * time.Millisecond)
						}
					})
				}
				wg.Wait()
				last, seen := map[string]int{}, map[string]bool{}
				for _, row := range svc.stored() {
					seen[row] = true
					var w, i int
					if _, err := fmt.Sscanf(row, `{"message_id":"%d-%d"}`, &w, &i); err != nil {
						t.Fatalf("row %q: %v", row, err)
					}
					if key := fmt.Sprint(w); i < last[key] {
						t.Errorf("writer %d: row %d after row %d", w, i, last[key])
					} else {
						last[key] = i
					}
				}
				if len(seen) != writers*600 || len(svc.stored()) != writers*600 {
					t.Errorf("%d rows stored, %d distinct, want %d and no doubles", len(svc.stored()), len(seen), writers*600)
				}
				if got := svc.opened(); got < 40 {
					t.Errorf("%d streams in a minute, want some 60", got)
				}
				if len(b.obs.retries) != 0 {
					t.Errorf("retries are %v, want none", b.obs.retries)
				}
			})
		})
	}
}

// TestConnectionsThatTheServiceTurnsAway has the server end each connection with a
// GOAWAY every ten seconds, and its streams five seconds later.
func TestConnectionsThatTheServiceTurnsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{}
		b := overBuffers(t, svc, nil, func(dial func(context.Context) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
			return func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }
		}, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 10 * time.Second, MaxConnectionAgeGrace: 5 * time.Second}))
		for i := range 100 {
			write(t, b.bench, [][]byte{row(i)})
			after(time.Second)
		}
		seen := map[string]bool{}
		for _, row := range svc.stored() {
			seen[row] = true
		}
		if len(seen) != 100 || svc.opened() < 5 {
			t.Errorf("%d rows over %d streams, want 100 over several", len(seen), svc.opened())
		}
	})
}

// onPort serves svc on a loopback port; over TLS if creds are given.
func onPort(t *testing.T, svc *service, creds credentials.TransportCredentials) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	options := []grpc.ServerOption{grpc.MaxRecvMsgSize(10 << 20)}
	if creds != nil {
		options = append(options, grpc.Creds(creds))
	}
	server := grpc.NewServer(options...)
	zerobuspb.RegisterZerobusServer(server, svc)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("Serve: %v", err)
		}
	})
	return listener.Addr().String()
}

// streamedOnPort returns a client over loopback sockets.
func streamedOnPort(t *testing.T, svc *service, change func(*zerobus.Config)) bench {
	t.Helper()
	address := onPort(t, svc, nil)
	return onSockets(t, newWorkspace(), func(c *zerobus.Config) {
		c.Transport, c.Endpoint = zerobus.TransportGRPC, "http://"+address
		if change != nil {
			change(c)
		}
	})
}

// TestRowsAreFreeOnceAStreamWriteReturns overwrites rows the moment Write
// returns, which it does early here: what arrives must be what was written, and
// the race detector must see no late reader.
func TestRowsAreFreeOnceAStreamWriteReturns(t *testing.T) {
	svc := &service{handle: func(_ int, s *served) error {
		if err := s.confirm(); err != nil {
			return err
		}
		for {
			m, err := s.message()
			if err != nil {
				return err
			}
			for _, row := range m.rows {
				if row = strings.Trim(row, row[:1]); row != "" {
					t.Errorf("a row arrived with %.10q in it, want one character throughout", row)
				}
			}
			if m.offset%3 == 2 {
				if err := s.ack(m.offset); err != nil {
					return err
				}
			}
		}
	}}
	b := streamedOnPort(t, svc, nil)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			batch := make([][]byte, 20)
			for i := range batch {
				batch[i] = make([]byte, 40_000)
			}
			for n := range 25 {
				for _, row := range batch {
					copy(row, bytes.Repeat([]byte{byte('a' + (w+n)%26)}, len(row)))
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%5)*time.Millisecond)
				if err := b.WriteLatest(ctx, batch); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Write: %v", err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

func TestStreamsOverTLS(t *testing.T) {
	cert, file := certificate(t, "127.0.0.1")
	svc := &service{}
	address := onPort(t, svc, credentials.NewServerTLSFromCert(&cert))
	space := newWorkspace()
	for _, tt := range []struct {
		name, file, want string
		permanent        bool
	}{
		{"trusted", file, "", false},
		{"unknown authority", "", "zerobus.ca_file", false},
		{"no such file", filepath.Join(t.TempDir(), "none.pem"), "no such file", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config("https://abc-12345.cloud.databricks.com")
			cfg.Transport, cfg.Endpoint, cfg.CAFile = zerobus.TransportGRPC, address, tt.file
			c, err := zerobus.NewDialed(cfg, zap.NewNop(), nil, inMemory{space}, nil)
			if err != nil {
				t.Fatalf("New: %v", err)
			}
			defer c.Close()
			err = c.Preflight(t.Context())
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Preflight: %v, want it to hold %q", err, tt.want)
			}
			if got := zerobus.IsPermanent(err); got != tt.permanent {
				t.Errorf("IsPermanent is %v, want %v: %v", got, tt.permanent, err)
			}
		})
	}
}

func TestAnEndpointThatIsNotThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := listener.Addr().String()
	listener.Close()
	for name, endpoint := range map[string]string{"refused": "http://" + gone, "unresolvable": "nowhere.invalid"} {
		t.Run(name, func(t *testing.T) {
			b := onSockets(t, newWorkspace(), func(c *zerobus.Config) { c.Transport, c.Endpoint = zerobus.TransportGRPC, endpoint })
			err := b.Preflight(t.Context())
			if err == nil || zerobus.IsPermanent(err) || !strings.Contains(err.Error(), "HTTPS_PROXY") {
				t.Errorf("Preflight: %v, want a transient fault with a remedy", err)
			}
		})
	}
}

// TestStreamsThroughAProxy runs itself in a process of its own, since the
// environment is read once. The endpoint's name resolves nowhere but at the
// proxy.
func TestStreamsThroughAProxy(t *testing.T) {
	const name = "1234567890123456.zerobus.test"
	if file := os.Getenv("BRIDGE_TEST_PROXIED"); file != "" {
		cfg := config("https://abc-12345.cloud.databricks.com")
		cfg.Transport, cfg.Endpoint, cfg.CAFile = zerobus.TransportGRPC, name, file
		c, err := zerobus.NewDialed(cfg, zap.NewNop(), nil, inMemory{newWorkspace()}, nil)
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		defer c.Close()
		if err := c.WriteLatest(t.Context(), rows(3)); err != nil {
			t.Errorf("Write: %v", err)
		}
		return
	}
	cert, file := certificate(t, name)
	svc := &service{}
	proxy := newProxy(t, onPort(t, svc, credentials.NewServerTLSFromCert(&cert)))
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	self := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestStreamsThroughAProxy$")
	self.Env = append(os.Environ(), "BRIDGE_TEST_PROXIED="+file, "HTTPS_PROXY=http://"+proxy.address, "NO_PROXY=", "no_proxy=")
	if out, err := self.CombinedOutput(); err != nil {
		t.Fatalf("the test through the proxy: %v\n%s", err, out)
	}
	if got := proxy.asked(); len(got) != 1 || got[0] != name+":443" {
		t.Errorf("the proxy was asked for %q, want %s:443", got, name)
	}
	if got := len(svc.stored()); got != 3 {
		t.Errorf("%d rows stored, want 3", got)
	}
}
