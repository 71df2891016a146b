package plaintext

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const soon = 50 * time.Millisecond // a patience for what is not to come

func fifo(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func newFiles() *files { return &files{open: system.open} }

func wantHung(t *testing.T, err error, words string) {
	t.Helper()
	var hung *hungError
	if !errors.As(err, &hung) || !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), words) {
		t.Fatalf("got %v, want a hung file: %s", err, words)
	}
}

// A file system that does not answer costs one goroutine, however often the file
// is looked at, and the file is read again once it answers.
func TestAMountThatHangs(t *testing.T) {
	release, opened := make(chan struct{}), 0
	var mu sync.Mutex
	f := &files{open: func(name string) (*os.File, error) {
		mu.Lock()
		opened++
		mu.Unlock()
		<-release
		return os.Open(name)
	}}
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, first := f.read(name, 10, soon)
	wantHung(t, first, "read "+name+": the file system has not answered since ")
	for range 3 {
		_, err := f.read(name, 10, time.Hour)
		if wantHung(t, err, "check the mount"); err.Error() != first.Error() {
			t.Errorf("got %q after %q, want the same text, or each look is a line in the log", err, first)
		}
	}
	var waiting sync.WaitGroup
	for range 8 {
		waiting.Go(func() { _, _ = f.read(name, 10, soon) })
	}
	waiting.Wait()
	mu.Lock()
	if opened != 1 {
		t.Errorf("got %d goroutines that hang in the file, want 1", opened)
	}
	mu.Unlock()
	close(release)
	for {
		data, err := f.read(name, 10, time.Minute)
		if err == nil {
			if string(data) != "s" {
				t.Errorf("got %q, want the file", data)
			}
			return
		}
		wantHung(t, err, "has not answered")
	}
}

func TestAPipeIsReadWhenItsWriterComes(t *testing.T) {
	name, f := fifo(t), newFiles()
	_, err := f.read(name, 100, soon)
	wantHung(t, err, "nobody has written to this pipe since ")

	write := func(text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil { // opens, writes and closes
			t.Error(err)
		}
	}
	var writer sync.WaitGroup
	for _, text := range []string{"first", "second"} {
		writer.Go(func() { write(text) })
		for {
			data, err := f.read(name, 100, time.Minute)
			if err == nil && string(data) == text {
				break
			}
			if err != nil {
				wantHung(t, err, "nobody has written")
			} else if string(data) != "first" {
				t.Fatalf("got %q before %q was written", data, text)
			}
		}
		writer.Wait()
	}
	for range 2 { // it can be read only once
		if data, err := f.read(name, 100, time.Hour); err != nil || string(data) != "second" {
			t.Errorf("got %q, %v with nobody writing, want what was written last", data, err)
		}
	}
}

// The second half of what a slow writer writes is not taken for all of it.
func TestAPipeIsReadWhole(t *testing.T) {
	name, f := fifo(t), newFiles()
	w, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("one "); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = f.read(name, 100, soon)
		wantHung(t, err, "written to and not closed")
	}
	if _, err := w.WriteString("two"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if data, err := f.read(name, 100, time.Minute); err != nil || string(data) != "one two" {
		t.Fatalf("got %q, %v, want both parts", data, err)
	}

	// Another file in its place counts at once.
	if _, err := f.read(name, 100, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := f.read(name, 100, time.Minute); err != nil || string(data) != "a file" {
		t.Errorf("got %q, %v, want the file that took the pipe's place", data, err)
	}
}

// What a shell makes of --config <(...).
func TestADescriptorIsReadOnce(t *testing.T) {
	for _, text := range []string{"a: 1\n", ""} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
		w.Close()
		f, name := newFiles(), "/dev/fd/"+itoa(int(r.Fd()))
		for range 3 {
			if data, err := f.read(name, 100, time.Minute); err != nil || string(data) != text {
				t.Errorf("got %q, %v, want %q each time", data, err, text)
			}
		}
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

func TestReadsAreBounded(t *testing.T) {
	long := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(long, make([]byte, 101), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{long, "/dev/zero"} {
		if _, err := Read(name, 100); err == nil || !strings.Contains(err.Error(), name+": it is larger than 100 bytes") {
			t.Errorf("%s: got %v, want it to be too large", name, err)
		}
		if _, err := ReadInput(name, 100); err == nil || !strings.Contains(err.Error(), "larger than 100 bytes") {
			t.Errorf("%s as input: got %v, want it to be too large", name, err)
		}
	}
	if _, err := ReadPEM("/dev/zero"); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("/dev/zero as PEM: got %v, want it to be too large", err)
	}
	if data, err := ReadFile(os.DevNull, 100); err != nil || len(data) != 0 {
		t.Errorf("%s: got %q, %v, want nothing", os.DevNull, data, err)
	}
	if data, err := Read(long, 101); err != nil || len(data) != 101 {
		t.Errorf("a file of the bound's size: got %d bytes, %v, want all", len(data), err)
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v, want os.ErrNotExist", err)
	}
	if err := Check(t.TempDir()); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("Check of a folder: got %v", err)
	}
	if err := Check(fifo(t)); err != nil {
		t.Errorf("Check of a pipe: got %v, want it not to be opened", err)
	}
	if info, err := Stat(long); err != nil || info.Size() != 101 {
		t.Errorf("Stat: got %v, %v", info, err)
	}
	if names := Hanging(); len(names) != 0 {
		t.Errorf("got %v hanging, want nothing", names)
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"c", "a", "b", ".d"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	visible := func(name string) bool { return name[0] != '.' }
	if got, err := List(dir, visible, 3); err != nil || strings.Join(got, " ") != "a b c" {
		t.Errorf("got %q, %v, want the visible ones sorted", got, err)
	}
	for folder, want := range map[string]string{dir: "more than 2", filepath.Join(dir, "none"): "no such file", filepath.Join(dir, "a"): "not a directory"} {
		if got, err := List(folder, visible, 2); err == nil || len(got) > 0 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, %v, want %s", folder, got, err, want)
		}
	}
}
