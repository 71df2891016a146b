package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/internal/plaintext"
)

// A command that does not end in its grace period is left behind and named, and
// one that ends within has its own exit code.
func TestStoppingIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name  string
		takes time.Duration // after the interrupt
		code  int
		said  string
	}{
		{"in time", 27 * time.Second, exitFine, ""},
		{"hangs", time.Hour, exitFailed, "bridge: interrupted: delivery: the group and its partitions did not end within 28s\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var stderr bytes.Buffer
			s := newStopping(&stderr)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan int, 1)
			go func() {
				s.allow(20*time.Second + stopGrace)
				s.during("following the configuration", func() {})
				s.during("delivery", func() {
					s.during("the group and its partitions", func() {
						<-ctx.Done()
						<-time.After(tc.takes)
					})
				})
				done <- exitFine
			}()
			<-time.After(time.Minute) // nothing is bounded before
			began := time.Now()
			cancel()
			code := s.wait(ctx, done)
			s.stderr.Flush(lastFlush)
			if took := time.Since(began); code != tc.code || stderr.String() != tc.said || took != min(tc.takes, 28*time.Second) {
				t.Errorf("%s: got exit code %d and %q after %v, want %d and %q", tc.name, code, stderr.String(), took, tc.code, tc.said)
			}
			<-time.After(2 * time.Hour)
		})
	}
}

// Of pipelines that end one after the other, the one that hangs is named.
func TestStagesThatOverlap(t *testing.T) {
	s := newStopping(io.Discard)
	over := make(chan struct{})
	var first, second sync.WaitGroup
	begun := make(chan struct{}, 2)
	wait := func(group *sync.WaitGroup, what string, until <-chan struct{}) {
		group.Go(func() {
			s.during(what, func() { begun <- struct{}{}; <-until })
		})
		<-begun
	}
	hang := make(chan struct{})
	wait(&first, "the first pipeline", over)
	wait(&second, "the second pipeline", hang)
	close(over)
	first.Wait()
	if _, got := s.current(); len(got) != 1 || got[0] != "the second pipeline" {
		t.Errorf("got %q under way, want the second pipeline", got)
	}
	close(hang)
	second.Wait()
}

// Reading that nothing cuts short does not keep an interrupted command.
func TestInterruptible(t *testing.T) {
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	in := &plaintext.Interruptible{Ctx: ctx, Reader: r}
	var writer sync.WaitGroup
	writer.Go(func() { _, _ = io.WriteString(w, "some") })
	buf := make([]byte, 3)
	if n, err := io.ReadFull(in, buf); n != 3 || err != nil || string(buf) != "som" {
		t.Errorf("got %q, %v, want what was written", buf[:n], err)
	}
	if n, err := in.Read(buf); n != 1 || err != nil || buf[0] != 'e' {
		t.Errorf("got %q, %v, want the rest", buf[:n], err)
	}
	writer.Wait()
	cancel()
	if _, err := in.Read(buf); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the read cut short", err)
	}
	w.Close()
}

// failsOnce is standard error on a disk that was full.
type failsOnce struct {
	failed bool
	got    bytes.Buffer
}

func (f *failsOnce) Write(p []byte) (int, error) {
	if !f.failed {
		f.failed = true
		return 0, syscall.ENOSPC
	}
	return f.got.Write(p)
}

// The line that counts what was dropped has the form of the log it stands in.
func TestAGapInTheLogHasItsForm(t *testing.T) {
	errs := &failsOnce{}
	args := []string{"demo", "--events", "100", "--log-level", "info", "--output", "json", "--set", "log.format=json"}
	if code := execute(args, strings.NewReader(""), io.Discard, errs); code != exitFine {
		t.Fatalf("got exit code %d: %s", code, errs.got.String())
	}
	gaps := 0
	for line := range strings.Lines(errs.got.String()) {
		var entry struct {
			Msg   string
			Lines int
		}
		switch err := json.Unmarshal([]byte(line), &entry); {
		case err != nil && strings.Contains(line, "dropped:"):
			t.Errorf("got %q, want a line of JSON", line)
		case entry.Lines > 0:
			gaps++
		}
	}
	if gaps != 1 {
		t.Errorf("got %d lines that count what was dropped, want 1", gaps)
	}
}
