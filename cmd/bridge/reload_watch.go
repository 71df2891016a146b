package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/plaintext"
)

// What leads to a reload.
const (
	byStart  = "start" // what was changed while the bridge started
	byFile   = "a file changed"
	bySignal = "SIGHUP"
	byRetry  = "the files were refused before"
)

const (
	// settleFor is how long the files have to keep still before they are read:
	// an editor writes in several steps.
	settleFor = 200 * time.Millisecond
	// pollEvery is how often they are read in any case. Not every change is
	// announced: network file systems announce none, nor does a link further
	// up in a path.
	pollEvery = 10 * time.Second
)

// follower follows the files of the configuration and reloads it when they have
// changed, or when told to.
type follower struct {
	options config.Options // what the start loaded, to be loaded again
	signals <-chan os.Signal

	load func(config.Options) (*config.Config, error) // config.Load
	// bring takes a configuration over, or the error of loading it.
	bring func(ctx context.Context, why string, next *config.Config, err error)
	// inForce is the blueprint file in force, failing whether what is on disk
	// was refused.
	inForce func() string
	failing func() bool

	held    bool     // the configuration file was there once, with something in it
	files   []string // configuration, then blueprints
	tried   [32]byte // digest of files when they were last loaded
	pending [32]byte // digest that differed, when last seen
}

// follow has reloads brought about for the bridge until ctx ends.
func (b *bridge) follow(ctx context.Context) {
	f := b.follower
	f.load = config.Load
	f.inForce = func() string { return b.settings.Load().Mapping.Blueprint }
	f.failing = b.reloads.failing
	f.bring = func(ctx context.Context, why string, next *config.Config, err error) {
		var taken, waiting []string
		if err == nil {
			taken, waiting, err = b.reload(ctx, next, why == byFile || why == bySignal)
		}
		switch {
		case ctx.Err() != nil: // the bridge is stopping
		case err != nil:
			b.refused(why, err)
		default:
			b.reloaded(why, taken, waiting)
		}
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		b.log.Info("changes of the configuration are noticed by reading it from time to time", zap.Duration("every", pollEvery), zap.Error(err))
		f.run(ctx, nil)
		return
	}
	f.run(ctx, watcher)
	_ = watcher.Close() // it was only read from
}

// run loads when the files have changed and kept still, when a signal comes,
// and again and again while what is there is refused. watcher may be nil.
func (f *follower) run(ctx context.Context, watcher *fsnotify.Watcher) {
	var announced <-chan fsnotify.Event
	var faults <-chan error
	if watcher != nil {
		announced, faults = watcher.Events, watcher.Errors
	}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	settle := time.NewTimer(settleFor)
	settle.Stop()
	defer settle.Stop()
	armed := false
	arm := func() {
		if !armed {
			armed = true
			settle.Reset(settleFor)
		}
	}
	try := func(why string) {
		f.reload(ctx, why)
		if watcher != nil {
			keepWatching(watcher, f.files)
		}
		// What changed while it was loaded, or before it was watched.
		arm()
	}
	try(byStart)
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.signals:
			try(bySignal)
		case <-announced:
			arm()
		case _, open := <-faults: // events were lost, say
			if open {
				arm()
			}
		case <-poll.C:
			if f.failing() {
				try(byRetry)
			} else {
				arm()
			}
		case <-settle.C:
			armed = false
			switch changed, still := f.look(); {
			case changed && still:
				try(byFile)
			case changed:
				arm()
			case watcher != nil:
				keepWatching(watcher, f.files) // a link may lead elsewhere now
			}
		}
	}
}

// look tells whether the files are others than those loaded last, and whether
// they are still those of the last look.
func (f *follower) look() (changed, still bool) {
	sum := digestFiles(f.files)
	if sum == f.tried {
		return false, false
	}
	still = sum == f.pending
	f.pending = sum
	return true, still
}

// reload loads what the files hold now.
func (f *follower) reload(ctx context.Context, why string) {
	files := f.list(nil)
	tried := digestFiles(files)
	next, err := f.loadHeld()
	if now := f.list(next); !slices.Equal(now, files) {
		files, tried = now, digestFiles(now)
		next, err = f.loadHeld() // not older than the digest
	}
	f.files, f.tried = files, tried
	f.bring(ctx, why, next, err)
}

// loadHeld loads what the sources say now. A start may do without a file; where
// there was one, that it is gone or empty is an accident, or a writer at work.
func (f *follower) loadHeld() (*config.Config, error) {
	o := f.options
	info, err := plaintext.Stat(f.file())
	switch {
	case err == nil && info.Size() > 0:
		f.held = true
	case f.held && err == nil:
		return nil, fmt.Errorf("%s is empty; write it again, or restart the bridge if it is to go on without", f.file())
	}
	o.FileRequired = o.FileRequired || f.held
	return f.load(o)
}

func (f *follower) file() string {
	if f.options.File == "" {
		return config.DefaultFile
	}
	return f.options.File
}

// list names the files to follow: the configuration, the blueprint in force and
// the one of next, which is loaded without judging it where next is nil.
func (f *follower) list(next *config.Config) []string {
	files := []string{f.file()}
	if next == nil {
		o := f.options
		o.Partial = true
		next, _ = f.load(o)
	}
	plans := []string{f.inForce()}
	if next != nil {
		plans = append(plans, next.Mapping.Blueprint)
	}
	for _, plan := range plans {
		if plan != "" && !slices.Contains(files, plan) {
			files = append(files, plan)
		}
	}
	return files
}

// digestFiles digests names and contents. A file that cannot be read counts as
// one that is not there.
func digestFiles(files []string) (sum [32]byte) {
	h := sha256.New()
	part := func(text []byte) {
		_ = binary.Write(h, binary.LittleEndian, int64(len(text))) // a hash takes everything
		_, _ = h.Write(text)
	}
	for _, name := range files {
		part([]byte(name))
		if text, err := plaintext.Read(name, plaintext.MaxText); err == nil {
			part(text)
		}
	}
	return [32]byte(h.Sum(nil))
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
	for _, file := range files {
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
