package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// output collects what a child writes.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// process is one run of the program.
type process struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	stdout output
	stderr output
	done   chan struct{} // closed when it has ended and was waited for
}

// command returns the command line of the program.
type command struct {
	args   []string
	env    []string // beside PATH and HOME
	dir    string
	stdin  string
	plain  bool    // the build without the race detector
	panics bool    // the build with a bug, without the race detector
	cgroup *cgroup // to run in; nil: the test's

	stdinFrom, stderrTo *os.File // instead of stdin, and of keeping stderr
	tty                 *os.File // instead of all three
}

var processes atomic.Int64

// start runs the program and ends it, if nothing else does, with the test.
func start(t testing.TB, e *evidence, c command) *process {
	t.Helper()
	get := asTested
	if c.plain {
		get = plain
	}
	if c.panics {
		get = panicking
	}
	binary, err := get()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: fmt.Sprintf("bridge %s #%d", c.args[0], processes.Add(1)), cmd: c.cgroup.command(binary, c.args), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdin = c.dir, strings.NewReader(c.stdin)
	if c.dir == "" {
		p.cmd.Dir = t.TempDir() // without a config.yaml
	}
	// The race detector ends a child that it finds fault with by code 66; left to
	// itself it also sleeps for a second at the end.
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "GORACE=atexit_sleep_ms=0"}, c.env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if c.stdinFrom != nil {
		p.cmd.Stdin = c.stdinFrom
	}
	if c.stderrTo != nil {
		p.cmd.Stderr = c.stderrTo
	}
	if c.tty != nil {
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = c.tty, c.tty, c.tty
	}
	p.cmd.SysProcAttr = childAttr()
	e.text(p.name+" on stdout", p.stdout.String)
	e.text(p.name+" on stderr", p.stderr.String)

	started := make(chan error)
	go func() { // ends with the child; end waits for it
		// The kernel ties Pdeathsig to the thread that started the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the code is in ProcessState
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("starting %s: %v", p.name, err)
	}
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("%s ended with %v; its stderr:\n%s", p.name, p.cmd.ProcessState, tail(p.stderr.String()))
		}
		if strings.Contains(p.stderr.String(), "WARNING: DATA RACE") {
			t.Errorf("%s has a data race:\n%s", p.name, p.stderr.String())
		}
	})
	return p
}

// tail is the end of a log without the debugging lines of the Kafka client.
func tail(text string) string {
	const limit = 6000
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, `"logger":"kafka`) {
			b.WriteString(line)
		}
	}
	if text = b.String(); len(text) > limit {
		return "...\n" + text[len(text)-limit:]
	}
	return text
}

// end kills the child if it still runs and waits for it.
func (p *process) end() {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Kill() // it may have ended just now
		<-p.done
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("sending %v to %s: %v", s, p.name, err)
	}
}

// wait returns the exit code, -1 after a signal.
func (p *process) wait(limit time.Duration) int {
	p.t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-timer.C:
		p.t.Fatalf("%s runs after %v still; its stderr:\n%s", p.name, limit, tail(p.stderr.String()))
		return 0
	}
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// terminate sends SIGTERM and wants exit code 0 in time; it returns how long
// that took.
func (p *process) terminate(limit time.Duration) time.Duration {
	p.t.Helper()
	began := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.wait(limit); code != 0 {
		p.t.Fatalf("%s after SIGTERM: got exit code %d, want 0; its stderr:\n%s", p.name, code, tail(p.stderr.String()))
	}
	return time.Since(began)
}

// logged counts the log lines with this message.
func (p *process) logged(message string) int {
	n := 0
	for line := range strings.Lines(p.stderr.String()) {
		var entry struct {
			Msg string `json:"msg"`
		}
		if json.Unmarshal([]byte(line), &entry) == nil && strings.Contains(entry.Msg, message) {
			n++
		}
	}
	return n
}

// run runs a command to its end and returns its exit code.
func run(t testing.TB, e *evidence, c command) (p *process, code int) {
	t.Helper()
	p = start(t, e, c)
	return p, p.wait(patience)
}
