package plaintext

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Size bounds of what is read, in bytes: far above what such a file ever has, so
// that a wrong path cannot fill memory.
const (
	MaxText = 2 << 20 // a blueprint, a script
	maxPEM  = 1 << 20 // certificates and keys
)

const (
	// Patience is how long one look at a file may take. A file on a disk is
	// there in a millisecond; a mount whose server is gone never answers.
	Patience = 5 * time.Second
	// again is the patience with a file that has not answered before, so that
	// whoever looks every few seconds does not spend its time waiting.
	again = 100 * time.Millisecond
	// pipeEvery is how often a pipe without a writer is looked at.
	pipeEvery = 10 * time.Millisecond
)

// HungError reports that a file did not answer in time: its file system hangs, or
// it is a pipe that nobody writes to. errors.Is finds os.ErrDeadlineExceeded in it.
type HungError struct {
	Since  time.Time // when the first look began that got no answer
	state  string
	remedy string
}

func (e *HungError) Error() string {
	return fmt.Sprintf("%s since %s; %s", e.state, e.Since.UTC().Format("15:04:05Z"), e.remedy)
}

func (e *HungError) Unwrap() error { return os.ErrDeadlineExceeded }

func mountHangs(since time.Time) *HungError {
	return &HungError{since, "the file system has not answered", "check the mount, or name a file on a disk that works"}
}

func pipeEmpty(since time.Time) *HungError {
	return &HungError{since, "nobody has written to this pipe", "start its writer first, or name a regular file"}
}

func pipeOpen(since time.Time) *HungError {
	return &HungError{since, "this pipe has been written to and not closed", "close it when all is written, or name a regular file"}
}

func inputOpen(since time.Time) *HungError {
	return &HungError{since, "the end of this input has not come", "end it, or name a regular file"}
}

// ReadFile is os.ReadFile for text of at most limit bytes, within Patience. It
// returns what Clean makes of the file. It is safe for concurrent use.
//
// A pipe can be read only once: what it held is returned again until somebody
// writes to it again.
func ReadFile(name string, limit int64) ([]byte, error) {
	data, err := Read(name, limit)
	if err != nil {
		return nil, err
	}
	return Clean(data), nil
}

// ReadPEM is ReadFile for certificates and keys: it returns what PEM makes of the
// file.
func ReadPEM(name string) ([]byte, error) {
	data, err := Read(name, maxPEM)
	if err != nil {
		return nil, err
	}
	return PEM(data), nil
}

// Read is ReadFile without Clean.
func Read(name string, limit int64) ([]byte, error) {
	return system.read(name, limit, Patience)
}

// ReadInput is ReadFile for the input of a command that somebody waits for: it
// takes as long as the file or the pipe takes.
func ReadInput(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := upTo(f, name, limit)
	if err != nil {
		return nil, err
	}
	return Clean(data), nil
}

// Stat is os.Stat within Patience.
func Stat(name string) (fs.FileInfo, error) {
	return look(&system, name, "stat", Patience, func(*path, time.Time) (fs.FileInfo, error) { return os.Stat(name) })
}

// Resolve is filepath.EvalSymlinks within Patience.
func Resolve(name string) (string, error) {
	return look(&system, name, "resolve", Patience, func(*path, time.Time) (string, error) { return filepath.EvalSymlinks(name) })
}

// Check reports whether the file can be opened for reading, within Patience. What
// is no regular file is not opened: a pipe can be opened only once.
func Check(name string) error {
	_, err := look(&system, name, "open", Patience, func(*path, time.Time) (struct{}, error) {
		info, err := os.Stat(name)
		switch {
		case err != nil:
			return struct{}{}, err
		case info.IsDir():
			return struct{}{}, &fs.PathError{Op: "open", Path: name, Err: errors.New("it is a folder")}
		case !info.Mode().IsRegular():
			return struct{}{}, nil
		}
		f, err := os.Open(name)
		if err == nil {
			f.Close()
		}
		return struct{}{}, err
	})
	return err
}

// Hanging lists the files that do not answer at the moment, in order.
func Hanging() []string {
	system.mu.Lock()
	defer system.mu.Unlock()
	var names []string
	for k, p := range system.paths {
		if p.busy != nil && time.Since(p.began) >= again {
			names = append(names, k.name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// system holds what is known of files that do not answer, for the whole process:
// whoever looks at such a file, no second goroutine is to hang in it.
var system = files{open: func(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe without a writer would block
}}

type files struct {
	open func(name string) (*os.File, error)

	mu    sync.Mutex // guards the fields below
	paths map[key]*path
	pipes map[string]*pipe // of every pipe that was read
}

// key is one question about one file.
type key struct{ op, name string }

// path is a file that is being looked at, or that did not answer.
type path struct {
	busy  chan struct{} // closed when the look under way is over; nil: there is none
	began time.Time     // of the look under way
	since time.Time     // when the first look without an answer began; zero: it answers
	why   error         // what the look under way waits for; nil: the file system
}

// look runs do, at most one at a time for each question, and waits for it no
// longer than patience. do should end at the deadline; one that hangs in the system
// is left behind, and until it ends whoever asks the same is told at once.
func look[T any](f *files, name, op string, patience time.Duration, do func(p *path, deadline time.Time) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	var none T
	k := key{op, name}
	p, deadline, err := f.begin(k, patience)
	if err != nil {
		return none, &fs.PathError{Op: op, Path: name, Err: err}
	}
	done := make(chan outcome, 1)
	go func() { // ends with the system's answer; awaited below, or left behind
		v, err := do(p, deadline)
		f.end(k, p, err)
		done <- outcome{v, err}
	}()
	// A look that keeps to its deadline gets to say what it waited for.
	timer := time.NewTimer(time.Until(deadline) + again)
	defer timer.Stop()
	select {
	case o := <-done:
		return o.value, o.err
	case <-timer.C:
		return none, &fs.PathError{Op: op, Path: name, Err: f.hung(p)}
	}
}

// begin waits until nobody else asks the same, and returns by when the look has
// to end, or what hangs.
func (f *files) begin(k key, patience time.Duration) (*path, time.Time, error) {
	for began := time.Now(); ; {
		f.mu.Lock()
		if f.paths == nil {
			f.paths, f.pipes = map[key]*path{}, map[string]*pipe{}
		}
		p := f.paths[k]
		if p == nil {
			p = &path{}
			f.paths[k] = p
		}
		if !p.since.IsZero() {
			patience = min(patience, again)
		}
		if p.busy == nil {
			p.busy, p.began = make(chan struct{}), time.Now()
			deadline := p.began.Add(patience)
			f.mu.Unlock()
			return p, deadline, nil
		}
		busy := p.busy
		f.mu.Unlock()
		timer := time.NewTimer(time.Until(began.Add(patience)))
		select {
		case <-busy:
			timer.Stop()
		case <-timer.C:
			return nil, time.Time{}, f.hung(p)
		}
	}
}

// hung notes that the look under way has no answer in time, and returns the error.
func (f *files) hung(p *path) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.since.IsZero() {
		p.since = p.began
	}
	var known *HungError
	if errors.As(p.why, &known) {
		return &HungError{p.since, known.state, known.remedy}
	}
	return mountHangs(p.since)
}

// waits notes what the look under way waits for, once the file system has
// answered.
func (f *files) waits(p *path, why *HungError) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.why = why
}

// end notes how a look ended.
func (f *files) end(k key, p *path, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(p.busy)
	p.busy, p.why = nil, nil
	var hung *HungError
	switch {
	case !errors.As(err, &hung):
		delete(f.paths, k) // it answers
	case p.since.IsZero():
		p.since = p.began
		fallthrough
	default:
		hung.Since = p.since
	}
}

// pipe is a pipe that is or was read.
type pipe struct {
	file  *os.File // while its writer has not closed it; nil: it has
	begun []byte   // what it has written so far
	whole []byte   // what the last writer wrote
	read  bool     // there is a whole
}

func (f *files) read(name string, limit int64, patience time.Duration) ([]byte, error) {
	return look(f, name, "read", patience, func(p *path, deadline time.Time) ([]byte, error) {
		file, err := f.open(name)
		if err != nil {
			return nil, err
		}
		info, err := file.Stat()
		switch {
		case err != nil:
			file.Close()
			return nil, err
		case info.Mode()&fs.ModeNamedPipe != 0:
			return f.readPipe(p, file, info, name, limit, deadline)
		}
		defer file.Close()
		_ = file.SetReadDeadline(deadline) // a terminal has one, a file on a disk has none
		data, err := upTo(file, name, limit)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = &fs.PathError{Op: "read", Path: name, Err: inputOpen(p.began)}
		}
		return data, err
	})
}

// readPipe reads what a pipe holds, or returns what its last writer wrote. A pipe
// whose writer is not done stays open: to close it would cut the writer off, and
// the next look would take the second half for all.
func (f *files) readPipe(p *path, file *os.File, info fs.FileInfo, name string, limit int64, deadline time.Time) ([]byte, error) {
	f.mu.Lock()
	from := f.pipes[name]
	if from == nil {
		from = &pipe{}
		f.pipes[name] = from
	}
	f.mu.Unlock() // nobody else has it while we read
	if from.file != nil {
		if was, err := from.file.Stat(); err == nil && os.SameFile(was, info) {
			file.Close()
			file = from.file
		} else {
			from.file.Close()
			from.begun = nil
		}
	}
	from.file = file
	why := pipeEmpty(p.began)
	if len(from.begun) > 0 {
		why = pipeOpen(p.began)
	}
	f.waits(p, why)
	_, err := filepath.EvalSymlinks(name)
	named := err == nil // else it is a descriptor of this process, such as /dev/fd/63
	if err := file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	for {
		data, err := upTo(file, name, limit-int64(len(from.begun)))
		from.begun = append(from.begun, data...)
		late := errors.Is(err, os.ErrDeadlineExceeded) || err == nil && time.Until(deadline) <= 0
		switch {
		case err == nil && len(from.begun) == 0 && named && !from.read && !late:
			// No writer has come yet. The system has no way to wait for one
			// that could be given up.
			timer := time.NewTimer(pipeEvery)
			<-timer.C
			continue
		case err == nil && (len(from.begun) > 0 || !named && !from.read):
			from.whole, from.read = from.begun, true
		case len(from.begun) == 0 && from.read && (err == nil || late):
			// Nobody has written since.
		case late && len(from.begun) == 0:
			return nil, &fs.PathError{Op: "read", Path: name, Err: pipeEmpty(p.began)}
		case late:
			return nil, &fs.PathError{Op: "read", Path: name, Err: pipeOpen(p.began)}
		}
		from.file, from.begun = nil, nil
		file.Close()
		if err != nil && !late {
			return nil, err
		}
		return slices.Clone(from.whole), nil
	}
}

// upTo reads at most limit bytes, and fails if there are more. Beside an error it
// returns what it has read until then.
func upTo(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is larger than %d bytes; name another file", limit)}
	}
	return data, err
}
