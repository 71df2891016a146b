package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/datafly/bridge/internal/logwriter"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
)

const (
	// stopGrace is what a command that drains may take on top of its drain, until
	// the process ends without it: 20 s of drain and the grace are below the 30 s
	// after which Kubernetes, docker and systemd kill.
	stopGrace = 8 * time.Second
	// interruptGrace is the same for commands that have nothing to drain.
	interruptGrace = 3 * time.Second
	// lastFlush bounds the last writes of the log when the process ends.
	lastFlush = time.Second
)

// stopping ends one execution of a command: within a grace period if something
// hangs, and although nobody may read standard error. Its methods may be called on
// nil, as commands are in tests.
type stopping struct {
	stderr *logwriter.Writer

	mu     sync.Mutex // guards the fields below
	grace  time.Duration
	stages []string // activities that may take long, in the order of their start
}

func newStopping(stderr io.Writer) *stopping {
	return &stopping{stderr: logwriter.New(stderr), grace: interruptGrace}
}

type stoppingKey struct{}

func (s *stopping) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, stoppingKey{}, s)
}

// stoppingOf returns nil where there is none.
func stoppingOf(ctx context.Context) *stopping {
	s, _ := ctx.Value(stoppingKey{}).(*stopping)
	return s
}

// allow sets how long the command may take to end after an interrupt or SIGTERM.
func (s *stopping) allow(grace time.Duration) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grace = grace
}

// log returns standard error for a command that must not wait for its reader, and
// the queue in it. Lines that cannot be written in time are dropped and counted.
func (s *stopping) log(stderr io.Writer) (io.Writer, *logwriter.Writer) {
	terminal, ok := stderr.(*terminal.Screen)
	if s == nil || !ok {
		queue := logwriter.New(stderr)
		return queue, queue
	}
	terminal.Through(s.stderr)
	return terminal, s.stderr
}

// during calls f, and names it if the process has to end before f does. Calls may
// nest or, for pipelines that run beside each other, overlap.
func (s *stopping) during(what string, f func()) {
	if s == nil {
		f()
		return
	}
	s.mu.Lock()
	s.stages = append(s.stages, what)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, stage := range slices.Backward(s.stages) {
			if stage == what {
				s.stages = slices.Delete(s.stages, i, i+1)
				return
			}
		}
	}()
	f()
}

func (s *stopping) current() (grace time.Duration, stages []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grace, slices.Clone(s.stages)
}

// wait returns the exit code from done. When the grace period after the end of ctx
// is over, it returns that of an interrupted command, which is left behind.
func (s *stopping) wait(ctx context.Context, done <-chan int) int {
	select {
	case code := <-done:
		return code
	case <-ctx.Done():
	}
	asked := time.Now()
	for {
		grace, stages := s.current()
		left := grace - time.Since(asked)
		if left <= 0 {
			fmt.Fprintf(s.stderr, "bridge: interrupted: %s\n", notEnded(stages, grace))
			return exitFailed
		}
		timer := time.NewTimer(left)
		select {
		case code := <-done:
			timer.Stop()
			return code
		case <-timer.C:
		}
	}
}

// notEnded describes what a process leaves behind.
func notEnded(stages []string, grace time.Duration) string {
	text := "the command"
	if len(stages) > 0 {
		text = strings.Join(stages, ": ")
	}
	text += fmt.Sprintf(" did not end within %s", grace)
	if files := plaintext.Hanging(); len(files) > 0 {
		text += "; reading " + plaintext.ShortLine(strings.Join(files, ", "), 1000) + " hangs"
	}
	return text
}
