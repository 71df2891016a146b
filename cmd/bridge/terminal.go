package main

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/logwriter"
	"github.com/datafly/bridge/internal/plaintext"
)

// colourModes are the values of --color.
var colourModes = []string{"auto", "always", "never"}

// style is how one output is written.
type style struct {
	live   bool // a terminal whose last line can be rewritten
	colour bool
}

// styleOf returns the style of an output of the command.
func styleOf(cmd *cobra.Command, w io.Writer) style {
	mode := "auto"
	if f := cmd.Flag("color"); f != nil {
		mode = f.Value.String()
	}
	s := newStyle(mode, w)
	if out, ok := w.(*screen); ok {
		out.colour.Store(s.colour)
	}
	return s
}

// newStyle applies --color, then NO_COLOR (no-color.org), then whether w is a
// terminal that knows escape sequences.
func newStyle(mode string, w io.Writer) style {
	s := style{live: isTerminal(w) && os.Getenv("TERM") != "dumb"}
	s.colour = mode == "always" || mode == "auto" && s.live && os.Getenv("NO_COLOR") == ""
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

func isTerminal(w io.Writer) bool {
	f := terminalFile(w)
	return f != nil && term.IsTerminal(int(f.Fd()))
}

// assumedWidth is that of an output without a known width.
const assumedWidth = 80

// terminalWidth returns the present columns of the terminal behind w.
func terminalWidth(w io.Writer) int {
	if f := terminalFile(w); f != nil {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return assumedWidth
}

// logFor resolves log.format auto for the output of the log: console on a
// terminal, json elsewhere.
func logFor(cfg config.Log, w io.Writer) config.Log {
	if cfg.Format == "auto" {
		cfg.Format = "json"
		if isTerminal(w) {
			cfg.Format = "console"
		}
	}
	return cfg
}

// colourCodes are the codes that paint writes.
var colourCodes = []string{"0", "1", "31", "32", "33"}

// paint colours text and escapes sequences in it.
func (s style) paint(code, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + plaintext.Visible(text) + "\x1b[0m"
}

func (s style) good(text string) string   { return s.paint("32", text) } // green
func (s style) bad(text string) string    { return s.paint("31", text) } // red
func (s style) warn(text string) string   { return s.paint("33", text) } // yellow
func (s style) strong(text string) string { return s.paint("1", text) }  // bold

// verdicts are the words at the beginning of a report's line that show a state.
var verdicts = []struct {
	word  string
	paint func(style, string) string
}{
	{"NOT READY", style.bad}, {"NOT ALIVE", style.bad}, {"ready ", style.good}, {"WARNING:", style.warn}, {"The group has ", style.warn},
}

// table colours a report: column heads, which are in capitals, and verdicts. It
// looks at whole words at the beginning of lines only, so no value in the report
// changes how it looks.
func (s style) table(report string) string {
	if !s.colour {
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

func (s style) reportLine(line string) string {
	for _, v := range verdicts {
		if rest, ok := strings.CutPrefix(line, v.word); ok {
			return v.paint(s, v.word) + rest
		}
	}
	if head := strings.Fields(line); len(head) > 2 && strings.ToUpper(line) == line && strings.ContainsFunc(head[0], unicode.IsUpper) {
		return s.strong(line)
	}
	return line
}

// screen is standard output or standard error of every command. It escapes the
// sequences that a terminal would obey, wherever they came from: an event, a
// column's name, an error text, a file's name. It does so in pipes too, since one
// may end in a log viewer. The bridge's own sequences pass: colours where the
// output has them, and those of control.
type screen struct {
	w      io.Writer
	colour atomic.Bool // colour sequences pass

	mu   sync.Mutex // guards rest and the order of writes
	rest []byte     // the first bytes of a character whose others have not come yet
}

func newScreen(w io.Writer) *screen { return &screen{w: w} }

// through sends later writes through a queue to the same output. Call it before
// anything else writes.
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
	whole := len(text) - partialRune(text)
	out := s.visible(text[:whole])
	s.rest = slices.Clone(text[whole:])
	if _, err := s.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// end writes the rest of a character that was never completed.
func (s *screen) end() {
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

// visible escapes text and keeps colour sequences where the output has colours.
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

// logLines is the output of a logger, one entry at a time. Each entry stays on its
// line, with the sequences that a terminal would obey escaped.
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
