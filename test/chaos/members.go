package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/datafly/bridge/internal/oracle"
)

const (
	// patience is how long a member may take for what should be quick: starting,
	// or ending after its drain. A busy machine is why it is long.
	patience = 45 * time.Second
	// startsListening is how long a process may take until it handles signals.
	startsListening = 10 * time.Second
)

// fleet keeps members running, as an orchestrator does: one that has ended is
// started again.
type fleet struct {
	rig    *rig
	v      *oracle.Violations
	onLine func(p *process, line []byte) // of a log

	wg sync.WaitGroup // of the slots; end waits

	mu      sync.Mutex // guards the fields below
	slots   []*slot
	over    bool
	silent  map[string]bool // processes without a log
	started int
}

// slot is the place of one member, where processes follow each other.
type slot struct {
	id      int
	spare   bool  // joins and leaves again
	want    bool  // a process should run
	log     logTo // of the next one
	proc    *process
	changed chan struct{} // holds one element when the above changed
}

func (s *slot) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// grow adds a member, spare for a while only, and returns its slot. ctx is the
// fleet's.
func (f *fleet) grow(ctx context.Context, spare bool) *slot {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.slots { // one that came before and left
		if s.spare && spare && !s.want {
			s.want = true
			s.notify()
			return s
		}
	}
	s := &slot{id: len(f.slots), spare: spare, want: true, changed: make(chan struct{}, 1)}
	f.slots = append(f.slots, s)
	f.wg.Go(func() { f.keep(ctx, s) })
	return s
}

// keep runs one process after the other in a slot.
func (f *fleet) keep(ctx context.Context, s *slot) {
	for n := 1; ; {
		f.mu.Lock()
		want, log, over := s.want, s.log, f.over
		f.mu.Unlock()
		switch {
		case over:
			return
		case !want:
			select {
			case <-s.changed:
			case <-ctx.Done():
				return
			}
			continue
		}
		name := fmt.Sprintf("m%d.%d", s.id, n)
		n++
		p, err := startProcess(f.rig, name, f.transport(s.id), log, f.onLine)
		if err != nil {
			f.v.Add(oracle.RuleMember, "%v", err)
			return
		}
		f.mu.Lock()
		s.proc = p
		f.started++
		f.silent[name] = log != logKept
		if f.over { // it was too late to start
			p.signal(syscall.SIGKILL)
		}
		f.mu.Unlock()
		<-p.done
		f.checkExit(p)
		if !sleep(ctx, 300*time.Millisecond) {
			return
		}
	}
}

// transport returns that of a member.
func (f *fleet) transport(id int) string {
	if f.rig.o.transport != "mixed" {
		return f.rig.o.transport
	}
	return []string{"workspace", "grpc", "rest"}[id%3]
}

// checkExit compares how a process ended with why it ended.
func (f *fleet) checkExit(p *process) {
	state := p.cmd.ProcessState
	p.mu.Lock()
	sent, sentAt := p.sent, p.sentAt
	p.mu.Unlock()
	status, _ := state.Sys().(syscall.WaitStatus)
	switch {
	case sent == syscall.SIGKILL:
	case state.ExitCode() == 0 && sent == syscall.SIGTERM:
	case status.Signaled() && status.Signal() == syscall.SIGTERM && sentAt.Sub(p.began) < startsListening:
	default:
		f.v.Add(oracle.RuleMember, "%s ended with %v after signal %v; see %s.log", p.name, state, sent, p.name)
	}
}

// running lists the slots that have a process, in order.
func (f *fleet) running() []*slot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.slots), func(s *slot) bool { return !s.want || s.proc == nil || !s.proc.running() })
}

// pick chooses a running member, or nil.
func (f *fleet) pick(target int) (*slot, *process) {
	all := f.running()
	if len(all) == 0 {
		return nil, nil
	}
	s := all[target%len(all)]
	return s, f.process(s)
}

// process returns the process in a slot, which may be nil or have ended.
func (f *fleet) process(s *slot) *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return s.proc
}

// named finds a process by its name, or nil.
func (f *fleet) named(name string) *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.slots {
		if s.proc != nil && s.proc.name == name {
			return s.proc
		}
	}
	return nil
}

// set sets whether a process should run in a slot, and where the log of the next
// one goes.
func (f *fleet) set(s *slot, want bool, log logTo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.want, s.log = want, log
	s.notify()
}

// restart ends the process in a slot, if it runs; another follows if it should.
func (f *fleet) restart(ctx context.Context, s *slot) {
	if p := f.process(s); p != nil && p.running() {
		f.terminate(ctx, p)
	}
}

// hasNoLog reports whether the log of a process is not kept.
func (f *fleet) hasNoLog(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.silent[name]
}

// terminate sends SIGTERM to a process and wants it to end.
func (f *fleet) terminate(ctx context.Context, p *process) {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-ctx.Done():
	case <-time.After(drain + patience):
		f.v.Add(oracle.RuleMember, "%s still runs %s after SIGTERM; see %s.log", p.name, drain+patience, p.name)
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// end ends all members, in good order as long as ctx lives, and waits.
func (f *fleet) end(ctx context.Context) {
	f.mu.Lock()
	f.over = true
	var all sync.WaitGroup
	for _, s := range f.slots {
		s.notify()
		if p := s.proc; p != nil && p.running() {
			all.Go(func() {
				f.terminate(ctx, p)
				if p.running() {
					p.signal(syscall.SIGKILL)
					<-p.done
				}
			})
		}
	}
	f.mu.Unlock()
	all.Wait()
	f.wg.Wait()
}

// processes counts those that were started.
func (f *fleet) processes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.started
}

// sleep waits and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// process is one run of the bridge as a member.
type process struct {
	name    string
	address string // of its ops endpoints
	began   time.Time
	log     logTo
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended and was waited for

	mu          sync.Mutex // guards the fields below
	sent        syscall.Signal
	sentAt      time.Time
	frozen      int       // SIGSTOPs it is under
	frozenUntil time.Time // the last time
}

// logTo is where the log of a process goes.
type logTo int

const (
	logKept    logTo = iota // to a file, and each line to the run
	logFull                 // to a full disk
	logStalled              // into a pipe that nobody reads, at debug level
)

// startProcess runs the bridge. onLine is called with each line of its log.
func startProcess(r *rig, name, transport string, to logTo, onLine func(p *process, line []byte)) (*process, error) {
	config, err := r.config(name, transport)
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, address: address, began: time.Now(), log: to, done: make(chan struct{})}
	p.cmd = exec.Command(r.bridge, "run", "--config", config, "--ops-address", address) //nolint:noctx // the fleet ends it
	p.cmd.Dir = r.dir
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "GORACE=atexit_sleep_ms=0"}
	p.cmd.SysProcAttr = childAttr()
	path := filepath.Join(r.dir, name+".log")
	if to == logFull {
		path = "/dev/full"
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w; free some space", name, err)
	}
	open := []*os.File{log}
	p.cmd.Stderr = log
	switch to {
	case logKept:
		p.cmd.Stderr = &lineWriter{each: func(line []byte) {
			_, _ = log.Write(line) // the run continues without its log
			onLine(p, line)
		}}
	case logStalled:
		unread, w, err := os.Pipe()
		if err != nil {
			log.Close()
			return nil, fmt.Errorf("making a pipe for the log of %s: %w", name, err)
		}
		p.cmd.Stderr, open = w, append(open, unread, w)
		p.cmd.Args = append(p.cmd.Args, "--log-level", "debug") // it is to fill soon
	}
	started := make(chan error)
	go func() { // ends with the process, which the fleet ends
		defer func() {
			for _, f := range open {
				f.Close()
			}
		}()
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
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

// lineWriter calls each with every line that is written to it.
type lineWriter struct {
	each func(line []byte)
	rest []byte
}

// Write implements io.Writer.
func (l *lineWriter) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		l.each(l.rest[:i+1])
		l.rest = l.rest[i+1:]
	}
}

// freeAddress finds a loopback port below those the kernel assigns, so that it is
// still free when the child listens on it.
func freeAddress() (string, error) {
	var last error
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000))
		l, err := net.Listen("tcp", address)
		if err == nil {
			l.Close()
			return address, nil
		}
		last = err
	}
	return "", fmt.Errorf("finding a loopback port between 10000 and 19999: %w; free some", last)
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends a signal that is to end the process, and remembers it. SIGTERM is
// sent once: a second one ends the bridge at once.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent == s || p.sent == syscall.SIGKILL {
		return
	}
	p.sent, p.sentAt = s, time.Now()
	_ = p.cmd.Process.Signal(s) // it may have ended just now
}

// hangUp has a process read its configuration again.
func (p *process) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent == 0 && time.Since(p.began) > startsListening {
		_ = p.cmd.Process.Signal(syscall.SIGHUP) // it may have ended just now
	}
}

// freeze stops the process until the function it returns is called.
func (p *process) freeze() (resume func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen++
	_ = p.cmd.Process.Signal(syscall.SIGSTOP) // it may have ended just now
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.frozen--; p.frozen == 0 {
			p.frozenUntil = time.Now()
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
		}
	}
}

// wasFrozen reports whether the process was frozen after since.
func (p *process) wasFrozen(since time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen > 0 || p.frozenUntil.After(since)
}

var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// get requests a page of a member's ops endpoints and decodes it, unless into is nil.
func (p *process) get(ctx context.Context, path string, within time.Duration, into any) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("requesting %s of %s: %w", path, p.name, err)
	}
	defer resp.Body.Close()
	if into == nil { // a member that was stopped may refuse
		return nil
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s of %s: HTTP %d", path, p.name, resp.StatusCode)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
