package zerobus_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// TestOfficialScenarios plays the scenarios that the test suites of Databricks'
// own clients and of EMQX's connector go through, by their names, before the
// emulator. Where our client has another API the first comment names what
// stands for what. In short: a message is one Write of one or more rows. Write
// returning nil is both the flush and the wait for an offset. A Write whose
// context ended leaves its rows with the caller: that is the list of what is
// not acknowledged. The Observer stands for callbacks.
// https://github.com/databricks/zerobus-sdk
func TestOfficialScenarios(t *testing.T) {
	t.Run("life", lifeScenarios)
	t.Run("formats", formatScenarios)
	t.Run("work", workScenarios)
	t.Run("wait", waitScenarios)
	t.Run("concurrency", concurrencyScenarios)
	t.Run("failure", failureScenarios)
	t.Run("recovery", recoveryScenarios)
	t.Run("close_signal", closeSignalScenarios)
	t.Run("callbacks", callbackScenarios)
	t.Run("auth", authScenarios)
	t.Run("schema", schemaScenarios)
	t.Run("proxy", proxyScenarios)
	t.Run("emqx", emqxScenarios)
}

// scenario runs play in a bubble of virtual time. Where nothing but retries
// happens any more that time flies; the guard ends it.
func scenario(t *testing.T, name string, play func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			guard := time.AfterFunc(24*time.Hour, func() { panic("after a day this scenario has not ended: " + t.Name()) })
			defer guard.Stop()
			play(t)
		})
	})
}

const (
	target    = "datafly.events.stream"
	targetDDL = "CREATE TABLE datafly.events.stream (message_id STRING, n BIGINT NOT NULL) USING DELTA;"
)

// stage is a client of the grpc transport before the emulator, both in memory.
type stage struct {
	bench
	em   *emulator.Emulator
	dial func(context.Context) (net.Conn, error) // to the endpoint
}

// staged sets a stage, for use in a bubble. change may be nil.
func staged(t *testing.T, ecfg emulator.Config, change func(*zerobus.Config)) stage {
	t.Helper()
	em, dial := emulated(t, ecfg)
	return client(t, em, inMemory{em.Handler()}, dial, change)
}

// emulated starts an emulator in memory and returns the way to its endpoint.
func emulated(t *testing.T, ecfg emulator.Config) (*emulator.Emulator, func(context.Context) (net.Conn, error)) {
	t.Helper()
	if ecfg.DDL == "" {
		ecfg.DDL = targetDDL
	}
	em, err := emulator.New(ecfg)
	if err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	if err := em.ServeZerobus(listener); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, em) })
	return em, listener.DialContext
}

// shut closes an emulator; it may be closed already.
func shut(t *testing.T, em *emulator.Emulator) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), await.Patience)
	defer cancel()
	if err := em.Close(ctx); err != nil {
		t.Errorf("closing the emulator: %v", err)
	}
}

// client makes a client of the endpoint behind dial and the workspace behind
// space.
func client(t *testing.T, em *emulator.Emulator, space http.RoundTripper, dial func(context.Context) (net.Conn, error), change func(*zerobus.Config)) stage {
	t.Helper()
	cfg := grpcConfig()
	cfg.ClientID, cfg.ReadCredential = emulator.DefaultClientID, func() (string, error) { return emulator.DefaultClientSecret, nil }
	cfg.WorkspaceID = emulator.DefaultWorkspaceID
	if change != nil {
		change(&cfg)
	}
	core, logs := observer.New(zap.DebugLevel)
	obs := &observed{}
	rest := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	c, err := zerobus.NewDialed(cfg, zap.New(core), obs, &twoHosts{space, rest},
		func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) })
	if err != nil {
		t.Fatalf("NewDialed: %v", err)
	}
	t.Cleanup(c.Close)
	return stage{bench{c, nil, logs, obs}, em, dial}
}

// twoHosts leads to the workspace, and to the endpoint for its REST.
type twoHosts struct {
	workspace http.RoundTripper
	endpoint  *http.Transport
}

func (h *twoHosts) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasPrefix(req.URL.Path, "/zerobus/") {
		return h.endpoint.RoundTrip(req)
	}
	return h.workspace.RoundTrip(req)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (h *twoHosts) CloseIdleConnections() { h.endpoint.CloseIdleConnections() }

// scripted sets a stage whose streams follow a script.
func scripted(t *testing.T, steps ...emulator.ScriptStep) (stage, *emulator.Script) {
	t.Helper()
	s := staged(t, emulator.Config{}, nil)
	return s, s.em.Play(target, steps...)
}

// The steps of scripts, in short.
func create(id string) emulator.CreateStream { return emulator.CreateStream{StreamID: id} }

func ack(offset int64) emulator.RecordAck { return emulator.RecordAck{Offset: offset} }

func ackAfter(offset int64, d time.Duration) emulator.RecordAck {
	return emulator.RecordAck{Offset: offset, Delay: d}
}

func fails(code codes.Code) emulator.StreamError {
	return emulator.StreamError{Status: status.New(code, "as the script has it. Error Code: 4044, Error State: 3.")}
}

// silence is an ack for an offset that never comes: the script goes no further
// until the next stream is created, which passes it over.
var silence = emulator.RecordAck{Offset: 1 << 40}

// fault adds a fault to the emulator.
func (s stage) fault(t *testing.T, f emulator.Fault) emulator.Fault {
	t.Helper()
	f, err := s.em.AddFault(f)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// rows returns the rows in the target table.
func (s stage) rows() []emulator.Row { return s.em.Table(target).Rows(nil) }

// begin starts a Write and waits until nothing moves any more.
func (s stage) begin(ctx context.Context, batch [][]byte) <-chan error {
	done := inBackground(ctx, s.bench, batch)
	synctest.Wait()
	return done
}

// succeed waits for Writes that must return nil.
func succeed(t *testing.T, all ...<-chan error) {
	t.Helper()
	for i, done := range all {
		if err := <-done; err != nil {
			t.Errorf("Write %d: %v", i, err)
		}
	}
}

// pending fails if one of the Writes has returned.
func pending(t *testing.T, all ...<-chan error) {
	t.Helper()
	for i, done := range all {
		select {
		case err := <-done:
			t.Errorf("Write %d has returned %v, want it to wait", i, err)
		default:
		}
	}
}

// isRefused fails unless err means that a row can never be ingested.
func isRefused(t *testing.T, err error, code string) {
	t.Helper()
	var no *zerobus.RefusedError
	if !errors.As(err, &no) {
		t.Errorf("Write: %v, want a refusal", err)
		return
	}
	if got, _ := no.Refused(); got != code {
		t.Errorf("code is %q, want %q", got, code)
	}
}

// isOver fails unless err means that the context ended, and nothing else.
func isOver(t *testing.T, err, want error) {
	t.Helper()
	var no *zerobus.RefusedError
	if !errors.Is(err, want) || errors.As(err, &no) {
		t.Errorf("Write: %v, want only the context's end: %v", err, want)
	}
}

// took fails unless as much time has passed since start.
func took(t *testing.T, start time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(start); got != want {
		t.Errorf("it took %v, want %v", got, want)
	}
}

// asked fails unless so many streams were asked for and so many records came.
func asked(t *testing.T, script *emulator.Script, streams, records int) {
	t.Helper()
	if script.Streams() != streams || script.Records() != records {
		t.Errorf("%d streams and %d records, want %d and %d", script.Streams(), script.Records(), streams, records)
	}
}

// quiet fails if an attempt was repeated or a fault was logged.
func (s stage) quiet(t *testing.T) {
	t.Helper()
	s.obs.mu.Lock()
	defer s.obs.mu.Unlock()
	if len(s.obs.retries) != 0 || s.State().Name != zerobus.Ready {
		t.Errorf("retries are %v and the state %q, want none and ready", s.obs.retries, s.State().Name)
	}
	for _, line := range s.logs.FilterLevelExact(zap.WarnLevel).All() {
		t.Errorf("logged: %s", line.Message)
	}
}
