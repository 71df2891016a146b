package plaintext

import (
	"cmp"
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

// hungError reports that a file did not answer in time: its file system hangs, or
// it is a pipe that nobody writes to. errors.Is finds os.ErrDeadlineExceeded in it.
type hungError struct {
	Since  time.Time // when the first look began that got no answer
	state  string
	remedy string
}

func (e *hungError) Error() string {
	return fmt.Sprintf("%s since %s; %s", e.state, e.Since.UTC().Format("15:04:05Z"), e.remedy)
}

func (e *hungError) Unwrap() error { return os.ErrDeadlineExceeded }

// What a look at a file may wait for, each with a remedy.
var (
	mountHangs = hungError{state: "the file system has not answered", remedy: "check the mount, or name a file on a disk that works"}
	pipeEmpty  = hungError{state: "nobody has written to this pipe", remedy: "start its writer first, or name a regular file"}
	pipeOpen   = hungError{state: "this pipe has been written to and not closed", remedy: "close it when all is written, or name a regular file"}
	inputOpen  = hungError{state: "this input has not ended", remedy: "end it, or name a regular file"}
)

func (e hungError) began(since time.Time) *hungError {
	e.Since = since
	return &e
}

// ReadFile is os.ReadFile for text of at most limit bytes, within Patience. It returns
// UTF-8 without a byte order mark. It is safe for concurrent use.
//
// A pipe can be read only once: its content is returned again until it is written to
// again.
func ReadFile(name string, limit int64) ([]byte, error) {
	data, err := Read(name, limit)
	return Clean(data), err
}

// ReadPEM is ReadFile for certificates and keys.
func ReadPEM(name string) ([]byte, error) {
	data, err := Read(name, maxPEM)
	return PEM(data), err
}

// Read is ReadFile for the bytes as they are.
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
	return Clean(data), err
}

// List returns the sorted names of a folder that are kept, within Patience. More than
// limit of them are an error.
func List(folder string, keep func(name string) bool, limit int) ([]string, error) {
	return look(&system, folder, "list", Patience, func(*path, time.Time) ([]string, error) {
		f, err := os.Open(folder)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		var kept []string
		for {
			names, err := f.Readdirnames(limit)
			for _, name := range names {
				if keep(name) {
					kept = append(kept, name)
				}
			}
			switch {
			case len(kept) > limit:
				return nil, &fs.PathError{Op: "list", Path: folder, Err: fmt.Errorf("it holds more than %d such files; divide them, or name another folder", limit)}
			case errors.Is(err, io.EOF):
				slices.Sort(kept)
				return kept, nil
			case err != nil:
				return nil, err
			}
		}
	})
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

// Hanging lists the files that do not answer at the moment, sorted.
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

// system knows the files that do not answer, for the whole process: no second
// goroutine may hang in one of them.
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
	why   *hungError    // what the look under way waits for; nil: the file system
}

// look runs do, at most one at a time for each question, and waits for it no longer
// than patience. do should end at the deadline. One that hangs in the system is left
// behind, and until it ends the same question fails at once.
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
	return cmp.Or(p.why, &mountHangs).began(p.since)
}

// end notes how a look ended.
func (f *files) end(k key, p *path, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(p.busy)
	p.busy, p.why = nil, nil
	hung, hangs := errors.AsType[*hungError](err)
	if !hangs {
		delete(f.paths, k)
		return
	}
	if p.since.IsZero() {
		p.since = p.began
	}
	hung.Since = p.since
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
			err = &fs.PathError{Op: "read", Path: name, Err: inputOpen.began(p.began)}
		}
		return data, err
	})
}

// readPipe reads what a pipe holds, or returns what its last writer wrote. A pipe whose
// writer is not done stays open: closing it would interrupt the writer, and the next
// look would take the rest for the whole.
func (f *files) readPipe(p *path, file *os.File, info fs.FileInfo, name string, limit int64, deadline time.Time) ([]byte, error) {
	f.mu.Lock()
	from := f.pipes[name]
	if from == nil {
		from = &pipe{}
		f.pipes[name] = from
	}
	f.mu.Unlock() // no other look at it is under way
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
	why := &pipeEmpty
	if len(from.begun) > 0 {
		why = &pipeOpen
	}
	f.mu.Lock()
	p.why = why // the file system has answered
	f.mu.Unlock()
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
		case late && len(from.begun) > 0:
			why = &pipeOpen
			fallthrough
		case late:
			return nil, &fs.PathError{Op: "read", Path: name, Err: why.began(p.began)}
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

// keptWait is how long a reader waits for a new value while there is an old one.
const keptWait = 250 * time.Millisecond

// Kept is a value read from files, a secret say, that is read again each time it
// is needed. While a file hangs, the last value is returned. It is safe for
// concurrent use.
type Kept[T any] struct {
	Read func() (T, error)
	// Hung, if not nil, is called when the last value begins to replace one that cannot
	// be read.
	Hung func(err error)

	mu     sync.Mutex // guards the fields below
	value  T
	has    bool       // there is a value
	flight *flight[T] // nil: nobody reads
	hangs  bool       // and that was reported
}

type flight[T any] struct {
	done  chan struct{} // closed when the fields below are set
	value T
	err   error
}

// Get returns what Read returns. With a value at hand it waits for a quarter of a
// second at most.
func (k *Kept[T]) Get() (T, error) {
	k.mu.Lock()
	f := k.flight
	if f == nil {
		f = &flight[T]{done: make(chan struct{})}
		k.flight = f
		go k.read(f) // awaited below, or by who comes next
	}
	value, has := k.value, k.has
	k.mu.Unlock()
	if !has {
		<-f.done
		return f.value, f.err
	}
	timer := time.NewTimer(keptWait)
	defer timer.Stop()
	select {
	case <-f.done:
		return f.value, f.err
	case <-timer.C:
		return value, nil
	}
}

func (k *Kept[T]) read(f *flight[T]) {
	f.value, f.err = k.Read()
	k.mu.Lock()
	defer k.mu.Unlock()
	defer close(f.done)
	k.flight = nil
	hangs := errors.Is(f.err, os.ErrDeadlineExceeded)
	switch {
	case f.err == nil:
		k.value, k.has = f.value, true
	case hangs && k.has:
		if !k.hangs && k.Hung != nil {
			k.Hung(f.err)
		}
		f.value, f.err = k.value, nil
	}
	k.hangs = hangs && k.has
}
