package zerobus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// live is a client before the emulated service.
type live struct {
	*zerobus.Client
	em    *emulator.Emulator
	obs   *observed
	logs  *observer.ObservedLogs
	proto bool
}

// alive starts the emulator and a client of the transport; grpc-json is grpc
// with rows as JSON.
func alive(t testing.TB, transport string, ecfg emulator.Config, change func(*zerobus.Config)) live {
	t.Helper()
	ecfg.DDL = "CREATE TABLE datafly.events.stream (message_id STRING, n BIGINT NOT NULL) USING DELTA;"
	em, err := emulator.New(ecfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := em.Close(ctx); err != nil {
			t.Errorf("closing the emulator: %v", err)
		}
	})
	if err := errors.Join(em.Start("127.0.0.1:0"), em.StartZerobus("127.0.0.1:0")); err != nil {
		t.Fatal(err)
	}
	cfg := zerobus.Config{Settings: zerobus.Settings{WorkspaceURL: em.URL(), ClientID: emulator.DefaultClientID,
		WorkspaceID: emulator.DefaultWorkspaceID, ClientSecret: emulator.DefaultClientSecret, Table: "datafly.events.stream",
		Transport: strings.TrimSuffix(transport, "-json"), Endpoint: em.ZerobusURL()}, ProbeEvery: 50 * time.Millisecond}
	if transport == "grpc-json" {
		cfg.RecordFormat = zerobus.FormatJSON
	}
	if pem := em.CAPEM(); pem != nil {
		cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(cfg.CAFile, pem, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(&cfg)
	}
	core, logs := observer.New(zap.DebugLevel)
	obs := &observed{}
	c, err := zerobus.New(cfg, zap.New(core), obs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	l := live{Client: c, em: em, obs: obs, logs: logs}
	if err := l.prepare(t.Context()); err != nil {
		t.Fatalf("start-up: %v", err)
	}
	return l
}

// prepare is what start-up does.
func (l *live) prepare(ctx context.Context) error {
	if err := l.Reachable(ctx); err != nil {
		return err
	}
	cols, err := l.Columns(ctx)
	if err != nil {
		return err
	}
	form, err := l.Encoding(cols)
	if err != nil {
		return err
	}
	l.proto = form.Format == zerobus.FormatProtobuf
	l.SetRowColumns(cols)
	return l.Preflight(ctx)
}

// row makes a row in the client's form. A poison row lacks the column that must
// not be NULL.
func (l *live) row(id string, n int, poison bool) []byte {
	if !l.proto {
		if poison {
			return fmt.Appendf(nil, `{"message_id":%q}`, id)
		}
		return fmt.Appendf(nil, `{"message_id":%q,"n":%d}`, id, n)
	}
	row := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), id)
	if !poison {
		row = protowire.AppendVarint(protowire.AppendTag(row, 2, protowire.VarintType), uint64(n))
	}
	return row
}

// deliver does what a partition does: what is refused is split until the bad
// row stands alone. It returns the places of the bad rows.
func (l *live) deliver(ctx context.Context, rows [][]byte) (bad []int, err error) {
	var split func(lo, hi int, write func(context.Context, [][]byte) error) error
	split = func(lo, hi int, write func(context.Context, [][]byte) error) error {
		err := write(ctx, rows[lo:hi])
		var no *zerobus.RefusedError
		switch {
		case !errors.As(err, &no):
			return err
		case hi-lo == 1:
			bad = append(bad, lo)
			return nil
		}
		mid := lo + (hi-lo)/2
		if err := split(lo, mid, l.ProbeLatest); err != nil {
			return err
		}
		return split(mid, hi, l.ProbeLatest)
	}
	return bad, split(0, len(rows), l.WriteLatest)
}

var transports = []string{"workspace", "grpc", "grpc-json", "rest"}

func TestEveryTransportBeforeTheEmulator(t *testing.T) {
	for _, transport := range transports {
		for _, tls := range []bool{false, true} {
			t.Run(fmt.Sprint(transport, " tls ", tls), func(t *testing.T) {
				l := alive(t, transport, emulator.Config{TLS: tls, AckInterval: time.Millisecond}, nil)
				var rows [][]byte
				for i := range 1000 {
					rows = append(rows, l.row(fmt.Sprint("m-", i), i, false))
				}
				if bad, err := l.deliver(t.Context(), rows); err != nil || bad != nil {
					t.Fatalf("deliver: %v, bad rows %v", err, bad)
				}
				if got := l.em.Table("datafly.events.stream").Distinct("message_id"); got != 1000 {
					t.Errorf("%d distinct rows stored, want 1000", got)
				}
			})
		}
	}
}

// TestLongRunBeforeTheEmulator writes over streams that live half a second,
// end at random, lose acks and carry a bad row now and then.
func TestLongRunBeforeTheEmulator(t *testing.T) {
	for _, transport := range []string{"grpc", "grpc-json", "rest"} {
		t.Run(transport, func(t *testing.T) {
			l := alive(t, transport, emulator.Config{AckInterval: 2 * time.Millisecond, StreamMaxAge: 500 * time.Millisecond, CloseWindow: 50 * time.Millisecond},
				func(c *zerobus.Config) { c.Streams = 2 })
			faults := []emulator.Fault{
				{Endpoint: emulator.EndpointStream, Effect: emulator.EffectStatus, GRPCCode: "INTERNAL", Probability: 0.01, Seed: 1},
				{Endpoint: emulator.EndpointStream, Effect: emulator.EffectLoseAck, Probability: 0.01, Seed: 2},
				{Endpoint: emulator.EndpointInsert, Effect: emulator.EffectStatus, Status: 503, Probability: 0.01, Seed: 3},
				{Endpoint: emulator.EndpointInsert, Effect: emulator.EffectLoseAck, Probability: 0.01, Seed: 4},
			}
			for _, f := range faults {
				if _, err := l.em.AddFault(f); err != nil {
					t.Fatal(err)
				}
			}
			const writers, batches, size, poisonEvery = 8, 10, 250, 1000
			var poison, found atomic.Int64
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for i := range batches {
						var rows [][]byte
						want := map[int]bool{}
						for j := range size {
							n := (w*batches+i)*size + j
							if n%poisonEvery == 777 {
								want[j] = true
								poison.Add(1)
							}
							rows = append(rows, l.row(fmt.Sprint("m-", n), n, want[j]))
						}
						bad, err := l.deliver(t.Context(), rows)
						if err != nil {
							t.Errorf("deliver: %v", err)
							return
						}
						found.Add(int64(len(bad)))
						for _, j := range bad {
							if !want[j] {
								t.Errorf("a good row was refused: writer %d batch %d row %d", w, i, j)
							}
						}
					}
				})
			}
			wg.Wait()
			if found.Load() != poison.Load() || poison.Load() == 0 {
				t.Errorf("%d bad rows were refused, want %d", found.Load(), poison.Load())
			}
			want := writers*batches*size - int(poison.Load())
			if got := l.em.Table("datafly.events.stream").Distinct("message_id"); got != want {
				t.Errorf("%d distinct rows stored, want %d", got, want)
			}
			t.Logf("streams %d, retries %v, faults %v, distinct %d", l.em.Stats().StreamsOpened, l.obs.retries, l.em.Stats().Faults, want)
		})
	}
}
