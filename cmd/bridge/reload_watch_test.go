package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/datafly/bridge/internal/config"
)

// followed is a follower in virtual time whose loads are noted. It is not told
// of changes, so it has to find them.
type followed struct {
	*follower
	t         *testing.T
	file      string
	blueprint string
	hup       chan os.Signal
	bad       atomic.Bool
	began     time.Time

	mu   sync.Mutex // guards the fields below
	why  []string   // of each load, in order
	said []string   // what the file held then
}

func newFollowed(t *testing.T) *followed {
	dir := t.TempDir()
	f := &followed{t: t, file: filepath.Join(dir, "config.yaml"), blueprint: filepath.Join(dir, "blueprint.yaml"), hup: make(chan os.Signal, 1), began: time.Now()}
	f.follower = &follower{options: config.Options{File: f.file}, signals: f.hup, inForce: func() string { return f.blueprint }, failing: f.bad.Load}
	f.load = func(o config.Options) (*config.Config, error) {
		if o.Partial {
			return nil, errors.New("not needed")
		}
		text, err := os.ReadFile(f.file)
		if err != nil {
			return nil, err
		}
		c := config.Defaults()
		c.Kafka.Group, c.Mapping.Blueprint = string(text), f.blueprint
		return &c, nil
	}
	f.bring = func(_ context.Context, why string, next *config.Config, err error) {
		said := "unreadable"
		if err == nil {
			said = next.Kafka.Group
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.why, f.said = append(f.why, why), append(f.said, said)
	}
	return f
}

func (f *followed) write(path, text string) {
	f.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// at goes on to a time after the start and says what was loaded until then.
func (f *followed) at(when time.Duration, why ...string) {
	f.t.Helper()
	<-time.After(when - time.Since(f.began))
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.why, why) {
		f.t.Errorf("at %v: got loads for %q, want %q", when, f.why, why)
	}
}

// held says what the file held at each load.
func (f *followed) held(want ...string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.said, want) {
		f.t.Errorf("got %q loaded, want %q", f.said, want)
	}
}

func following(t *testing.T, body func(f *followed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFollowed(t)
		f.write(f.file, "first")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.run(ctx, nil) }()
		body(f)
		stop()
		<-done
	})
}

func TestFollowerFindsChangesByItself(t *testing.T) {
	following(t, func(f *followed) {
		f.at(9*time.Second, byStart)
		f.write(f.file, "second")
		f.at(11*time.Second, byStart, byFile)
		f.write(f.blueprint, "another blueprint")
		f.at(19*time.Second, byStart, byFile)
		f.at(21*time.Second, byStart, byFile, byFile)
		f.at(time.Minute, byStart, byFile, byFile) // nothing has changed since
		f.held("first", "second", "second")
	})
}

// What is still being written is not loaded.
func TestFollowerWaitsUntilTheFilesKeepStill(t *testing.T) {
	following(t, func(f *followed) {
		f.at(9950*time.Millisecond, byStart)
		for i := range 20 {
			f.write(f.file, "half "+string(rune('a'+i)))
			f.at(9950*time.Millisecond+time.Duration(i)*100*time.Millisecond, byStart)
		}
		f.write(f.file, "whole")
		f.at(13*time.Second, byStart, byFile)
		f.held("first", "whole")
	})
}

// A refused configuration may become right by what is not among its files: a
// column, a secret's file.
func TestFollowerTriesARefusedConfigurationAgain(t *testing.T) {
	following(t, func(f *followed) {
		f.at(time.Second, byStart)
		f.bad.Store(true)
		f.at(21*time.Second, byStart, byRetry, byRetry)
		f.bad.Store(false)
		f.at(60*time.Second, byStart, byRetry, byRetry)
	})
}

func TestFollowerObeysTheSignal(t *testing.T) {
	following(t, func(f *followed) {
		f.at(time.Second, byStart)
		f.hup <- os.Interrupt // whichever comes by this channel
		f.at(1100*time.Millisecond, byStart, bySignal)
		if err := os.Remove(f.file); err != nil {
			t.Fatal(err)
		}
		f.hup <- os.Interrupt
		f.at(1200*time.Millisecond, byStart, bySignal, bySignal)
		f.held("first", "first", "unreadable")
	})
}

// A file that is being written, or was taken away, must not have everything fall
// back to what flags and environment say: another blueprint, say.
func TestFollowerKeepsToItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	var got *config.Config
	var said error
	f := &follower{load: config.Load, inForce: func() string { return "" },
		options: config.Options{File: path, Env: []string{"BRIDGE_KAFKA_TOPICS=events", "BRIDGE_ZEROBUS_WORKSPACE_URL=https://a.example",
			"BRIDGE_ZEROBUS_CLIENT_ID=id", "BRIDGE_ZEROBUS_CLIENT_SECRET=s", "BRIDGE_ZEROBUS_TABLE=c.s.t"}},
		bring: func(_ context.Context, _ string, next *config.Config, err error) { got, said = next, err }}
	level := func(when, want, fault string) {
		t.Helper()
		f.reload(t.Context(), byFile)
		switch {
		case fault == "" && (said != nil || got.Log.Level != want):
			t.Errorf("%s: got %v, want level %s", when, said, want)
		case fault != "" && (said == nil || !strings.Contains(said.Error(), fault) || !strings.Contains(said.Error(), path)):
			t.Errorf("%s: got %v, want it refused, with %q", when, said, fault)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	level("never there", "info", "")
	write("log: {level: debug}\n")
	level("there", "debug", "")
	write("")
	level("emptied", "", "is empty")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	level("removed", "", "cannot be opened")
	write("log: {level: warn}\n")
	level("back", "warn", "")
}

// The folders of the files and of what links lead to are watched, and no more.
func TestWatchedFolders(t *testing.T) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatalf("no watcher here: %v", err)
	}
	defer w.Close()
	mount, plain := t.TempDir(), t.TempDir()
	link := func(version string) {
		t.Helper()
		next := filepath.Join(mount, "..next")
		for _, err := range []error{os.Mkdir(filepath.Join(mount, version), 0o700), os.WriteFile(filepath.Join(mount, version, "config.yaml"), nil, 0o600),
			os.Symlink(version, next), os.Rename(next, filepath.Join(mount, "..data"))} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	file := filepath.Join(mount, "config.yaml")
	if err := os.Symlink("..data/config.yaml", file); err != nil {
		t.Fatal(err)
	}
	watched := func(files []string, want ...string) {
		t.Helper()
		keepWatching(w, files)
		got := w.WatchList()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("got %q watched, want %q", got, want)
		}
	}
	link("..v1")
	watched([]string{file, filepath.Join(plain, "blueprint.yaml")}, mount, filepath.Join(mount, "..v1"), plain)
	link("..v2")
	watched([]string{file}, mount, filepath.Join(mount, "..v2"))
	watched([]string{filepath.Join(plain, "none", "config.yaml")}) // cannot be watched, is polled
}
