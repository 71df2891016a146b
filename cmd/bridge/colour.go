package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/logwriter"
	"github.com/datafly/bridge/internal/plaintext"
)

// colourMode is the --color flag.
type colourMode string

const (
	colourAuto   colourMode = "auto" // on a terminal, unless NO_COLOR is set
	colourAlways colourMode = "always"
	colourNever  colourMode = "never"
)

func (m *colourMode) String() string { return string(*m) }

// Type is what --help shows behind the flag.
func (m *colourMode) Type() string { return "auto|always|never" }

// Set implements pflag.Value.
func (m *colourMode) Set(v string) error {
	switch colourMode(v) {
	case colourAuto, colourAlways, colourNever:
		*m = colourMode(v)
		return nil
	}
	return errors.New("use auto, always or never")
}

// style is how one output is written.
type style struct {
	live   bool // a terminal whose last line can be rewritten
	colour bool
}

// styleOf returns the style of an output of the command.
func styleOf(cmd *cobra.Command, w io.Writer) style {
	mode := colourAuto
	if f := cmd.Flag("color"); f != nil {
		mode = colourMode(f.Value.String())
	}
	s := newStyle(mode, w)
	if out, ok := w.(*screen); ok {
		out.colour.Store(s.colour)
	}
	return s
}

// newStyle goes by --color, then NO_COLOR (no-color.org), then whether w is a
// terminal that knows escape sequences.
func newStyle(mode colourMode, w io.Writer) style {
	s := style{live: isTerminal(w) && os.Getenv("TERM") != "dumb"}
	switch mode {
	case colourAlways:
		s.colour = true
	case colourNever:
	default:
		s.colour = s.live && os.Getenv("NO_COLOR") == ""
	}
	return s
}

// unwrapped returns what is behind a screen and a queue.
func unwrapped(w io.Writer) io.Writer {
	w = bare(w)
	if queue, ok := w.(*logwriter.Writer); ok {
		return queue.Unwrap()
	}
	return w
}

func isTerminal(w io.Writer) bool {
	f, ok := unwrapped(w).(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// assumedWidth is that of a terminal that does not tell its own.
const assumedWidth = 80

// terminalWidth returns the columns of the terminal behind w, asked anew each
// time because windows change; assumedWidth where there is none.
func terminalWidth(w io.Writer) int {
	if f, ok := unwrapped(w).(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return assumedWidth
}

// paints are the codes that paint writes.
var paints = []string{"0", "1", "31", "32", "33"}

// paint colours text, which has no sequences of its own.
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

// verdicts are words that a line of a report begins with when it says how
// things stand.
var verdicts = []struct {
	word  string
	paint func(style, string) string
}{
	{"NOT READY", style.bad}, {"NOT ALIVE", style.bad}, {"ready ", style.good}, {"WARNING:", style.warn}, {"The group has ", style.warn},
}

// table colours a report whose column heads are in capitals: the heads bold,
// the verdicts by what they say. Nothing but whole words at the beginning of
// lines is looked at, so no value in the report changes how it looks.
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

// logFor resolves log.format auto for the output the log goes to: console on a
// terminal, json where a collector may read it.
func logFor(cfg config.Log, w io.Writer) config.Log {
	if cfg.Format == "auto" {
		cfg.Format = "json"
		if isTerminal(w) {
			cfg.Format = "console"
		}
	}
	return cfg
}
