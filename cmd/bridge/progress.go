package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
)

const (
	barInterval      = 200 * time.Millisecond
	summaryInterval  = 500 * time.Millisecond
	progressInterval = 10 * time.Second // between log lines
	barWidth         = 20
	rateOver         = 10 * time.Second // a rate is the average of so long
)

// bar keeps one line of progress below everything else that goes to a terminal,
// which must be written through it. Nil is a bar without a terminal: it shows
// nothing.
type bar struct {
	w     io.Writer
	style style

	mu    sync.Mutex // guards line, the fields below and the terminal
	line  string     // as shown, without colours
	drawn time.Time
}

// newBar returns nil when w is no terminal.
func newBar(w io.Writer, s style) *bar {
	if !s.live {
		return nil
	}
	return &bar{w: w, style: s}
}

// above returns where to write what stays above the bar: the bar itself, or w
// without one.
func (b *bar) above(w io.Writer) io.Writer {
	if b == nil {
		return w
	}
	return b
}

// eraseLine moves the cursor to the line's beginning and clears the line.
const eraseLine = "\r\x1b[2K"

// Write puts whole lines above the bar.
func (b *bar) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.line == "" {
		return b.w.Write(p)
	}
	if err := control(b.w, eraseLine); err != nil {
		return 0, err
	}
	n, err := b.w.Write(p)
	b.draw()
	return n, err
}

// show replaces the line.
func (b *bar) show(line string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if queue, ok := bare(b.w).(interface{ Busy() bool }); ok && queue.Busy() {
		return // a suspended terminal should not get every line it missed
	}
	if b.line != "" {
		_ = control(b.w, eraseLine) // a terminal that is gone gets no line either
	}
	b.line = line
	b.draw()
}

// showOften is show for a caller in a loop: it draws once per barInterval.
func (b *bar) showOften(line func() string) {
	if b != nil && time.Since(b.drawn) >= barInterval {
		b.drawn = time.Now()
		b.show(line())
	}
}

// end leaves the last line in place.
func (b *bar) end() { b.finish(func() { fmt.Fprintln(b.w) }) }

// erase removes the line.
func (b *bar) erase() { b.finish(func() { _ = control(b.w, eraseLine) }) }

func (b *bar) finish(write func()) {
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
func (b *bar) draw() {
	fmt.Fprint(b.w, b.style.tint(cut(b.line, terminalWidth(b.w)-1)))
}

// repeat calls show at once, then every interval, and once more when ctx ends.
func repeat(ctx context.Context, every time.Duration, show func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		show()
		select {
		case <-tick.C:
		case <-ctx.Done():
			show()
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
func (s style) tint(line string) string {
	if strings.HasPrefix(line, "[") {
		end := max(strings.LastIndexByte(line, '=')+1, 1)
		return line[:1] + s.good(line[1:end]) + line[end:]
	}
	word, rest, found := strings.Cut(line, "  ")
	switch {
	case !found:
		return line
	case slices.Contains(goodWords, word):
		return s.good(word) + "  " + rest
	}
	return s.warn(word) + "  " + rest
}

// gauge is a bar for a percentage.
func gauge(percent float64) string {
	full := int(percent / 100 * barWidth)
	return fmt.Sprintf("[%s%s] %5.1f%%", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), percent)
}

// pace computes a rate from progress at several times.
type pace struct {
	at   []time.Time // of the last rateOver, oldest first
	done []int64
}

func (p *pace) note(at time.Time, done int64) {
	p.at, p.done = append(p.at, at), append(p.done, done)
	for len(p.at) > 2 && at.Sub(p.at[1]) >= rateOver {
		p.at, p.done = p.at[1:], p.done[1:]
	}
}

// rate returns events per second; 0 before the second note.
func (p *pace) rate() float64 {
	last := len(p.at) - 1
	if last < 1 || p.at[last].Equal(p.at[0]) {
		return 0
	}
	return float64(p.done[last]-p.done[0]) / p.at[last].Sub(p.at[0]).Seconds()
}

// eta returns how long the rest takes at this pace; 0 if unknown.
func (p *pace) eta(left int64) time.Duration {
	rate := p.rate()
	if rate <= 0 {
		return 0
	}
	return time.Duration(float64(left) / rate * float64(time.Second)).Round(time.Second)
}

// percent is 100 only when every partition has reached its end.
func percent(p consumer.Progress) float64 {
	switch {
	case p.Reached == p.Partitions:
		return 100
	case p.Total == 0:
		return 0
	}
	return min(float64(p.Done)*100/float64(p.Total), 99.9)
}

// progressLine is one line of at most 80 columns for a terminal.
func progressLine(p consumer.Progress, pc *pace) string {
	eta := "-"
	if d := pc.eta(p.Total - p.Done); d > 0 {
		eta = d.String()
	}
	return fmt.Sprintf("%s  %.0f events/s  ETA %s  lag %d", gauge(percent(p)), pc.rate(), eta, p.Total-p.Done)
}

// follow shows the progress of a bounded run until ctx ends: with a bar, or in log
// lines where there is no terminal.
func follow(ctx context.Context, progress func() consumer.Progress, screen *bar, log *zap.Logger) {
	var pc pace
	if screen != nil {
		defer screen.end()
		repeat(ctx, barInterval, func() {
			p := progress()
			pc.note(time.Now(), p.Done)
			screen.show(progressLine(p, &pc))
		})
		return
	}
	repeat(ctx, progressInterval, func() {
		p := progress()
		if pc.note(time.Now(), p.Done); len(pc.at) > 1 && ctx.Err() == nil {
			log.Info("bounded run: progress", zap.String("percent", fmt.Sprintf("%.1f", percent(p))), zap.Int64("events", p.Done), zap.Int64("lag", p.Total-p.Done),
				zap.Int("events_per_second", int(pc.rate())), zap.Duration("eta", pc.eta(p.Total-p.Done)), zap.Int("partitions", p.Partitions), zap.Int("reached", p.Reached))
		}
	})
}

// summary keeps one line below the log of bridge run: its state.
type summary struct {
	screen *bar
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// begin shows the line until end; nil screens show nothing.
func (s *summary) begin(ctx context.Context, look ops.Source) {
	if s.screen == nil {
		return
	}
	// The line shows the drain too, which begins when ctx ends.
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.done.Go(func() {
		defer s.screen.end()
		var pc pace
		repeat(ctx, summaryInterval, func() {
			snapshot := look()
			pc.note(time.Now(), snapshot.Totals.EventsRead)
			s.screen.show(summaryLine(snapshot, pc.rate()))
		})
	})
}

// end waits until the line is no longer drawn.
func (s *summary) end() {
	if s.stop != nil {
		s.stop()
		s.done.Wait()
	}
}

// maxCodes is how many reasons the line names.
const maxCodes = 2

// summaryLine begins with what matters most, since a narrow window cuts the rest.
func summaryLine(s ops.Snapshot, rate float64) string {
	state := s.State
	if len(s.NotReady) > 0 && s.State == ops.StateRunning {
		state = strings.Join(reasonCodes(s)[:min(len(s.NotReady), maxCodes)], ", ")
	}
	var lag int64
	var oldest time.Duration
	unknown := len(s.Partitions) == 0
	for _, p := range s.Partitions {
		if p.Lag < 0 {
			unknown = true
			continue
		}
		lag += p.Lag
		oldest = max(oldest, time.Duration(p.Oldest))
	}
	behind := fmt.Sprint(lag)
	switch {
	case unknown && lag == 0:
		behind = "-"
	case unknown:
		behind += "+"
	}
	line := fmt.Sprintf("%s  %.0f events/s  lag %s  sink %s", state, rate, behind, s.Sink.Name)
	if oldest >= time.Second {
		line += "  oldest " + oldest.Round(time.Second).String()
	}
	if s.BufferedLimit > 0 {
		line += fmt.Sprintf("  buffer %d%%", s.BufferedBytes*100/s.BufferedLimit)
	}
	return line + fmt.Sprintf("  partitions %d", len(s.Partitions))
}
