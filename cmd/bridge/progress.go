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
)

const (
	barInterval      = 200 * time.Millisecond
	progressInterval = 10 * time.Second // between log lines
	barWidth         = 20
	rateOver         = 10 * time.Second // what the rate is an average of
)

// bar keeps one line of progress below everything else that goes to a
// terminal, which is written through it. It moves the cursor no further than to
// the line's beginning.
type bar struct {
	w     io.Writer
	style style

	mu   sync.Mutex // guards line and the terminal
	line string     // what is shown, without colours
}

// newBar returns nil when w is no terminal.
func newBar(w io.Writer, s style) *bar {
	if !s.live {
		return nil
	}
	return &bar{w: w, style: s}
}

// eraseLine goes to the line's beginning and clears it.
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
	fmt.Fprint(b.w, b.drawn())
	return n, err
}

func (b *bar) show(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if queue, ok := bare(b.w).(interface{ Busy() bool }); ok && queue.Busy() {
		return // a terminal that stands still is not to get all the lines it missed
	}
	if b.line != "" {
		_ = control(b.w, eraseLine) // a terminal that is gone gets no line either
	}
	b.line = line
	fmt.Fprint(b.w, b.drawn())
}

// end leaves the last line standing.
func (b *bar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.line != "" {
		fmt.Fprintln(b.w)
		b.line = ""
	}
}

// erase takes the line away.
func (b *bar) erase() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.line != "" {
		_ = control(b.w, eraseLine)
		b.line = ""
	}
}

// drawn is the line as the terminal gets it: a line that wraps could not be
// erased, so it is cut to the window's width of this moment.
func (b *bar) drawn() string {
	line := b.line
	return b.style.tint(cut(line, terminalWidth(b.w)-1))
}

// cut shortens a line to so many characters. A figure of which only a part fits
// is left out, since it would be read as another one; a reason, which has a colon
// in it, is cut where it is.
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

// tint colours a line of progress: the full part of [===  ], or else the word
// it begins with.
func (s style) tint(line string) string {
	if strings.HasPrefix(line, "[") {
		end := strings.LastIndexByte(line, '=') + 1
		return line[:1] + s.good(line[1:max(end, 1)]) + line[max(end, 1):]
	}
	word, rest, _ := strings.Cut(line, "  ")
	if word == line {
		return line
	}
	if slices.Contains(goodWords, word) {
		return s.good(word) + "  " + rest
	}
	return s.warn(word) + "  " + rest
}

// gauge is the picture of a part of 100.
func gauge(percent float64) string {
	full := int(percent / 100 * barWidth)
	return fmt.Sprintf("[%s%s] %5.1f%%", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), percent)
}

// pace turns progress at moments into a rate.
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

// rate returns events per second; 0 before two moments are known.
func (p *pace) rate() float64 {
	last := len(p.at) - 1
	if last < 1 || p.at[last].Equal(p.at[0]) {
		return 0
	}
	return float64(p.done[last]-p.done[0]) / p.at[last].Sub(p.at[0]).Seconds()
}

// eta returns how long the rest takes at this pace; 0 unknown.
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

// follow tells the progress of a bounded run until ctx ends: by a bar, or by log
// lines where there is no terminal.
func follow(ctx context.Context, ends *consumer.StopOffsets, screen *bar, log *zap.Logger) {
	interval := progressInterval
	var pc pace
	tell := func() {
		p := ends.Progress()
		pc.note(time.Now(), p.Done)
		if screen != nil {
			screen.show(progressLine(p, &pc))
			return
		}
		log.Info("bounded run: progress", zap.String("percent", fmt.Sprintf("%.1f", percent(p))), zap.Int64("events", p.Done), zap.Int64("lag", p.Total-p.Done),
			zap.Int("events_per_second", int(pc.rate())), zap.Duration("eta", pc.eta(p.Total-p.Done)), zap.Int("partitions", p.Partitions), zap.Int("reached", p.Reached))
	}
	pc.note(time.Now(), ends.Progress().Done)
	if screen != nil {
		interval = barInterval
		defer screen.end()
		defer tell()
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			tell()
		case <-ctx.Done():
			return
		}
	}
}
