//go:build !windows

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/datafly/bridge/internal/await"
)

// fakeTerminal is a terminal with what was written to it.
type fakeTerminal struct {
	tty    *os.File
	master *os.File
	over   chan struct{} // closed when all has been read
	more   chan struct{} // told when something was written

	mu   sync.Mutex
	text bytes.Buffer
}

// openTerminal opens a terminal of that many columns.
func openTerminal(t *testing.T, columns uint16) *fakeTerminal {
	t.Helper()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	master, tty, err := pty.Open()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no pseudo terminal here: %v", err)
		}
		t.Skipf("no pseudo terminal here: %v", err)
	}
	w := &fakeTerminal{tty: tty, master: master, over: make(chan struct{}), more: make(chan struct{}, 1)}
	w.resize(t, columns)
	go func() { // ends when the tty is closed
		defer close(w.over)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			w.mu.Lock()
			w.text.Write(buf[:n])
			w.mu.Unlock()
			select {
			case w.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { w.close(); master.Close() })
	return w
}

func (w *fakeTerminal) resize(t *testing.T, columns uint16) {
	t.Helper()
	if err := pty.Setsize(w.master, &pty.Winsize{Rows: 24, Cols: columns}); err != nil {
		t.Fatal(err)
	}
}

func (w *fakeTerminal) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// close ends the terminal and returns all that was written to it.
func (w *fakeTerminal) close() string {
	w.tty.Close()
	<-w.over
	return w.String()
}

// await waits until what was written after the first from bytes satisfies ok.
func (w *fakeTerminal) await(t *testing.T, from int, what string, ok func(string) bool) {
	t.Helper()
	late := time.After(await.Limit(t))
	for !ok(w.String()[from:]) {
		select {
		case <-w.more:
		case <-late:
			t.Fatalf("%s did not come; got %q", what, w.String()[from:])
		}
	}
}

const paint = "\x1b["

var coloured = regexp.MustCompile("\x1b\\[[0-9]+m")

func TestDemoGoesByItsOutput(t *testing.T) {
	args := []string{"demo", "--events", "300"}
	for _, tc := range []struct {
		name         string
		env          map[string]string
		more         []string
		pipe         bool
		live, colour bool
	}{
		{name: "terminal", live: true, colour: true},
		{name: "NO_COLOR", env: map[string]string{"NO_COLOR": "1"}, live: true},
		{name: "--color always beats NO_COLOR", env: map[string]string{"NO_COLOR": "1"}, more: []string{"--color", "always"}, live: true, colour: true},
		{name: "--color never", more: []string{"--color=never"}, live: true},
		{name: "TERM=dumb", env: map[string]string{"TERM": "dumb"}},
		{name: "pipe", pipe: true},
		{name: "pipe, --color always", pipe: true, more: []string{"--color", "always"}, colour: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := openTerminal(t, 100)
			for k, v := range tc.env {
				t.Setenv(k, v)
			}
			var said string
			var code int
			if tc.pipe {
				var out bytes.Buffer
				code = execute(append(args, tc.more...), strings.NewReader(""), &out, &out)
				said = out.String()
			} else {
				code = execute(append(args, tc.more...), w.tty, w.tty, w.tty)
				said = w.close()
			}
			if code != exitFine {
				t.Fatalf("got exit code %d and %q, want %d", code, said, exitFine)
			}
			if got := strings.Contains(coloured.ReplaceAllString(said, ""), "[====================] 100.0%"); got != tc.live {
				t.Errorf("got a bar %v, want %v: %q", got, tc.live, said)
			}
			if !tc.live && strings.Contains(said, eraseLine) {
				t.Errorf("got a line that is rewritten: %q", said)
			}
			if got := coloured.MatchString(said); got != tc.colour {
				t.Errorf("got colours %v, want %v: %q", got, tc.colour, said)
			}
			if !tc.live && !tc.colour && strings.Contains(said, "\x1b") {
				t.Errorf("got an escape sequence in plain text: %q", said)
			}
			if text := coloured.ReplaceAllString(said, ""); !strings.Contains(text, "  lost              0   produced - distinct - rejected - filtered") {
				t.Errorf("got %q, want the books", text)
			}
		})
	}
}

// What a pipe gets is the same text each time but for times and rates.
func TestDemoInAPipeIsGolden(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := execute([]string{"demo", "--events", "300", "--topic", "shop", "--ops-address", "127.0.0.1:0"}, strings.NewReader(""), &stdout, &stderr); code != exitFine {
		t.Fatalf("got exit code %d and %q, want %d", code, stderr.String(), exitFine)
	}
	report := stdout.String()
	head, books, _ := strings.Cut(report, "\n300 events in ")
	if want := regexp.MustCompile(`^SELECT \* FROM datafly\.events\.stream ORDER BY event_timestamp DESC LIMIT 10\n\nevent_name +event_type +message_id .*\n`); !want.MatchString(head) || strings.Count(head, "\n") != 13 {
		t.Errorf("got %q, want the statement, the heads of the columns and ten rows", head)
	}
	times := regexp.MustCompile(`\d+(\.\d+)?(ms|s|µs)|\(\d+ events/s\)`)
	want := `T T, acknowledged in T (p50), T (p99)

  produced        300   acknowledged by Kafka
  distinct        297   message ids in the table (297 rows, 0 duplicates)
  rejected          3   in the dead-letter topic: CODES
  filtered          0   tombstones
  lost              0   produced - distinct - rejected - filtered
`
	got := times.ReplaceAllString(books, "T")
	got = regexp.MustCompile(`(topic: )[a-z_0-9, ]+`).ReplaceAllString(got, "${1}CODES")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	line := regexp.MustCompile(`^bridge: shop -> datafly\.events\.stream; live events at http://127\.0\.0\.1:\d+/live/ and metrics at /metrics\n(events in \d+   rows landed \d+   rejected \d+   filtered \d+   lag \d+   ack p50 \S+ p99 \S+\n)+$`)
	if !line.MatchString(stderr.String()) {
		t.Errorf("got %q on stderr, want the address and plain lines of progress", stderr.String())
	}
}

func TestRunOnATerminalKeepsOneLineBelowItsLog(t *testing.T) {
	args := append([]string{"run"}, settings(t)...)
	w := openTerminal(t, 120)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(io.Discard)
	root.SetErr(w.tty)
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()

	// The lag is not known until the end offsets were looked up.
	running := regexp.MustCompile(regexp.QuoteMeta("\x1b[32mrunning\x1b[0m  0 events/s  lag ") + "[-0]" + regexp.QuoteMeta("  sink ready  buffer 0%  partitions 1"))
	w.await(t, 0, "the line", running.MatchString)
	w.resize(t, 20)
	from := len(w.String())
	const narrow = eraseLine + "\x1b[32mrunning\x1b[0m  0 events/s"
	w.await(t, from, "the line of a narrow window", func(said string) bool { return strings.Count(said, narrow+"\r") > 0 })
	stop()
	if err := <-ended; err != nil {
		t.Fatalf("got %v, want the end it was told to make", err)
	}
	said := w.close()
	if !strings.Contains(said, "\tINFO\tjoining the group\t") || strings.Contains(said, `{"level"`) {
		t.Errorf("got %q, want a log for people", said)
	}
	for line := range strings.SplitSeq(said, "\n") {
		line = line[strings.LastIndex(line, eraseLine)+1:]
		if at := strings.Index(line, "\tINFO\t"); at >= 0 && strings.Contains(line[:at], "events/s") {
			t.Errorf("got %q, want log lines above the line and not behind it", line)
		}
	}
	if !strings.HasSuffix(said, "\n") {
		t.Errorf("got %q at the end, want the prompt on a line of its own", said[max(0, len(said)-60):])
	}
}

func TestRunInAPipeLogsJSONAlone(t *testing.T) {
	args := append([]string{"run", "--group", "once", "--until", "now"}, settings(t)...)
	var stdout, stderr bytes.Buffer
	if code := execute(args, strings.NewReader(""), &stdout, &stderr); code != exitFine {
		t.Fatalf("got exit code %d and %q, want %d", code, stderr.String(), exitFine)
	}
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, `{"level":`) {
			t.Errorf("got %q, want JSON", line)
		}
	}
}

func TestReportsAreColouredOnATerminalAlone(t *testing.T) {
	with := settings(t)
	for _, tc := range []struct{ args, bold string }{
		{"check", "configuration       \x1b[32mok      \x1b[0m events -> datafly.events.stream"},
		{"dlq list", ""},
		{"replay --to earliest", "\x1b[1mTOPIC   PARTITION  COMMITTED  TARGET  LOG END  TO READ  AGAIN  SKIPPED  NOTE\x1b[0m"},
		{"help metrics ready", "\x1b[1mbridge_ready\x1b[0m"},
	} {
		args := strings.Fields(tc.args)
		if args[0] != "help" {
			args = append(args, with...)
		}
		w := openTerminal(t, 120)
		var plain bytes.Buffer
		onPipe := execute(args, strings.NewReader(""), &plain, io.Discard)
		onTerminal := execute(args, w.tty, w.tty, io.Discard)
		said := strings.ReplaceAll(w.close(), "\r\n", "\n")
		if onPipe != onTerminal {
			t.Errorf("bridge %s: got exit codes %d on a pipe and %d on a terminal, want the same", tc.args, onPipe, onTerminal)
		}
		if strings.Contains(plain.String(), paint) {
			t.Errorf("bridge %s: got %q in a pipe, want no escape sequences", tc.args, plain.String())
		}
		if !strings.Contains(said, tc.bold) {
			t.Errorf("bridge %s: got %q, want %q in it", tc.args, said, tc.bold)
		}
	}
}
