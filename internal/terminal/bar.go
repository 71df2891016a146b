package terminal

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// BarInterval is a good time between two lines of progress.
	BarInterval = 200 * time.Millisecond
	barWidth    = 20
	rateOver    = 10 * time.Second // a rate is the average of so long
)

// Bar keeps one line of progress below everything else that goes to a terminal,
// which must be written through it. Nil is a bar without a terminal: it shows
// nothing.
type Bar struct {
	w     io.Writer
	style Style
	often time.Time // of the last line of ShowOften

	mu      sync.Mutex // guards line, skipped and the terminal
	line    string     // as shown, without colours
	skipped string     // the last one that was not shown
}

// NewBar returns nil when w is no terminal.
func NewBar(w io.Writer, s Style) *Bar {
	if !s.Live {
		return nil
	}
	return &Bar{w: w, style: s}
}

// Above returns where to write what stays above the bar: the bar itself, or w
// without one.
func (b *Bar) Above(w io.Writer) io.Writer {
	if b == nil {
		return w
	}
	return b
}

// eraseLine moves the cursor to the line's beginning and clears the line.
const eraseLine = "\r\x1b[2K"

// Write puts whole lines above the bar.
func (b *Bar) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.line == "" {
		return b.w.Write(p)
	}
	if err := Control(b.w, eraseLine); err != nil {
		return 0, err
	}
	n, err := b.w.Write(p)
	b.draw()
	return n, err
}

// Show replaces the line.
func (b *Bar) Show(line string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if queue, ok := bare(b.w).(interface{ Busy() bool }); ok && queue.Busy() {
		b.skipped = line // a suspended terminal should not get every line it missed
		return
	}
	b.skipped = ""
	if b.line != "" {
		_ = Control(b.w, eraseLine) // a terminal that is gone gets no line either
	}
	b.line = line
	b.draw()
}

// ShowOften is Show for one goroutine in a loop: it draws once per BarInterval.
func (b *Bar) ShowOften(line func() string) {
	if b != nil && time.Since(b.often) >= BarInterval {
		b.often = time.Now()
		b.Show(line())
	}
}

// End leaves the last line in place, although it may have been skipped.
func (b *Bar) End() {
	b.finish(func() {
		if b.skipped != "" {
			_ = Control(b.w, eraseLine)
			b.line, b.skipped = b.skipped, ""
			b.draw()
		}
		fmt.Fprintln(b.w)
	})
}

// Erase removes the line.
func (b *Bar) Erase() { b.finish(func() { _ = Control(b.w, eraseLine) }) }

func (b *Bar) finish(write func()) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.line != "" {
		write()
		b.line = ""
	}
}

// draw writes the line, cut to the present width of the window: a line that wraps
// could not be erased.
func (b *Bar) draw() {
	fmt.Fprint(b.w, b.style.tint(cut(b.line, Width(b.w)-1)))
}

// Frame keeps a report of several lines at the end of a terminal. It is for one
// goroutine.
type Frame struct {
	w     io.Writer
	style Style
	lines int // shown
}

// NewFrame returns nil when w is no terminal.
func NewFrame(w io.Writer, s Style) *Frame {
	if !s.Live {
		return nil
	}
	return &Frame{w: w, style: s}
}

// Show replaces the report. It is cut to the window, since lines that wrapped or left
// the window could not be erased.
func (f *Frame) Show(report string) {
	width, height := size(f.w)
	lines := strings.Split(strings.TrimSuffix(report, "\n"), "\n")
	if most := max(height-1, 2); len(lines) > most { // the cursor is below the report
		more := len(lines) - most + 1
		lines = append(lines[:most-1], fmt.Sprintf("(%d more lines; make the window higher)", more))
	}
	for i, line := range lines {
		if runes := []rune(line); len(runes) >= width {
			lines[i] = string(runes[:width-1])
		}
	}
	if f.lines > 0 {
		_ = Control(f.w, fmt.Sprintf("\r\x1b[%dA\x1b[J", f.lines)) // a terminal that is gone gets nothing either
	}
	f.lines = len(lines)
	fmt.Fprint(f.w, f.style.Table(strings.Join(lines, "\n")+"\n"))
}

// Repeat calls show every interval until ctx ends.
func Repeat(ctx context.Context, every time.Duration, show func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			show()
		case <-ctx.Done():
			return
		}
	}
}

// cut shortens a line to so many characters. It leaves out a figure of which only
// a part fits, since that would read as another figure. It cuts a reason, which has
// a colon, anywhere.
func cut(line string, most int) string {
	runes := []rune(line)
	if len(runes) <= most {
		return line
	}
	head, rest := string(runes[:most]), string(runes[most:])
	figures := strings.IndexByte(head, ']') // the gauge has spaces of its own
	switch {
	case figures >= 0:
	case strings.HasPrefix(line, "["):
		return head
	default:
		figures = 0
	}
	last := strings.LastIndex(head[figures:], "  ")
	if last < 0 || strings.HasPrefix(rest, "  ") || strings.Contains(head[figures+last:], ":") {
		return head
	}
	return strings.TrimRight(head[:figures+last], " ")
}

// goodWords begin a line of progress when all is well.
var goodWords = []string{"running", "done"}

// tint colours a line of progress: the full part of [===  ], or else its first word.
func (s Style) tint(line string) string {
	if strings.HasPrefix(line, "[") {
		end := max(strings.LastIndexByte(line, '=')+1, 1)
		return line[:1] + s.Good(line[1:end]) + line[end:]
	}
	word, rest, found := strings.Cut(line, "  ")
	switch {
	case !found:
		return line
	case slices.Contains(goodWords, word):
		return s.Good(word) + "  " + rest
	}
	return s.Warn(word) + "  " + rest
}

// Gauge returns a bar for a percentage.
func Gauge(percent float64) string {
	full := int(percent / 100 * barWidth)
	return fmt.Sprintf("[%s%s] %5.1f%%", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), percent)
}

// Pace computes a rate from progress at several times.
type Pace struct {
	at   []time.Time // of the last rateOver, oldest first
	done []int64
}

// Note records progress at a time.
func (p *Pace) Note(at time.Time, done int64) {
	p.at, p.done = append(p.at, at), append(p.done, done)
	for len(p.at) > 2 && at.Sub(p.at[1]) >= rateOver {
		p.at, p.done = p.at[1:], p.done[1:]
	}
}

// Rate returns events per second; 0 before the second note.
func (p *Pace) Rate() float64 {
	last := len(p.at) - 1
	if last < 1 || p.at[last].Equal(p.at[0]) {
		return 0
	}
	return float64(p.done[last]-p.done[0]) / p.at[last].Sub(p.at[0]).Seconds()
}

// ETA returns how long the rest takes at this pace; 0 if unknown.
func (p *Pace) ETA(left int64) time.Duration {
	rate := p.Rate()
	if rate <= 0 {
		return 0
	}
	return time.Duration(float64(left) / rate * float64(time.Second)).Round(time.Second)
}
