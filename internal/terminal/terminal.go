// Package terminal writes what people read on a terminal: escaped text, colours, a
// line of progress and pages of Markdown.
package terminal

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/datafly/bridge/internal/logwriter"
	"github.com/datafly/bridge/internal/plaintext"
)

// Style is how one output is written.
type Style struct {
	Live   bool // a terminal whose last line can be rewritten
	Colour bool
}

// NewStyle returns the style of w in a mode: always, never or auto, which colours
// a terminal that knows escape sequences unless NO_COLOR (no-color.org) is set. A Screen takes
// it over.
func NewStyle(mode string, w io.Writer) Style {
	s := Style{Live: IsTerminal(w) && os.Getenv("TERM") != "dumb"}
	s.Colour = mode == "always" || mode == "auto" && s.Live && os.Getenv("NO_COLOR") == ""
	if screen, ok := w.(*Screen); ok {
		screen.colour.Store(s.Colour)
	}
	return s
}

// terminalFile returns the file behind a screen and a queue; nil if there is none.
func terminalFile(w io.Writer) *os.File {
	w = bare(w)
	if queue, ok := w.(*logwriter.Writer); ok {
		w = queue.Unwrap()
	}
	f, _ := w.(*os.File)
	return f
}

// IsTerminal reports whether w is a terminal, behind a Screen or a queue or not.
func IsTerminal(w io.Writer) bool {
	f := terminalFile(w)
	return f != nil && term.IsTerminal(int(f.Fd()))
}

// assumedWidth and assumedHeight are those of an output without a known size.
const assumedWidth, assumedHeight = 80, 24

// Width returns the present columns of the terminal behind w.
func Width(w io.Writer) int {
	width, _ := size(w)
	return width
}

// size returns the present columns and rows of the terminal behind w.
func size(w io.Writer) (width, height int) {
	if f := terminalFile(w); f != nil {
		if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && height > 0 {
			return width, height
		}
	}
	return assumedWidth, assumedHeight
}

// colourCodes are the codes that paint writes.
var colourCodes = []string{"0", "1", "31", "32", "33"}

// paint colours text and escapes sequences in it.
func (s Style) paint(code, text string) string {
	if !s.Colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + plaintext.Visible(text) + "\x1b[0m"
}

// Good returns text in green.
func (s Style) Good(text string) string { return s.paint("32", text) }

// Bad returns text in red.
func (s Style) Bad(text string) string { return s.paint("31", text) }

// Warn returns text in yellow.
func (s Style) Warn(text string) string { return s.paint("33", text) }

// Strong returns text in bold.
func (s Style) Strong(text string) string { return s.paint("1", text) }

// verdicts are the words at the beginning of a report's line that show a state.
var verdicts = []struct {
	word  string
	paint func(Style, string) string
}{
	{"NOT READY", Style.Bad}, {"NOT ALIVE", Style.Bad}, {"ready ", Style.Good}, {"WARNING:", Style.Warn}, {"The group has ", Style.Warn},
}

// Table colours a report: column heads, which are in capitals, and verdicts. It
// looks at whole words at the beginning of lines only, so no value in the report
// changes how it looks.
func (s Style) Table(report string) string {
	if !s.Colour {
		return report
	}
	var b strings.Builder
	for line := range strings.Lines(plaintext.Visible(report)) {
		text := strings.TrimSuffix(line, "\n")
		b.WriteString(s.reportLine(text))
		b.WriteString(line[len(text):])
	}
	return b.String()
}

// Tabulate writes rows as aligned columns. A row is its cells, separated by tabs.
func Tabulate(b *strings.Builder, rows ...string) {
	var aligned strings.Builder
	tw := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		_, _ = io.WriteString(tw, row+"\n") // into memory, here and below
	}
	_ = tw.Flush()
	for line := range strings.Lines(aligned.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
}

func (s Style) reportLine(line string) string {
	for _, v := range verdicts {
		if rest, ok := strings.CutPrefix(line, v.word); ok {
			return v.paint(s, v.word) + rest
		}
	}
	if head := strings.Fields(line); len(head) > 2 && strings.ToUpper(line) == line && strings.ContainsFunc(head[0], unicode.IsUpper) {
		return s.Strong(line)
	}
	return line
}

// Screen is standard output or standard error of every command. It escapes the
// sequences that a terminal would obey, wherever they came from: an event, a
// column's name, an error text, a file's name. It does so in pipes too, since one
// may end in a log viewer. The bridge's own sequences pass: colours where the
// output has them, and those of Control.
type Screen struct {
	w      io.Writer
	colour atomic.Bool // colour sequences pass

	mu   sync.Mutex // guards rest and the order of writes
	rest []byte     // the first bytes of a character whose others have not come yet
}

// NewScreen returns a screen in front of w.
func NewScreen(w io.Writer) *Screen { return &Screen{w: w} }

// Through sends later writes through a queue to the same output. Call it before
// anything else writes.
func (s *Screen) Through(queue *logwriter.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = queue
}

// Write implements io.Writer.
func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := p
	if len(s.rest) > 0 {
		text = append(s.rest, p...)
	}
	whole := len(text) - partialRune(text)
	out := s.Visible(text[:whole])
	s.rest = slices.Clone(text[whole:])
	if _, err := s.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// End writes the rest of a character that was never completed.
func (s *Screen) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rest) > 0 {
		_, _ = s.w.Write(plaintext.AppendVisible(nil, s.rest)) // nobody is left to report to
		s.rest = nil
	}
}

// partialRune returns how many bytes at the end of text begin a character and do
// not complete it.
func partialRune(text []byte) int {
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

// Visible escapes text and keeps colour sequences where the output has colours.
func (s *Screen) Visible(text []byte) []byte {
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
		at := slices.IndexFunc(colourCodes, func(code string) bool { return bytes.HasPrefix(after, []byte(code+"m")) })
		if at < 0 {
			out = plaintext.AppendVisible(out, []byte("\x1b["))
		} else {
			out = append(out, "\x1b["+colourCodes[at]+"m"...)
			after = after[len(colourCodes[at])+1:]
		}
		text = after
	}
}

// bare returns the output behind a screen.
func bare(w io.Writer) io.Writer {
	if s, ok := w.(*Screen); ok {
		return s.w
	}
	return w
}

// Control writes a sequence of the bridge's own that moves the cursor or clears.
func Control(w io.Writer, sequence string) error {
	_, err := io.WriteString(bare(w), sequence)
	return err
}

// LogLines is the output of a logger, one entry at a time. Each entry stays on its
// line, with the sequences that a terminal would obey escaped.
type LogLines struct{ W io.Writer }

// Write implements io.Writer.
func (l LogLines) Write(p []byte) (int, error) {
	entry := strings.TrimSuffix(string(p), "\n")
	line := strings.ReplaceAll(plaintext.Visible(entry), "\n", `\n`) // tabs are the console format's own
	if _, err := io.WriteString(l.W, line+"\n"); err != nil {
		return 0, err
	}
	return len(p), nil
}
