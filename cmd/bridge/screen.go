package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/datafly/bridge/internal/logwriter"
	"github.com/datafly/bridge/internal/plaintext"
)

// screen is standard output or standard error as every command has it. What a
// terminal would obey is escaped, wherever it came from: an event, a column's name,
// an error text, a file's name. A pipe gets the same, since it may end in a log
// viewer. The bridge's own sequences pass: colours where the output has them, and
// what control writes.
type screen struct {
	w      io.Writer
	colour atomic.Bool // the sequences of style.paint pass

	mu   sync.Mutex // guards rest and the order of what is written
	rest []byte     // the first bytes of a character whose others are still to come
}

func newScreen(w io.Writer) *screen { return &screen{w: w} }

// through has what is written from now on go through a queue to the same output. It
// is for the beginning of a command, before anything else writes.
func (s *screen) through(queue *logwriter.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = queue
}

// Write implements io.Writer.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := p
	if len(s.rest) > 0 {
		text = append(s.rest, p...)
	}
	whole := len(text) - cutShort(text)
	out := s.visible(text[:whole])
	s.rest = slices.Clone(text[whole:])
	if _, err := s.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// end writes what is left of a character that was never completed.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rest) > 0 {
		_, _ = s.w.Write(plaintext.AppendVisible(nil, s.rest)) // nobody is left to report to
		s.rest = nil
	}
}

// cutShort returns how many bytes at the end of text are the beginning of a
// character.
func cutShort(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}

// visible escapes text, and leaves the sequences of colours where there are any.
func (s *screen) visible(text []byte) []byte {
	if !s.colour.Load() {
		return plaintext.AppendVisible(nil, text)
	}
	var out []byte
	for {
		before, after, found := bytes.Cut(text, []byte("\x1b["))
		out = plaintext.AppendVisible(out, before)
		if !found {
			return out
		}
		sequence := "\x1b["
		for _, code := range paints {
			if bytes.HasPrefix(after, []byte(code+"m")) {
				sequence += code + "m"
				after = after[len(code)+1:]
				break
			}
		}
		if sequence == "\x1b[" {
			out = plaintext.AppendVisible(out, []byte(sequence))
		} else {
			out = append(out, sequence...)
		}
		text = after
	}
}

// bare is the output behind a screen, for asking what it is and for sequences that
// move the cursor.
func bare(w io.Writer) io.Writer {
	if s, ok := w.(*screen); ok {
		return s.w
	}
	return w
}

// control writes a sequence of the bridge's own that moves the cursor or clears.
func control(w io.Writer, sequence string) error {
	_, err := io.WriteString(bare(w), sequence)
	return err
}

// logLines is where a logger writes, one entry at a time: each stays on its line,
// with what a terminal would obey escaped.
type logLines struct{ w io.Writer }

// Write implements io.Writer.
func (l logLines) Write(p []byte) (int, error) {
	entry := strings.TrimSuffix(string(p), "\n")
	line := strings.ReplaceAll(plaintext.Visible(entry), "\n", `\n`) // tabs are the console format's own
	if _, err := io.WriteString(l.w, line+"\n"); err != nil {
		return 0, err
	}
	return len(p), nil
}
