//go:build unix

package docs_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
)

// walk is somebody who follows the page, with a shell in front of them and others
// beside it.
type walk struct {
	t         *testing.T
	dir       string // where the shell stands
	env       []string
	addresses *strings.Replacer // those of the page by free ones
	commands  *strings.Replacer // addresses, and what else has to differ here
	terminals map[string]*terminal
}

// terminal is a shell in which something is left running.
type terminal struct {
	cmd  *exec.Cmd
	said screen
	read int           // how much of said has been compared
	done chan struct{} // closed when it has ended and was waited for
}

// screen collects what is printed.
type screen struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newWalk(t *testing.T) *walk {
	t.Helper()
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	emulator, ops, second := kafkatest.FreeAddress(t), kafkatest.FreeAddress(t), kafkatest.FreeAddress(t)
	w := &walk{t: t, dir: t.TempDir(), terminals: map[string]*terminal{}}
	w.env = []string{"BRIDGE_OPS_ADDRESS=" + ops, "GORACE=atexit_sleep_ms=0"}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		switch {
		case name == "PATH":
			w.env = append(w.env, "PATH="+filepath.Dir(program)+string(filepath.ListSeparator)+value)
		case !strings.HasPrefix(name, "BRIDGE_") && name != "KAFKA_BROKERS":
			w.env = append(w.env, v)
		}
	}
	addresses := []string{"127.0.0.1:8090", emulator, "127.0.0.1:9400", ops, "127.0.0.1:9401", second}
	w.addresses = strings.NewReplacer(addresses...)
	w.commands = strings.NewReplacer(append(addresses,
		"bridge emulator\n", "bridge emulator --listen "+emulator+" --zerobus-listen 127.0.0.1:0\n",
		"bridge status\n", "bridge status --address "+ops+"\n",
		"bridge status |", "bridge status --address "+ops+" |",
		"--duration 60s", "--duration 8s")...)
	t.Cleanup(func() {
		for _, name := range []string{"bridge", "emulator", "kafka"} { // each talks to the next
			if w.terminals[name] != nil {
				w.interrupt(name)
			}
		}
	})
	return w
}

// own is a text of the page with the addresses of this walk.
func (w *walk) own(text string) string { return w.addresses.Replace(text) }

// take takes one step.
func (w *walk) take(s step) {
	w.t.Helper()
	_, byHand := s.notes["by-hand"]
	_, until := s.notes["until"]
	switch name := s.notes["terminal"]; {
	case byHand:
	case s.interrupt != "":
		w.interrupt(s.interrupt)
	case s.in != "":
		w.watch(s)
	case name != "":
		w.open(name, s)
	case until:
		w.repeat(s)
	default:
		said, code := w.run(s)
		if want, _ := strconv.Atoi(s.notes["exit"]); code != want {
			w.t.Fatalf("line %d: got exit code %d, want %d, of\n%s\nwhich printed\n%s", s.number, code, want, s.script, said)
		}
		if missing, _ := prints(said, w.own(s.want)); missing != "" {
			w.t.Fatalf("line %d: not printed: %q, by\n%s\nwhich printed\n%s", s.number, missing, s.script, said)
		}
		w.t.Logf("line %d:\n%s", s.number, said)
	}
}

// shell makes the command of a block. What it does to the folder it stands in is
// kept for the next.
func (w *walk) shell(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-e", "-c", "trap 'pwd >&3' EXIT\n"+w.commands.Replace(script))
	cmd.Dir, cmd.Env = w.dir, w.env
	return cmd
}

// run runs a block to its end.
func (w *walk) run(s step) (string, int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*patience)
	defer cancel()
	where, err := os.CreateTemp(w.t.TempDir(), "pwd")
	if err != nil {
		w.t.Fatal(err)
	}
	defer where.Close()
	cmd := w.shell(ctx, s.script)
	cmd.ExtraFiles = []*os.File{where}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() < 0) {
		w.t.Fatalf("line %d: %v, of\n%s\nwhich printed\n%s", s.number, err, s.script, out)
	}
	dir, err := os.ReadFile(where.Name())
	if err != nil {
		w.t.Fatal(err)
	}
	if at := strings.TrimSpace(string(dir)); at != "" {
		w.dir = at
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// repeat runs a block until it prints what the page shows.
func (w *walk) repeat(s step) {
	w.t.Helper()
	var said, missing string
	w.eventually(func() bool {
		said, _ = w.run(s)
		missing, _ = prints(said, w.own(s.want))
		return missing == ""
	}, func() {
		w.t.Fatalf("line %d: not printed after %v: %q, by\n%s\nwhich printed\n%s", s.number, patience, missing, s.script, said)
	})
	w.t.Logf("line %d:\n%s", s.number, said)
}

// open leaves a block running in a terminal of that name.
func (w *walk) open(name string, s step) {
	w.t.Helper()
	term := &terminal{done: make(chan struct{})}
	term.cmd = exec.Command("bash", "-c", w.commands.Replace(s.script))
	term.cmd.Dir, term.cmd.Env = w.dir, w.env
	if name == "kafka" { // which is run in the clone
		term.cmd.Dir = root
	}
	term.cmd.Stdout, term.cmd.Stderr = &term.said, &term.said
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for all of them
	if err := term.cmd.Start(); err != nil {
		w.t.Fatalf("line %d: %v", s.number, err)
	}
	go func() { // ends with the shell; interrupt waits for it
		defer close(term.done)
		_ = term.cmd.Wait() // the code is in ProcessState
	}()
	w.terminals[name] = term
}

var exported = regexp.MustCompile(`(?m)^export (KAFKA_BROKERS=\S+)$`)

// watch waits until a terminal shows what the page does.
func (w *walk) watch(s step) {
	w.t.Helper()
	term := w.terminals[s.in]
	if term == nil {
		w.t.Fatalf("line %d: no terminal %s is open", s.number, s.in)
	}
	var missing string
	w.eventually(func() bool {
		said := term.said.String()
		var rest string
		missing, rest = prints(said[term.read:], w.own(s.want))
		if missing == "" {
			term.read = len(said) - len(rest)
		}
		select {
		case <-term.done:
			w.skipWithoutKafka(s, said)
			w.t.Fatalf("line %d: terminal %s has ended; it said\n%s", s.number, s.in, said)
		default:
		}
		return missing == ""
	}, func() {
		w.t.Fatalf("line %d: not seen in terminal %s after %v: %q; it said\n%s", s.number, s.in, patience, missing, term.said.String())
	})
	if m := exported.FindStringSubmatch(term.said.String()); m != nil && s.in == "kafka" {
		w.env = append(w.env, m[1]) // pasted into the first terminal
	}
}

// skipWithoutKafka skips on a machine without Java or Maven, as kafkatest does.
func (w *walk) skipWithoutKafka(s step, said string) {
	w.t.Helper()
	if s.in == "kafka" && strings.Contains(said, "is not available on this machine") && os.Getenv("REQUIRE_APACHE_KAFKA") != "1" {
		w.t.Skipf("skipped from line %d of the page on: %s", s.number, said)
	}
}

// interrupt presses Ctrl-C and waits for the end.
func (w *walk) interrupt(name string) {
	w.t.Helper()
	term := w.terminals[name]
	if term == nil {
		w.t.Fatalf("no terminal %s is open", name)
	}
	delete(w.terminals, name)
	_ = syscall.Kill(-term.cmd.Process.Pid, syscall.SIGINT) // it may have ended just now
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-term.done:
	case <-timer.C:
		_ = syscall.Kill(-term.cmd.Process.Pid, syscall.SIGKILL)
		<-term.done
		w.t.Errorf("terminal %s ran %v after Ctrl-C still; it said\n%s", name, patience, term.said.String())
	}
	if strings.Contains(term.said.String(), "WARNING: DATA RACE") {
		w.t.Errorf("terminal %s shows a data race:\n%s", name, term.said.String())
	}
	if w.t.Failed() {
		w.t.Logf("terminal %s said\n%s", name, term.said.String())
	}
}

func (w *walk) eventually(condition func() bool, otherwise func()) {
	w.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			otherwise()
			return
		}
	}
}
