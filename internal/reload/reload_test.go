package reload

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// watched is a watcher in virtual time whose calls are recorded. No change is
// announced to it, so it has to find them.
type watched struct {
	*Watcher
	t         *testing.T
	file      string
	blueprint string
	hup       chan os.Signal
	bad       atomic.Bool
	began     time.Time

	mu   sync.Mutex // guards the fields below
	why  []string   // of each call, in order
	read []string   // what the file held then
}

func newWatched(t *testing.T) *watched {
	dir := t.TempDir()
	f := &watched{t: t, file: filepath.Join(dir, "config.yaml"), blueprint: filepath.Join(dir, "blueprint.yaml"), hup: make(chan os.Signal, 1), began: time.Now()}
	f.Watcher = &Watcher{Files: func() []string { return []string{f.file, f.blueprint} }, Signals: f.hup, Failed: f.bad.Load, Log: zap.NewNop()}
	f.Changed = func(_ context.Context, why string) {
		text := "unreadable"
		if data, err := os.ReadFile(f.file); err == nil {
			text = string(data)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.why, f.read = append(f.why, why), append(f.read, text)
	}
	return f
}

func (f *watched) write(path, text string) {
	f.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// at waits until a time after the start and compares the calls until then.
func (f *watched) at(when time.Duration, why ...string) {
	f.t.Helper()
	<-time.After(when - time.Since(f.began))
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.why, why) {
		f.t.Errorf("at %v: got calls for %q, want %q", when, f.why, why)
	}
}

// held compares what the file held at each call.
func (f *watched) held(want ...string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.read, want) {
		f.t.Errorf("got %q read, want %q", f.read, want)
	}
}

func watching(t *testing.T, body func(f *watched)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newWatched(t)
		f.write(f.file, "first")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.run(ctx, nil) }()
		body(f)
		stop()
		<-done
	})
}

func TestWatcherFindsChangesThatAreNotAnnounced(t *testing.T) {
	watching(t, func(f *watched) {
		f.at(9*time.Second, Start)
		f.write(f.file, "second")
		f.at(11*time.Second, Start, File)
		f.write(f.blueprint, "another blueprint")
		f.at(19*time.Second, Start, File)
		f.at(21*time.Second, Start, File, File)
		f.at(time.Minute, Start, File, File) // nothing has changed since
		f.held("first", "second", "second")
	})
}

// A file that is still being written is not read.
func TestWatcherWaitsUntilFilesStopChanging(t *testing.T) {
	watching(t, func(f *watched) {
		f.at(9950*time.Millisecond, Start)
		for i := range 20 {
			f.write(f.file, "half "+string(rune('a'+i)))
			f.at(9950*time.Millisecond+time.Duration(i)*100*time.Millisecond, Start)
		}
		f.write(f.file, "whole")
		f.at(13*time.Second, Start, File)
		f.held("first", "whole")
	})
}

// Refused files may become valid by something else: a column, a secret's file.
func TestWatcherRetriesRefusedFiles(t *testing.T) {
	watching(t, func(f *watched) {
		f.at(time.Second, Start)
		f.bad.Store(true)
		f.at(21*time.Second, Start, Retry, Retry)
		f.bad.Store(false)
		f.at(60*time.Second, Start, Retry, Retry)
	})
}

func TestWatcherObeysSignals(t *testing.T) {
	watching(t, func(f *watched) {
		f.at(time.Second, Start)
		f.hup <- os.Interrupt // any signal of the channel
		f.at(1100*time.Millisecond, Start, Signal)
		if err := os.Remove(f.file); err != nil {
			t.Fatal(err)
		}
		f.hup <- os.Interrupt
		f.at(1200*time.Millisecond, Start, Signal, Signal)
		f.held("first", "first", "unreadable")
	})
}

// Files come into a folder and go, one by one or all at once by a link, as those of a
// mounted ConfigMap do. Hidden ones do not count.
func TestWatcherFollowsFolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newWatched(t)
		folder := filepath.Join(filepath.Dir(f.file), "integrations")
		if err := os.MkdirAll(filepath.Join(folder, "..v1"), 0o700); err != nil {
			t.Fatal(err)
		}
		f.Files = func() []string { return []string{f.file, folder + "/"} }
		f.write(f.file, "first")
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.run(ctx, nil) }()
		want := []string{Start}
		calls := func(after int, changed bool) {
			t.Helper()
			if changed {
				want = append(want, File)
			}
			f.at(time.Duration(after)*10*time.Second+time.Second, want...)
		}
		calls(0, false)
		f.write(filepath.Join(folder, "a.yaml"), "a")
		calls(1, true)
		f.write(filepath.Join(folder, "a.yaml"), "other")
		calls(2, true)
		f.write(filepath.Join(folder, ".a.yaml.swp"), "half")
		calls(3, false)
		if err := os.Remove(filepath.Join(folder, "a.yaml")); err != nil {
			t.Fatal(err)
		}
		calls(4, true)
		f.write(filepath.Join(folder, "..v1", "b.yaml"), "b")
		for _, link := range [][2]string{{"..v1", "..data"}, {"..data/b.yaml", "b.yaml"}} {
			if err := os.Symlink(link[0], filepath.Join(folder, link[1])); err != nil {
				t.Fatal(err)
			}
		}
		calls(5, true)
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		calls(6, true)
		calls(7, false)
		stop()
		<-done
	})
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
	// The folder above is where a link to the folder would change.
	watched([]string{mount + "/"}, filepath.Dir(mount), mount, filepath.Join(mount, "..v2"))
	watched([]string{plain + "/"}, filepath.Dir(plain), plain)
}
