package emulator_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// TestLatencies measures the waits with a virtual clock.
func TestLatencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := emulator.New(emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(ctx context.Context, method, path string) time.Duration {
			began := time.Now()
			req := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader("{}"))
			func() {
				defer func() { _ = recover() }() // the server's way to cut a connection
				e.Handler().ServeHTTP(httptest.NewRecorder(), req)
			}()
			return time.Since(began)
		}
		bg := t.Context()
		if got := ask(bg, "POST", emulator.IngestPath); got != 20*time.Millisecond {
			t.Errorf("ingest: got %v, want 20ms", got)
		}
		if got := ask(bg, "POST", emulator.TokenPath); got != 0 {
			t.Errorf("token: got %v, want none", got)
		}
		if _, err := e.AddFault(emulator.Fault{ID: "fixed", Endpoint: "token", Effect: "latency", Latency: emulator.Latency{P50: time.Second}}); err != nil {
			t.Fatal(err)
		}
		if got := ask(bg, "POST", emulator.TokenPath); got != time.Second {
			t.Errorf("token with a latency: got %v, want 1s", got)
		}
		if !e.RemoveFault("fixed") || e.RemoveFault("fixed") {
			t.Error("RemoveFault: want true, then false")
		}
		if _, err := e.AddFault(emulator.Fault{Effect: "latency", Seed: 1, Latency: emulator.Latency{P50: 150 * time.Millisecond, P95: 500 * time.Millisecond}}); err != nil {
			t.Fatal(err)
		}
		var over50, over95 int
		for range 2000 {
			d := ask(bg, "POST", emulator.TokenPath)
			if d > 150*time.Millisecond {
				over50++
			}
			if d > 500*time.Millisecond {
				over95++
			}
			if d > 5*time.Second {
				t.Fatalf("got %v, want at most ten times p95", d)
			}
		}
		if over50 < 900 || over50 > 1100 || over95 < 60 || over95 > 140 {
			t.Errorf("of 2000: %d above p50 and %d above p95, want about 1000 and 100", over50, over95)
		}
		ctx, cancel := context.WithTimeout(bg, 10*time.Millisecond)
		defer cancel()
		e.ClearFaults()
		if got := ask(ctx, "POST", emulator.IngestPath); got != 10*time.Millisecond {
			t.Errorf("client that leaves after 10ms: got %v", got)
		}
		if err := e.Close(bg); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestCloseEndsADelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := emulator.New(emulator.Config{Latency: emulator.Latency{P50: time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		rec, done := httptest.NewRecorder(), make(chan struct{})
		began := time.Now()
		go func() {
			defer close(done)
			e.Handler().ServeHTTP(rec, httptest.NewRequest("POST", emulator.IngestPath, nil))
		}()
		synctest.Wait()
		if err := e.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		<-done
		if took := time.Since(began); took != 0 || rec.Code != 401 {
			t.Errorf("got %d after %v, want the answer at once", rec.Code, took)
		}
	})
}

func TestParseLatency(t *testing.T) {
	for text, want := range map[string]emulator.Latency{
		"": {}, "20ms": {P50: 20 * time.Millisecond}, "p50=1s": {P50: time.Second},
		"p50=150ms,p95=500ms": {P50: 150 * time.Millisecond, P95: 500 * time.Millisecond}, "p95=2s, p50=1s": {P50: time.Second, P95: 2 * time.Second},
	} {
		got, err := emulator.ParseLatency(text)
		if err != nil || got != want {
			t.Errorf("ParseLatency(%q): got %v, %v, want %v", text, got, err, want)
		}
		if again, err := emulator.ParseLatency(got.String()); err != nil || again != got {
			t.Errorf("ParseLatency(%q): got %v, %v, want %v back", got.String(), again, err, got)
		}
	}
	for _, text := range []string{"x", "20", "p99=1s", "p50=1s,p50=2s", "p95=1s", "p50=2s,p95=1s", "-1s", "1s,2s", "p50=2h", "1s,"} {
		if l, err := emulator.ParseLatency(text); err == nil {
			t.Errorf("ParseLatency(%q): got %v, want an error", text, l)
		}
	}
}
