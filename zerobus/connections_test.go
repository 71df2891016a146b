package zerobus_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

// TestClientsShareHTTPConnections has two clients use one connection in turns.
func TestClientsShareHTTPConnections(t *testing.T) {
	space := newWorkspace()
	server := httptest.NewUnstartedServer(space)
	var accepted atomic.Int32
	var open sync.WaitGroup
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			accepted.Add(1)
			open.Add(1)
		case http.StateClosed:
			open.Done()
		}
	}
	server.Start()
	defer server.Close()
	shared := zerobus.NewConnections()
	client := func(secret string, on *zerobus.Connections) *zerobus.Client {
		cfg := config(server.URL)
		cfg.Connections, cfg.ProbeEvery = on, time.Minute
		cfg.ReadCredential = func() (string, error) { return secret, nil }
		c, err := zerobus.New(cfg, zap.NewNop(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	write := func(c *zerobus.Client) {
		t.Helper()
		if err := c.WriteLatest(t.Context(), rows(1)); err != nil {
			t.Fatalf("Write: %v", err)
		}
	}
	one, two, wrong := client(secretOne, shared), client(secretOne, shared), client("wrong", shared)
	write(one)
	write(two)
	if err := wrong.Preflight(t.Context()); !zerobus.IsPermanent(err) {
		t.Errorf("got %v with a wrong secret, want a permanent refusal", err)
	}
	blocked, unblock := context.WithCancel(t.Context())
	done := inBackground(blocked, bench{Client: wrong}, rows(1))
	for wrong.State().Name != zerobus.Blocked {
		select {
		case err := <-done:
			t.Fatalf("Write with a wrong secret: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if got := one.State().Name; got != zerobus.Ready {
		t.Errorf("the state of the client with the right secret is %q, want ready", got)
	}
	unblock()
	<-done
	write(one)
	if got := space.mints(); got != 2 {
		t.Errorf("%d tokens were minted, want one for each client with the right secret", got)
	}
	one.Close()
	wrong.Close()
	wrong.Close()
	write(two)
	if got := accepted.Load(); got != 1 {
		t.Errorf("%d connections were made, want 1 for all clients", got)
	}
	own := client(secretOne, nil)
	write(own)
	if got := accepted.Load(); got != 2 {
		t.Errorf("%d connections were made, want one more for a client without shared ones", got)
	}
	own.Close()
	two.Close()
	gone := make(chan struct{})
	go func() { open.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(30 * time.Second): // they would stay for 90 s
		t.Error("the last client has left connections open")
	}
}

// A client that is closed while its first request could still come makes no connection.
func TestAClosedClientMakesNoConnection(t *testing.T) {
	cfg := config("http://127.0.0.1:1")
	c, err := zerobus.New(cfg, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := c.Token(t.Context()); err == nil || !errors.Is(err, zerobus.ErrClosed) {
		t.Errorf("got %v, want the client to be closed", err)
	}
}

// TestAuthoritiesAreSharedByContent corrects the file of authorities between two clients:
// each trusts what the file held at its first request.
func TestAuthoritiesAreSharedByContent(t *testing.T) {
	cert, right := certificate(t, "127.0.0.1")
	_, wrong := certificate(t, "127.0.0.1")
	web := httptest.NewUnstartedServer(newWorkspace())
	web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	web.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	web.StartTLS()
	defer web.Close()
	endpoint := onPort(t, &service{}, credentials.NewServerTLSFromCert(&cert))
	for _, transport := range []string{zerobus.TransportWorkspace, zerobus.TransportGRPC} {
		t.Run(transport, func(t *testing.T) {
			shared := zerobus.NewConnections()
			file := filepath.Join(t.TempDir(), "ca.pem")
			client := func(ca string) *zerobus.Client {
				text, err := os.ReadFile(ca)
				if err == nil {
					err = os.WriteFile(file, text, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				cfg, connect := config(web.URL), zerobus.New
				if transport == zerobus.TransportGRPC {
					cfg = config("https://abc-12345.cloud.databricks.com")
					cfg.Transport, cfg.Endpoint = transport, endpoint
					connect = func(cfg zerobus.Config, log *zap.Logger, obs zerobus.Observer) (*zerobus.Client, error) {
						return zerobus.NewDialed(cfg, log, obs, inMemory{newWorkspace()}, nil)
					}
				}
				cfg.Connections, cfg.CAFile = shared, file
				c, err := connect(cfg, zap.NewNop(), nil)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				return c
			}
			early := client(wrong)
			if err := early.Reachable(t.Context()); err == nil {
				t.Error("got no error with the authorities of another service")
			}
			late := client(right)
			if err := late.Reachable(t.Context()); err != nil {
				t.Errorf("after the file was corrected: %v", err)
			}
			if err := early.Reachable(t.Context()); err == nil {
				t.Error("the first client has read the file again")
			}
		})
	}
}

// sharing are clients that share connections to one service, by their table.
type sharing struct {
	*recordingDialer
	connections *zerobus.Connections
	t           *testing.T
}

// shareStreams serves svc in memory, for use in a synctest bubble.
func shareStreams(t *testing.T, svc *service, options ...grpc.ServerOption) *sharing {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
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
	d := &recordingDialer{dial: listener.DialContext}
	return &sharing{d, zerobus.DialedConnections(d.Dial), t}
}

func (s *sharing) client(table string) bench {
	s.t.Helper()
	cfg := grpcConfig()
	cfg.Connections, cfg.Table = s.connections, table
	obs := &observed{}
	c, err := zerobus.NewDialed(cfg, zap.NewNop(), obs, inMemory{newWorkspace()}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return bench{Client: c, obs: obs}
}

func TestClientsShareAChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		svc := &service{handle: func(_ int, s *served) error {
			if err := s.ask(); err != nil {
				return err
			}
			switch s.create.GetTableName() {
			case "datafly.events.missing":
				return status.Error(codes.NotFound, "no such table")
			case "datafly.events.slow":
				if err := s.confirm(); err != nil {
					return err
				}
				m, err := s.message()
				if err != nil {
					return err
				}
				<-hold
				return errors.Join(s.ack(m.offset), s.take(-1))
			}
			return s.serve()
		}}
		s := shareStreams(t, svc)
		one, slow, missing := s.client("one"), s.client("slow"), s.client("missing")
		write(t, one, rows(1))
		held := inBackground(t.Context(), slow, rows(1))
		ctx, giveUp := context.WithCancel(t.Context())
		lost := inBackground(ctx, missing, rows(1))
		after(time.Second)
		if a, b := one.State().Name, missing.State().Name; a != zerobus.Ready || b != zerobus.Blocked {
			t.Errorf("the states are %q and %q, want ready and blocked", a, b)
		}
		write(t, one, rows(1))
		giveUp()
		<-lost
		missing.Close()
		one.Close()
		after(time.Second)
		close(hold)
		if err := <-held; err != nil {
			t.Errorf("Write while another client was closed: %v", err)
		}
		write(t, slow, rows(1))
		if got := s.dialed(); got != 1 {
			t.Errorf("%d connections were made, want 1 for all clients", got)
		}
		slow.Close()
		write(t, s.client("again"), rows(1))
		if got := s.dialed(); got != 2 {
			t.Errorf("%d connections were made, want another one after the last client was closed", got)
		}
	})
}

// TestClientsGoBeyondTheLimitOfStreams has a service allow fewer streams on a connection
// than there are clients. gRPC alone would leave the others waiting without an error.
func TestClientsGoBeyondTheLimitOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shareStreams(t, &service{}, grpc.MaxConcurrentStreams(3))
		var clients []bench
		var all []<-chan error
		begin := time.Now()
		for i := range 10 {
			clients = append(clients, s.client(fmt.Sprint("table", i)))
			all = append(all, inBackground(t.Context(), clients[i], rows(1)))
		}
		succeed(t, all...)
		if got := time.Since(begin); got > 1100*time.Millisecond {
			t.Errorf("the rows were taken after %v, want as soon as the limit was noticed", got)
		}
		if got := s.dialed(); got != 4 {
			t.Errorf("%d connections for 10 streams, want 4 of at most 3", got)
		}
		for i, c := range clients {
			if len(c.obs.retries) != 0 {
				t.Errorf("client %d: retries are %v, want none", i, c.obs.retries)
			}
			if i > 0 {
				c.Close()
			}
		}
		synctest.Wait()
		if got := s.open(); got != 1 {
			t.Errorf("%d connections are open for one stream, want 1", got)
		}
		begin = time.Now()
		for i := range 5 { // the limit is known by now
			write(t, s.client(fmt.Sprint("more", i)), rows(1))
		}
		if got := time.Since(begin); got != 0 {
			t.Errorf("further clients waited %v, want none", got)
		}
	})
}

// TestASlowlyEstablishedConnectionIsNotFull has a connection take almost as long as a
// stream waits for room on it: the wait counts from then, or one late stream would lower the
// number of streams per connection for good.
func TestASlowlyEstablishedConnectionIsNotFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &service{handle: func(_ int, s *served) error {
			if err := errors.Join(s.confirm(), s.take(1)); err != nil {
				return err
			}
			select {
			case <-time.After(600 * time.Millisecond):
			case <-s.Context().Done():
			}
			return errors.Join(s.signal(durationpb.New(0)), s.half())
		}}
		s := shareStreams(t, svc, grpc.MaxConcurrentStreams(1))
		connect := s.dial
		s.dial = func(ctx context.Context) (net.Conn, error) {
			<-time.After(950 * time.Millisecond)
			return connect(ctx)
		}
		succeed(t, inBackground(t.Context(), s.client("one"), rows(1)), inBackground(t.Context(), s.client("other"), rows(1)))
		if got := s.dialed(); got != 1 {
			t.Errorf("%d connections were made, want 1: a second stream waited for less than a second", got)
		}
	})
}

// TestASilentTableLeavesTheOthersTheirConnection has the service never answer for one
// table. Its client cannot know whether the connection is dead, so it replaces the
// connection once, and from then on those of its own only.
func TestASilentTableLeavesTheOthersTheirConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var silent atomic.Bool
		silent.Store(true)
		svc := &service{handle: func(_ int, s *served) error {
			if err := errors.Join(s.ask(), s.confirm()); err != nil {
				return err
			}
			if silent.Load() && s.create.GetTableName() == "datafly.events.silent" {
				return errors.Join(s.receive(), s.hang())
			}
			return errors.Join(s.take(1), s.signal(durationpb.New(0)), s.half())
		}}
		s := shareStreams(t, svc)
		dialed := func(want int, when string) {
			t.Helper()
			if got := s.dialed(); got != want {
				t.Errorf("%s: %d connections were made, want %d", when, got, want)
			}
		}
		bad, good := s.client("silent"), s.client("good")
		pending := inBackground(t.Context(), bad, rows(1))
		write(t, good, rows(1))
		dialed(1, "at first")
		after(2*time.Minute + 10*time.Second)
		dialed(3, "after two silent streams")
		write(t, good, rows(1))
		dialed(4, "the other client's next stream")
		after(2 * time.Minute)
		dialed(6, "after four silent streams")
		write(t, good, rows(1))
		dialed(6, "the other client's next stream again")
		silent.Store(false)
		if err := <-pending; err != nil {
			t.Fatalf("Write: %v", err)
		}
		dialed(7, "the stream that works")
		after(time.Second)
		write(t, bad, rows(1))
		write(t, good, rows(1))
		dialed(7, "back on the shared connection")
	})
}

// TestNetworkReachesHostsThatDoNotResolve writes to a workspace, and to the Zerobus
// endpoint that it leads to, under names that only the network's dial knows.
func TestNetworkReachesHostsThatDoNotResolve(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // nothing listens there
	em, err := emulator.New(emulator.Config{TLS: true, Names: []string{"abc-12345.cloud.databricks.com"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(em.Start("127.0.0.1:0"), em.StartZerobus("127.0.0.1:0")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = em.Close(context.WithoutCancel(t.Context())) })
	at := map[string]string{"abc-12345.cloud.databricks.com:443": strings.TrimPrefix(em.URL(), "https://"),
		em.EndpointHost() + ":443": strings.TrimPrefix(em.ZerobusURL(), "https://")}
	network := zerobus.Network{CA: em.CAPEM(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		known, found := at[address]
		if !found {
			return nil, fmt.Errorf("dialed %s, want one of %v", address, at)
		}
		return new(net.Dialer).DialContext(ctx, network, known)
	}}
	for _, transport := range []string{zerobus.TransportWorkspace, zerobus.TransportGRPC, zerobus.TransportREST} {
		c, err := zerobus.New(zerobus.Config{Connections: network.Connections(), Settings: zerobus.Settings{WorkspaceURL: "https://abc-12345.cloud.databricks.com",
			ClientID: emulator.DefaultClientID, ClientSecret: emulator.DefaultClientSecret, Catalog: "datafly", Schema: "events", Table: "stream", Transport: transport,
			RecordFormat: zerobus.FormatJSON}}, zap.NewNop(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Preflight(t.Context()); err != nil {
			t.Errorf("%s: %v", transport, err)
		}
		c.Close()
	}
}
