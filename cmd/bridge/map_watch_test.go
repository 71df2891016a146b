package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/datafly/bridge/mapping"

	"github.com/datafly/bridge/internal/terminal"
)

// screens hands on what is written, one screen at a time.
type screens chan string

func (s screens) Write(p []byte) (int, error) {
	s <- string(p)
	return len(p), nil
}

// rewrite replaces a file at once, with a time that differs from the one before,
// as it would when somebody works on it.
func rewrite(t *testing.T, file, text string, at time.Time) {
	t.Helper()
	next := filepath.Join(t.TempDir(), "next")
	writeFile(t, next, text)
	if err := errors.Join(os.Chtimes(next, at, at), os.Rename(next, file)); err != nil {
		t.Fatal(err)
	}
}

func TestMapWatch(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	blueprint, sample := filepath.Join(dir, "b.yaml"), filepath.Join(dir, "event.json")
	at := time.Date(2026, 3, 4, 9, 15, 0, 0, time.UTC)
	const fine = "version: 2\nglobal: {mappings: [{source: a, target: a, type: INT}]}\n"
	rewrite(t, blueprint, fine, at)
	rewrite(t, sample, "{\n  \"a\": 1\n}\n", at)
	shown, ticks := make(screens), make(chan time.Time)
	w := mapWatch{mapFlags: mapFlags{output: &outputForm{}}, samples: []string{sample}, out: shown, files: func() []string { return []string{blueprint, sample} },
		compile: func() (*mapping.Mapping, error) {
			data, err := os.ReadFile(blueprint)
			if err != nil {
				return nil, err
			}
			b, err := mapping.Parse(blueprint, data)
			if err != nil {
				return nil, err
			}
			return b.Compile(mapping.Options{})
		}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx, ticks) }()

	expect := func(what string, wants ...string) {
		t.Helper()
		var got string
		for got == "" { // the tick before may have met the change, too
			select {
			case ticks <- time.Time{}:
			case got = <-shown:
			}
		}
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: got %q, want %q in it", what, got, want)
			}
		}
	}
	expect("at first", `{"a":1}`+"\n", "1 rows, 0 rejected, 0 filtered")
	for range 3 {
		ticks <- time.Time{} // nothing has changed, so nothing is written and the next one is taken
	}

	rewrite(t, sample, `{"a":2}`+"\n"+`{"a":"x"}`+"\n", at.Add(time.Second))
	expect("after the sample changed", "--- "+sample+" has changed\n", `{"a":2}`, sample+":2: rejected (type_mismatch, column a)", "1 rows, 1 rejected")

	rewrite(t, blueprint, "version: 2\nglobal: {mapings: []}\n", at.Add(2*time.Second))
	expect("with a bad blueprint", blueprint+`:2:10: unknown key "mapings"`)

	w2 := strings.Replace(fine, "INT", "STRING", 1)
	rewrite(t, blueprint, w2, at.Add(3*time.Second))
	expect("fixed", `{"a":"2"}`, `{"a":"x"}`, "2 rows, 0 rejected")

	if err := os.Remove(sample); err != nil {
		t.Fatal(err)
	}
	expect("without its sample", "event.json: no such file")

	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want an interrupted watch to end well", err)
	}
}

func TestMapWatchClearsATerminal(t *testing.T) {
	shown := make(screens, 1)
	w := mapWatch{mapFlags: mapFlags{output: &outputForm{}}, out: shown, look: terminal.Style{Live: true}, compile: func() (*mapping.Mapping, error) { return mapping.Default().Compile(mapping.Options{}) }}
	if err := w.show(t.Context(), "b.yaml"); err != nil {
		t.Fatal(err)
	}
	if got := <-shown; !strings.HasPrefix(got, clearScreen) || strings.Contains(got, "---") {
		t.Errorf("got %q, want a cleared screen and no separator", got)
	}
}

func TestMapReadsFiles(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "one.json"), "{\n \"type\": \"page\",\n \"message_id\": \"1\"\n}\n")
	writeFile(t, filepath.Join(dir, "many.ndjson"), `{"type":"page","message_id":"2"}`+"\n"+`{"type":`+"\n")
	code, out, errs := bridgeIn(t, dir, "map", "one.json", "many.ndjson")
	if code != exitFailed || out != "{\"event_type\":\"page\",\"message_id\":\"1\"}\n{\"event_type\":\"page\",\"message_id\":\"2\"}\n" || !strings.Contains(errs, "many.ndjson:2: rejected (not_json)") {
		t.Errorf("got %d, %q, %q", code, out, errs)
	}
	if code, _, errs := bridgeIn(t, dir, "map", "gone.json"); code != exitUsage || !strings.Contains(errs, "gone.json") {
		t.Errorf("got %d, %q, want the missing file named", code, errs)
	}
	if code, _, errs := bridgeIn(t, dir, "map", "--watch"); code != exitUsage || !strings.Contains(errs, "--watch needs files") {
		t.Errorf("got %d, %q, want files asked for", code, errs)
	}
}
