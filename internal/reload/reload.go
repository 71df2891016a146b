// Package reload watches files and calls a function when their contents change.
// It does not know what is in them.
package reload

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/plaintext"
)

// Causes of a call of Watcher.Changed.
const (
	Start  = "start" // what was changed while the process started
	File   = "a file changed"
	Signal = "SIGHUP"
	Retry  = "the files were refused before"
)

const (
	// quietPeriod is how long the files have to stay the same before they are read:
	// an editor writes in several steps.
	quietPeriod = 200 * time.Millisecond
	// pollInterval is how often they are read in any case. Not every change is
	// announced: network file systems announce none, nor does a link higher up in a
	// path.
	pollInterval = 10 * time.Second
)

// Watcher calls Changed at the start, when the files have other contents, and when
// a signal comes.
type Watcher struct {
	// Files are those to watch. A name that ends with a slash is a folder, with the files
	// in it that come and go; those whose names begin with a dot do not count. Called
	// before and after each Changed.
	Files   func() []string
	Changed func(ctx context.Context, why string)
	Failed  func() bool // Changed refused the files: it is called again at each poll
	Signals <-chan os.Signal
	Log     *zap.Logger

	files         []string
	tried, latest digests // of files when Changed was called, and when last read
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		w.Log.Info("changes of the configuration are found by reading it", zap.Duration("every", pollInterval), zap.Error(err))
		w.run(ctx, nil)
		return
	}
	w.run(ctx, watcher)
	_ = watcher.Close() // it was only read from
}

// run is Run with a watcher that may be nil.
func (w *Watcher) run(ctx context.Context, watcher *fsnotify.Watcher) {
	var announced <-chan fsnotify.Event
	var faults <-chan error
	if watcher != nil {
		announced, faults = watcher.Events, watcher.Errors
	}
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	timer := time.NewTimer(quietPeriod)
	timer.Stop()
	defer timer.Stop()
	armed := false
	arm := func() {
		if !armed {
			armed = true
			timer.Reset(quietPeriod)
		}
	}
	try := func(why string) {
		w.call(ctx, why)
		if watcher != nil {
			keepWatching(watcher, w.files)
		}
		// What changed while it was loaded, or before it was watched.
		arm()
	}
	try(Start)
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.Signals:
			try(Signal)
		case <-announced:
			arm()
		case _, open := <-faults: // events were lost, say
			if open {
				arm()
			}
		case <-poll.C:
			if w.Failed() {
				try(Retry)
			} else {
				arm()
			}
		case <-timer.C:
			armed = false
			switch changed, still := w.look(); {
			case changed && still:
				try(File)
			case changed:
				arm()
			case watcher != nil:
				keepWatching(watcher, w.files) // a link may lead elsewhere now
			}
		}
	}
}

// look reports whether the files differ from those of the last call, and whether
// they are the same as at the last look.
func (w *Watcher) look() (changed, still bool) {
	now := digestsOf(w.files)
	changed = !maps.Equal(now, w.tried)
	still = changed && maps.Equal(now, w.latest)
	w.latest = now
	return changed, still
}

// call calls Changed. The digests are taken first, so that a later change is found.
func (w *Watcher) call(ctx context.Context, why string) {
	w.tried = digestsOf(w.Files())
	w.Changed(ctx, why)
	w.files = w.Files()
}

// digests are the digests of the contents by file name. One that cannot be read
// has the zero digest.
type digests map[string][sha256.Size]byte

func digestsOf(files []string) digests {
	all := make(digests)
	for _, name := range withFolders(files) {
		var sum [sha256.Size]byte
		if text, err := plaintext.Read(name, plaintext.MaxText); err == nil {
			sum = sha256.Sum256(text)
		}
		all[name] = sum
	}
	return all
}

// maxInFolder bounds the files of a folder; of a folder with more, none is read.
const maxInFolder = 10_000

// withFolders adds the files that are in folders.
func withFolders(files []string) (all []string) {
	for _, name := range files {
		all = append(all, name)
		if !strings.HasSuffix(name, "/") {
			continue
		}
		inside, _ := plaintext.List(name, func(name string) bool { return !strings.HasPrefix(name, ".") }, maxInFolder)
		for _, file := range inside { // none in a folder that cannot be listed
			all = append(all, filepath.Join(name, file))
		}
	}
	return all
}

// keepWatching watches the folders that the files are in and those that links
// lead to. Folders rather than files: a file that is replaced is another one,
// and in a mounted ConfigMap the link ..data beside the file is what changes.
func keepWatching(w *fsnotify.Watcher, files []string) {
	var folders []string
	add := func(file string) {
		if folder := filepath.Dir(file); !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	for _, file := range withFolders(files) {
		real, err := plaintext.Resolve(file)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // to watch its folder would hang as well
		}
		add(file)
		if err == nil {
			add(real)
		}
	}
	for _, old := range w.WatchList() {
		if !slices.Contains(folders, old) {
			_ = w.Remove(old) // it may be gone already
		}
	}
	for _, folder := range folders {
		_ = w.Add(folder) // what cannot be watched is polled
	}
}
