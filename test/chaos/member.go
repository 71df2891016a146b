package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// process is one run of the bridge as a member.
type process struct {
	name    string
	address string // of its ops endpoints
	begun   time.Time
	log     logTo
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended and was waited for

	mu      sync.Mutex // guards the fields below
	asked   syscall.Signal
	askedAt time.Time
	still   int       // SIGSTOPs it is under
	stillTo time.Time // when it last stood still
}

// logTo is where the log of a process goes.
type logTo int

const (
	logKept    logTo = iota // to a file, and it is heard
	logFull                 // to a full disk
	logStalled              // into a pipe that nobody reads, at debug level
)

// startProcess runs the bridge. heard is called with each line of its log.
func startProcess(r *rig, name, transport string, to logTo, heard func(p *process, line []byte)) (*process, error) {
	config, err := r.config(name, transport)
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p := &process{name: name, address: address, begun: time.Now(), log: to, done: make(chan struct{})}
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
	closeLog := func() { log.Close() }
	switch to {
	case logKept:
		p.cmd.Stderr = &lines{each: func(line []byte) {
			_, _ = log.Write(line) // the run goes on without its log
			heard(p, line)
		}}
	case logFull:
		p.cmd.Stderr = log
	case logStalled:
		unread, w, err := os.Pipe()
		if err != nil {
			log.Close()
			return nil, fmt.Errorf("making a pipe for the log of %s: %w", name, err)
		}
		p.cmd.Stderr = w
		p.cmd.Args = append(p.cmd.Args, "--log-level", "debug") // it is to fill soon
		closeLog = func() {
			log.Close()
			unread.Close()
			w.Close()
		}
	}
	started := make(chan error)
	go func() { // ends with the process, which the fleet ends
		defer closeLog()
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

// lines hands on what is written to it, line by line.
type lines struct {
	each func(line []byte)
	rest []byte
}

// Write implements io.Writer.
func (l *lines) Write(b []byte) (int, error) {
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

// assignedTo returns the partitions that a log line says were assigned.
func assignedTo(line []byte) []int32 {
	if !bytes.Contains(line, []byte(`"partitions assigned"`)) {
		return nil
	}
	var entry struct {
		Msg        string             `json:"msg"`
		Partitions map[string][]int32 `json:"partitions"`
	}
	if json.Unmarshal(line, &entry) != nil || entry.Msg != "partitions assigned" {
		return nil
	}
	return entry.Partitions[topic]
}

// freeAddress finds a loopback port below those the kernel hands out, so that
// it is still free when the child listens on it.
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

// ask sends a signal that is to end the process, and remembers it. SIGTERM is
// sent once: a second one ends the bridge at once.
func (p *process) ask(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked == s || p.asked == syscall.SIGKILL {
		return
	}
	p.asked, p.askedAt = s, time.Now()
	_ = p.cmd.Process.Signal(s) // it may have ended just now
}

// listening is how long a process may take until it listens to signals.
const listening = 10 * time.Second

// stop freezes the process until the function it returns is called.
func (p *process) stop() (resume func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.still++
	_ = p.cmd.Process.Signal(syscall.SIGSTOP) // it may have ended just now
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.still--; p.still == 0 {
			p.stillTo = time.Now()
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
		}
	}
}

// stoodStill reports whether the process was frozen after since.
func (p *process) stoodStill(since time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.still > 0 || p.stillTo.After(since)
}
