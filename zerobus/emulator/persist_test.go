package emulator_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus/emulator"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func stop(t *testing.T, w *workspace) {
	t.Helper()
	if err := w.Close(context.Background()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestRowsSurviveARestart(t *testing.T) {
	cfg := emulator.Config{JSONL: filepath.Join(t.TempDir(), "rows.jsonl")}
	w := start(t, cfg)
	w.do("POST", emulator.IngestPath, "application/json", envelope(`{"message_id":"a"}`, "{\n \"message_id\" : \"b\",\r\"user_id\":\"\\n\"}"), "Authorization", w.bearer(), "X-Request-Id", "r-1")
	w.ingest(envelope(`{"message_id":"a"}`))
	before := w.Table(stream).Rows(nil)
	if age := time.Since(before[0].ReceivedAt); age < 0 || age > time.Minute {
		t.Errorf("received_at: got %v, want now", before[0].ReceivedAt)
	}
	stop(t, w)

	w = start(t, cfg)
	tab := w.Table(stream)
	if got := [...]int{tab.Count(), tab.Distinct("message_id"), len(tab.Duplicates("message_id"))}; got != [...]int{3, 2, 1} {
		t.Errorf("count, distinct, duplicates: got %v, want 3 2 1", got)
	}
	after := tab.Rows(nil)
	for i, want := range []string{`{"message_id":"a"}`, `{"message_id":"b","user_id":"\n"}`, `{"message_id":"a"}`} {
		if string(after[i].JSON) != want || !after[i].ReceivedAt.Equal(before[i].ReceivedAt) || after[i].RequestID != before[i].RequestID {
			t.Errorf("row %d: got %+v, want %s as of %v", i, after[i], want, before[i].ReceivedAt)
		}
	}
	w.ingest(envelope(`{"message_id":"c"}`))
	stop(t, w)

	w = start(t, cfg)
	if got := w.Table(stream).Count(); got != 4 {
		t.Errorf("rows after another restart: got %d, want 4", got)
	}
	if err := w.Reset(); err != nil {
		t.Fatal(err)
	}
	w.ingest(envelope(`{"message_id":"d"}`))
	stop(t, w)
	if got := start(t, cfg).Table(stream).Count(); got != 1 {
		t.Errorf("rows after a reset and a restart: got %d, want 1", got)
	}
}

func TestIncompleteLastLineIsCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	whole := `{"table":"` + stream + `","at":"2026-01-02T03:04:05Z","row":{"message_id":"a"}}` + "\n" +
		`{"table":"gone.s.t","at":"2026-01-02T03:04:05Z","row":{}}` + "\n"
	if err := os.WriteFile(path, []byte(whole+`{"table":"`+stream+`","row":{"message_id":"`+strings.Repeat("torn", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	w := start(t, emulator.Config{JSONL: path, Log: zap.New(core)})
	if got := w.Table(stream).Count(); got != 1 {
		t.Errorf("rows: got %d, want the whole line's", got)
	}
	if got := logs.FilterFieldKey("lines").All(); len(got) != 1 || got[0].ContextMap()["lines"] != int64(1) {
		t.Errorf("log: got %v, want one line about the unknown table", got)
	}
	w.ingest(envelope(`{"message_id":"b"}`))
	stop(t, w)
	got, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(got), whole) || strings.Count(string(got), "\n") != 3 || !strings.HasSuffix(string(got), "\n") {
		t.Errorf("file: got %s (%v), want the whole lines and the new one", got, err)
	}
}

func TestInvalidRowsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	for _, text := range []string{"hello\n", "{}\n", `{"table":"a","row":7}` + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := emulator.New(emulator.Config{JSONL: path})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Start("127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: got %v, want an error that names line 1", text, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q: the file now reads %q", text, got)
		}
	}
	for _, path := range []string{t.TempDir(), os.DevNull, filepath.Join(t.TempDir(), "no", "such", "folder")} {
		e, err := emulator.New(emulator.Config{JSONL: path})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Open(); err == nil {
			t.Errorf("%s as rows file: got no error", path)
		}
	}
}

func TestRowsThatCannotBeWrittenAreNotAcknowledged(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	e, post := bare(t, emulator.Config{JSONL: filepath.Join(t.TempDir(), "rows.jsonl"), Log: zap.New(core)})
	r := post(emulator.IngestPath, "application/json", []byte(envelope(`{}`))) // Open has not been called
	r.wantError(t, 500, "INTERNAL_ERROR", "log")
	if got := e.Table(stream).Count(); got != 0 {
		t.Errorf("rows kept: got %d, want none", got)
	}
	if got := logs.All(); len(got) != 1 || !strings.Contains(fmt.Sprint(got[0].ContextMap()), "call Open") {
		t.Errorf("log: got %v, want one line with the remedy", got)
	}
	if err := e.Open(); err != nil {
		t.Fatal(err)
	}
	if r := post(emulator.IngestPath, "application/json", []byte(envelope(`{}`))); r.status != 200 {
		t.Errorf("after Open: got %d %s, want 200", r.status, r.body)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestCloseDoesNotWaitForSilentConnections: clients open connections ahead of
// need.
func TestCloseDoesNotWaitForSilentConnections(t *testing.T) {
	w := start(t, emulator.Config{})
	silent, err := net.Dial("tcp", strings.TrimPrefix(w.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w.bearer() // accepted after the silent one
	began := time.Now()
	stop(t, w)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("Close took %v, want less than the 5s that a silent connection gets", took)
	}
}

// TestCloseCutsOffWhatDoesNotEnd holds a request in mid-body.
func TestCloseCutsOffWhatDoesNotEnd(t *testing.T) {
	e, err := emulator.New(emulator.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(e.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	idle, err := net.Dial("tcp", strings.TrimPrefix(e.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, err := io.WriteString(conn, "POST "+emulator.IngestPath+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("got %q, %v, want 100 Continue: the handler is reading", line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := e.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: got %v, want the deadline", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("Close took %v, want about 20ms", took)
	}
}

func TestTLSIsTrustedByItsCAOnly(t *testing.T) {
	w := start(t, emulator.Config{TLS: true})
	if !strings.HasPrefix(w.URL(), "https://127.0.0.1:") {
		t.Errorf("URL: got %s", w.URL())
	}
	if r := w.ingest(envelope(`{}`)); r.status != 200 {
		t.Errorf("got %d %s, want 200", r.status, r.body)
	}
	if res, err := http.Get(strings.Replace(w.URL(), "127.0.0.1", "localhost", 1) + "/healthz"); err == nil {
		res.Body.Close()
		t.Error("a client without the CA: got an answer, want a refused certificate")
	}
	if plain := start(t, emulator.Config{}); plain.CAPEM() != nil {
		t.Error("CAPEM without TLS: want nil")
	}
}

// TestManyWriters proves that what is counted is what was acknowledged.
func TestManyWriters(t *testing.T) {
	w := start(t, emulator.Config{MaxRows: 100, JSONL: filepath.Join(t.TempDir(), "rows.jsonl")})
	w.bearer()
	const writers, requests, rows = 8, 25, 20
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	var numbers sync.Map
	w.OnIngest(func(r emulator.IngestRequest) *emulator.Fault {
		if _, twice := numbers.LoadOrStore(r.Number, true); twice || len(r.Rows) != rows {
			t.Errorf("hook: got request %d with %d rows, want each number once with %d", r.Number, len(r.Rows), rows)
		}
		return nil
	})
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range requests {
				var batch []string
				for k := range rows {
					batch = append(batch, fmt.Sprintf(`{"message_id":"%d-%d-%d"}`, i, j, k%(rows-1))) // the last repeats the first
				}
				if r := w.ingest(envelope(batch...)); r.status != 200 {
					t.Errorf("got %d %s, want 200", r.status, r.body)
				}
				w.Table(stream).Newest(3)
				w.Stats()
			}
		})
	}
	if err := w.Table(stream).Wait(ctx, writers*requests*rows); err != nil {
		t.Error(err)
	}
	wg.Wait()
	tab, s := w.Table(stream), w.Stats()
	got := [...]int{tab.Count(), tab.Distinct("message_id"), len(tab.Duplicates("message_id")), int(s.Rows), int(s.Requests["ingest"]), len(tab.Rows(nil)), s.InFlight}
	want := [...]int{writers * requests * rows, writers * requests * (rows - 1), writers * requests, writers * requests * rows, writers * requests, 100, 0}
	if got[6] > 1 { // the last response may reach its reader before its handler returns
		t.Errorf("in flight: got %d", got[6])
	}
	got[6] = 0
	if got != want {
		t.Errorf("count, distinct, duplicates, rows, requests, kept: got %v, want %v", got, want)
	}
	ended, end := context.WithCancel(ctx)
	end()
	if err := tab.Wait(ended, 1<<30); err == nil {
		t.Error("Wait with an ended context: got no error")
	}
}
