package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// child is a process that this one started and will stop.
type child struct {
	name   string
	pid    int
	log    string // file with its standard error
	lines  chan []byte
	done   chan struct{} // closed when it has ended; err is set by then
	err    error
	cancel context.CancelFunc
}

// stopWithin is how long a child may take to end after SIGTERM: the bridge's
// drain and some.
const stopWithin = 25 * time.Second

// start runs a program until ctx ends or stop is called. Its standard output is
// lines for the reader, its standard error goes to a file in dir.
func start(ctx context.Context, dir, name string, env []string, program string, args ...string) (*child, error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.SysProcAttr = env, childAttr()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWithin
	log, err := os.CreateTemp(dir, name+"-*.log")
	if err != nil {
		cancel()
		return nil, fmt.Errorf("making a log file for %s: %w; free some space in %s", name, err, dir)
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	c := &child{name: name, pid: cmd.Process.Pid, log: log.Name(), lines: make(chan []byte, 16), done: make(chan struct{}), cancel: cancel}
	go func() { // ends with the process; stop waits for it
		defer close(c.done)
		in := bufio.NewScanner(out)
		for in.Scan() {
			select {
			case c.lines <- []byte(in.Text()):
			default: // nobody reads more than the few lines a role says
			}
		}
		c.err = cmd.Wait()
	}()
	return c, nil
}

// dump ends a child of Go that does not answer: where its goroutines stand goes
// to its log, which the error of stop quotes.
func (c *child) dump() {
	if p, err := os.FindProcess(c.pid); err == nil {
		_ = p.Signal(syscall.SIGQUIT) // it may have ended just now
	}
	select {
	case <-c.done:
	case <-time.After(stopWithin): // a kernel that does not let go of it, say; stop kills it
	}
}

// stop ends the child and waits for it.
func (c *child) stop() error {
	select {
	case <-c.done:
		return c.died()
	default:
	}
	c.cancel()
	<-c.done
	var exit *exec.ExitError
	if errors.As(c.err, &exit) {
		return fmt.Errorf("stopping %s: %w\n%s", c.name, c.err, c.tail())
	}
	return nil
}

// died says how a child ended that should be running.
func (c *child) died() error {
	cause := c.err
	if cause == nil {
		cause = errors.New("exit status 0")
	}
	return fmt.Errorf("%s ended by itself: %w; the end of its log:\n%s", c.name, cause, c.tail())
}

func (c *child) tail() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	most := 2000
	if bytes.Contains(text, []byte("SIGQUIT: quit")) {
		most = 1 << 20 // see dump
	}
	return strings.TrimSpace(string(text[max(len(text)-most, 0):]))
}

// hear decodes the next line the child says.
func (c *child) hear(ctx context.Context, v any) error {
	select {
	case line := <-c.lines:
		if err := json.Unmarshal(line, v); err != nil {
			return fmt.Errorf("%s said %q: %w", c.name, line, err)
		}
		return nil
	case <-c.done:
		return c.died()
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w", c.name, context.Cause(ctx))
	}
}

// alive returns a context that also ends when the child does.
func (c *child) alive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // ends with ctx, which the caller cancels
		select {
		case <-c.done:
			cancel(c.died())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// Roles are parts this program plays in other processes of itself.
const (
	roleEnv     = "BENCH_ROLE"
	settingsEnv = "BENCH_ROLE_SETTINGS"
)

// startRole starts another process of this program in a role.
func startRole(ctx context.Context, dir, role string, settings any) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program's own file: %w", err)
	}
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	return start(ctx, dir, role, append(inherited(), roleEnv+"="+role, settingsEnv+"="+string(text)), self)
}

// play plays the role the environment asks for, if it asks for one.
func play(ctx context.Context) (played bool, err error) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return false, nil
	}
	play, ok := roles[role]
	if !ok {
		return true, fmt.Errorf("unknown role %q in %s", role, roleEnv)
	}
	return true, play(ctx, []byte(os.Getenv(settingsEnv)))
}

var roles = map[string]func(context.Context, []byte) error{
	"broker":   playBroker,
	"emulator": playEmulator,
	"poll":     playPoll,
	"naive":    playNaive,
}

// tell says one line to the process that started this one.
func tell(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// inherited is the environment of children: what programs need, and the knobs
// of the Go runtime, but no setting of the bridge.
func inherited() []string {
	var env []string
	for _, kv := range os.Environ() {
		key, _, _ := strings.Cut(kv, "=")
		switch key {
		case "PATH", "HOME", "TMPDIR", "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "GODEBUG":
			env = append(env, kv)
		}
	}
	return env
}
