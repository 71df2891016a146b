package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
)

// eraseLine goes to the beginning of the terminal's line and clears it.
const eraseLine = "\r\x1b[2K"

// fakeTerminal is a terminal with what was written to it.
type fakeTerminal struct {
	tty    *os.File
	master *os.File
	over   chan struct{} // closed when all has been read
	more   chan struct{} // gets a value when something was written

	mu   sync.Mutex
	text bytes.Buffer
}

// openTerminal opens a terminal of that many columns.
func openTerminal(t *testing.T, columns uint16) *fakeTerminal {
	t.Helper()
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

// wait waits until what was written after the first from bytes satisfies ok.
func (w *fakeTerminal) wait(t *testing.T, from int, what string, ok func(string) bool) {
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

var coloured = regexp.MustCompile("\x1b\\[[0-9]+m")

func TestDemoGoesByItsOutput(t *testing.T) {
	t.Parallel()
	args := []string{"demo", "--events", "300"}
	for _, tc := range []struct {
		name         string
		env, more    []string
		pipe         bool
		live, colour bool
	}{
		{name: "terminal", live: true, colour: true},
		{name: "NO_COLOR", env: []string{"NO_COLOR=1"}, live: true},
		{name: "--color always beats NO_COLOR", env: []string{"NO_COLOR=1"}, more: []string{"--color", "always"}, live: true, colour: true},
		{name: "--color never", more: []string{"--color=never"}, live: true},
		{name: "TERM=dumb", env: []string{"TERM=dumb"}},
		{name: "pipe", pipe: true},
		{name: "pipe, --color always", pipe: true, more: []string{"--color", "always"}, colour: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := command{args: append(slices.Clone(args), tc.more...), env: append([]string{"TERM=xterm"}, tc.env...)}
			var w *fakeTerminal
			if !tc.pipe {
				w = openTerminal(t, 100)
				c.tty = w.tty
			}
			p, code := run(t, newEvidence(t), c)
			text := p.stdout.String() + p.stderr.String()
			if !tc.pipe {
				text = w.close()
			}
			if code != 0 {
				t.Fatalf("got exit code %d and %q, want 0", code, text)
			}
			if got := strings.Contains(coloured.ReplaceAllString(text, ""), "[====================] 100.0%"); got != tc.live {
				t.Errorf("got a bar %v, want %v: %q", got, tc.live, text)
			}
			if !tc.live && strings.Contains(text, eraseLine) {
				t.Errorf("got a line that is rewritten: %q", text)
			}
			if got := coloured.MatchString(text); got != tc.colour {
				t.Errorf("got colours %v, want %v: %q", got, tc.colour, text)
			}
			if !tc.live && !tc.colour && strings.Contains(text, "\x1b") {
				t.Errorf("got an escape sequence in plain text: %q", text)
			}
			if text := coloured.ReplaceAllString(text, ""); !strings.Contains(text, "  lost              0   produced - distinct - rejected - filtered") {
				t.Errorf("got %q, want the accounting", text)
			}
		})
	}
}

func TestRunOnATerminalKeepsOneLineBelowItsLog(t *testing.T) {
	t.Parallel()
	s := newStage(t, kafkatest.StartFake(t, kafkatest.Options{}), setting{})
	w := openTerminal(t, 120)
	p := start(t, s.e, command{args: append(s.args("run"), "--ops-address", "127.0.0.1:0"), env: []string{"TERM=xterm"}, tty: w.tty})

	// The lag is not known until the end offsets were read.
	running := regexp.MustCompile(regexp.QuoteMeta("\x1b[32mrunning\x1b[0m  0 events/s  lag ") + "[-0]" + regexp.QuoteMeta("  sink ready  buffer 0%  partitions 1"))
	w.wait(t, 0, "the line", running.MatchString)
	w.resize(t, 20)
	from := len(w.String())
	const narrow = eraseLine + "\x1b[32mrunning\x1b[0m  0 events/s"
	w.wait(t, from, "the line of a narrow window", func(text string) bool { return strings.Count(text, narrow+"\r") > 0 })
	p.signal(syscall.SIGTERM)
	if code := p.wait(patience); code != 0 {
		t.Fatalf("got exit code %d, want 0", code)
	}
	text := w.close()
	if !strings.Contains(text, "\tINFO\tjoining the group\t") || strings.Contains(text, `{"level"`) {
		t.Errorf("got %q, want a log for people", text)
	}
	for line := range strings.SplitSeq(text, "\n") {
		line = line[strings.LastIndex(line, eraseLine)+1:]
		if at := strings.Index(line, "\tINFO\t"); at >= 0 && strings.Contains(line[:at], "events/s") {
			t.Errorf("got %q, want log lines above the line and not behind it", line)
		}
	}
	if !strings.HasSuffix(text, "\n") {
		t.Errorf("got %q at the end, want the prompt on a line of its own", text[max(0, len(text)-60):])
	}
}

// On a terminal each answer replaces the one before, cut to the window, until Ctrl-C.
func TestStatusIsWatchedOnATerminal(t *testing.T) {
	t.Parallel()
	s := newStage(t, kafkatest.StartFake(t, kafkatest.Options{}), setting{})
	m := s.beginReady()
	w := openTerminal(t, 60)
	p := start(t, s.e, command{args: []string{"status", "--watch", "--address", m.address}, env: []string{"TERM=xterm"}, tty: w.tty})
	replaced := regexp.MustCompile(`\r\x1b\[[0-9]+A\x1b\[J\x1b\[32mready \x1b\[0m`)
	w.wait(t, 0, "a second answer in the place of the first", replaced.MatchString)
	s.p.events(10)
	w.wait(t, 0, "the rows", regexp.MustCompile(`totals     10 events read, 10 rows delivered`).MatchString)
	text := w.String()
	at := replaced.FindAllStringIndex(text, -1)
	frame := text[at[len(at)-2][0]:at[len(at)-1][0]]
	var moved int
	if _, err := fmt.Sscanf(text[at[len(at)-1][0]:], "\r\x1b[%dA", &moved); err != nil || moved != strings.Count(frame, "\n") {
		t.Errorf("got the cursor moved by %d lines (%v), want the %d of the answer", moved, err, strings.Count(frame, "\n"))
	}
	for line := range strings.SplitSeq(coloured.ReplaceAllString(frame, ""), "\r\n") {
		line = line[strings.LastIndex(line, "\x1b[J")+1:]
		if len(strings.TrimPrefix(line, "[J")) >= 60 {
			t.Errorf("got the line %q in a window of 60 columns", line)
		}
	}
	if !strings.Contains(frame, "rows/s     ") {
		t.Errorf("got %q, want the rows per second", frame)
	}
	p.signal(syscall.SIGINT)
	if code := p.wait(patience); code != 0 {
		t.Errorf("got exit code %d after Ctrl-C, want 0", code)
	}
	if text := w.close(); !strings.HasSuffix(text, "\n") {
		t.Errorf("got %q at the end, want the prompt on a line of its own", text[max(0, len(text)-60):])
	}
	m.end()
}

func TestReportsAreColouredOnATerminalAlone(t *testing.T) {
	t.Parallel()
	s := newStage(t, kafkatest.StartFake(t, kafkatest.Options{}), setting{})
	for _, tc := range []struct {
		args []string
		bold string
	}{
		{s.args("check"), "configuration       \x1b[32mok      \x1b[0m " + s.topic + " -> datafly.events.stream"},
		{append(s.args("dlq"), "list"), ""},
		{append(s.args("replay"), "--to", "earliest"), "\x1b[1mTOPIC "},
		{[]string{"help", "metrics", "ready"}, "\x1b[1mbridge_ready\x1b[0m"},
	} {
		w := openTerminal(t, 120)
		plain, onPipe := run(t, s.e, command{args: tc.args})
		_, onTerminal := run(t, s.e, command{args: tc.args, env: []string{"TERM=xterm"}, tty: w.tty})
		text := strings.ReplaceAll(w.close(), "\r\n", "\n")
		if onPipe != onTerminal {
			t.Errorf("bridge %s: got exit codes %d on a pipe and %d on a terminal, want the same", tc.args, onPipe, onTerminal)
		}
		if strings.Contains(plain.stdout.String(), "\x1b[") {
			t.Errorf("bridge %s: got %q in a pipe, want no escape sequences", tc.args, plain.stdout.String())
		}
		if !strings.Contains(text, tc.bold) {
			t.Errorf("bridge %s: got %q, want %q in it", tc.args, text, tc.bold)
		}
	}
}
