package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/ops"
)

// watched runs a watch over answers, one for each tick and the first at once, and
// returns what it wrote. Nil is an answer that does not come.
func watched(t *testing.T, asJSON bool, answers ...*ops.Status) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := statusWatch{out: &out, errs: &errs, json: asJSON, ask: func(context.Context) (a statusAnswer, err error) {
		if len(answers) == 0 {
			cancel() // as Ctrl-C does
			return a, errors.New("asked too often")
		}
		next := answers[0]
		answers = answers[1:]
		if next == nil {
			return a, errors.New("connection refused")
		}
		a.status = *next
		a.body, err = json.MarshalIndent(next, "", "  ")
		return a, err
	}}
	ticks := make(chan time.Time, len(answers)+1)
	for range len(answers) + 1 {
		ticks <- time.Time{}
	}
	err = w.run(ctx, ticks)
	return out.String(), errs.String(), err
}

// after is a status that many seconds after the first, with so many rows delivered.
func after(seconds int, rows int64, all ...ops.IntegrationStatus) *ops.Status {
	for i := range all {
		all[i].Totals.RowsDelivered = rows
	}
	s := ops.NewStatus(ops.Status{Time: time.Date(2026, 3, 1, 12, 0, seconds, 0, time.UTC)}, all)
	return &s
}

func TestStatusIsWatchedInLines(t *testing.T) {
	out, errs, err := watched(t, false, after(0, 100, working("default"), refused("orders")), nil, after(2, 300, working("default")))
	if err != nil {
		t.Errorf("got %v at the end, want nothing", err)
	}
	want := `2026-03-01T12:00:00Z  default  ready  running  lag 42  oldest -  rows 100  rows/s -  dead letters 0
2026-03-01T12:00:00Z  orders  NOT READY  running  lag 42  oldest -  rows 100  rows/s -  dead letters 0  sink_blocked: the table refuses writes
2026-03-01T12:00:02Z  default  ready  running  lag 42  oldest -  rows 300  rows/s 100  dead letters 0
`
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	if errs != "no answer: connection refused\n" {
		t.Errorf("stderr: got %q, want the answer that did not come", errs)
	}
}

func TestStatusIsWatchedByMachines(t *testing.T) {
	out, _, err := watched(t, true, after(0, 100, working("default")), after(1, 101, working("default")))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("got %d lines, want one for each answer:\n%s", len(lines), out)
	}
	for n, line := range lines {
		var s ops.Status
		if err := json.Unmarshal([]byte(line), &s); err != nil || s.Totals.RowsDelivered != int64(100+n) {
			t.Errorf("line %d: got %v and %d rows, want %d", n, err, s.Totals.RowsDelivered, 100+n)
		}
	}
}

// A bridge that is not there is an error at first; later it may be restarting.
func TestStatusWatchOfNothing(t *testing.T) {
	if _, _, err := watched(t, false, nil); err == nil {
		t.Error("got no error, want that of the first answer")
	}
	code, _, errs := status(t, "--watch", "--address", "127.0.0.1:1")
	if code != exitFailed || !strings.Contains(errs, "127.0.0.1:1") {
		t.Errorf("got exit code %d and %q, want %d and the address", code, errs, exitFailed)
	}
}

func TestStatusOfSeveralIntegrations(t *testing.T) {
	address := serveStatus(t, statusOf(working("clicks"), refused("orders")))
	code, out, _ := status(t, "--address", address)
	if code != exitFine || !strings.HasPrefix(out, "ready ") {
		t.Errorf("got exit code %d, want %d of a bridge of which one integration delivers:\n%s", code, exitFine, out)
	}
	for _, want := range []string{"orders: sink_blocked: the table refuses writes", "remedy: grant MODIFY", "INTEGRATION ", "\nclicks ", "\norders "} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%s\nwant %q in it", out, want)
		}
	}
	for name, want := range map[string]int{"clicks": exitFine, "orders": exitFailed} {
		code, out, errs := status(t, "--address", address, "--integration", name)
		if code != want || !strings.Contains(out, "events/3") || !strings.Contains(out, "integration "+name) {
			t.Errorf("--integration %s: got exit code %d, %q and\n%s\nwant %d and its partition", name, code, errs, out, want)
		}
		code, out, _ = status(t, "--address", address, "--integration", name, "--output", "json")
		var s ops.Status
		if err := json.Unmarshal([]byte(out), &s); err != nil || code != want || len(s.Integrations) != 1 || s.Integrations[0].Integration != name {
			t.Errorf("--integration %s --output json: got exit code %d, %v and %s", name, code, err, fmt.Sprint(s.Integrations))
		}
	}
	if code, _, errs := status(t, "--address", address, "--integration", "gone"); code != exitFailed || !strings.Contains(errs, "gone") {
		t.Errorf("--integration gone: got exit code %d and %q, want %d and the name", code, errs, exitFailed)
	}
}
