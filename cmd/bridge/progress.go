package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/terminal"
)

const (
	summaryInterval  = 500 * time.Millisecond
	progressInterval = 10 * time.Second // between log lines
)

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
func progressLine(p consumer.Progress, pc *terminal.Pace) string {
	eta := "-"
	if d := pc.ETA(p.Total - p.Done); d > 0 {
		eta = d.String()
	}
	return fmt.Sprintf("%s  %.0f events/s  ETA %s  lag %d", terminal.Gauge(percent(p)), pc.Rate(), eta, p.Total-p.Done)
}

// follow shows the progress of a bounded run until ctx ends: with a bar, or in log
// lines where there is no terminal.
func follow(ctx context.Context, progress func() consumer.Progress, screen *terminal.Bar, log *zap.Logger) {
	var pc terminal.Pace
	every := progressInterval
	show := func() {
		p := progress()
		pc.Note(time.Now(), p.Done)
		if screen != nil {
			screen.Show(progressLine(p, &pc))
			return
		}
		log.Info("bounded run: progress", zap.String("percent", fmt.Sprintf("%.1f", percent(p))), zap.Int64("events", p.Done), zap.Int64("lag", p.Total-p.Done),
			zap.Int("events_per_second", int(pc.Rate())), zap.Duration("eta", pc.ETA(p.Total-p.Done)), zap.Int("partitions", p.Partitions), zap.Int("reached", p.Reached))
	}
	pc.Note(time.Now(), progress().Done)
	if screen != nil {
		every = terminal.BarInterval
		defer screen.End()
		defer show()
	}
	terminal.Repeat(ctx, every, show)
}

// summary keeps one line below the log of bridge run: its state.
type summary struct {
	screen *terminal.Bar
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
		defer s.screen.End()
		var pc terminal.Pace
		show := func() {
			snapshot := look()
			pc.Note(time.Now(), snapshot.Totals.EventsRead)
			s.screen.Show(summaryLine(snapshot, pc.Rate()))
		}
		show()
		terminal.Repeat(ctx, summaryInterval, show)
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
func summaryLine(s ops.Status, rate float64) string {
	state := s.State
	if len(s.NotReady) > 0 && s.State == ops.StateRunning {
		state = strings.Join(reasonCodes(s)[:min(len(s.NotReady), maxCodes)], ", ")
	}
	var lag int64
	var oldest time.Duration
	known, ready, partitions := len(s.Integrations) > 0, 0, 0
	for _, i := range s.Integrations {
		events, all := i.Lag()
		lag += events
		known = known && all
		oldest = max(oldest, i.Oldest())
		partitions += len(i.Partitions)
		if i.Ready {
			ready++
		}
	}
	behind := fmt.Sprint(lag)
	switch {
	case !known && lag == 0:
		behind = "-"
	case !known:
		behind += "+"
	}
	line := fmt.Sprintf("%s  %.0f events/s  lag %s", state, rate, behind)
	if len(s.Integrations) == 1 {
		line += "  sink " + s.Integrations[0].Sink.Name
	} else {
		line += fmt.Sprintf("  %d of %d integrations ready", ready, len(s.Integrations))
	}
	if oldest >= time.Second {
		line += "  oldest " + oldest.Round(time.Second).String()
	}
	if s.BufferedLimit > 0 {
		line += fmt.Sprintf("  buffer %d%%", s.BufferedBytes*100/s.BufferedLimit)
	}
	return line + fmt.Sprintf("  partitions %d", partitions)
}
