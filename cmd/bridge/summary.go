package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/datafly/bridge/internal/ops"
)

// summaryInterval is the pace of the line that `bridge run` keeps on a terminal.
const summaryInterval = 500 * time.Millisecond

// summary keeps one line below the log: what the bridge is doing.
type summary struct {
	screen *bar // nil without a terminal: then nothing is shown
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// begin shows the line until end, or until ctx ends and the drain is over.
func (s *summary) begin(ctx context.Context, look ops.Source) {
	if s.screen == nil {
		return
	}
	// The line tells of the drain, too, which begins when ctx ends.
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.done.Go(func() {
		var pc pace
		tick := time.NewTicker(summaryInterval)
		defer tick.Stop()
		for {
			snapshot := look()
			pc.note(time.Now(), snapshot.Totals.EventsRead)
			s.screen.show(summaryLine(snapshot, pc.rate()))
			select {
			case <-tick.C:
			case <-ctx.Done():
				s.screen.end()
				return
			}
		}
	})
}

// end waits until the line stands still.
func (s *summary) end() {
	if s.stop != nil {
		s.stop()
		s.done.Wait()
	}
}

// maxCodes is how many reasons the line names.
const maxCodes = 2

// summaryLine puts first what matters most: a narrow window cuts the rest.
func summaryLine(s ops.Snapshot, rate float64) string {
	word := s.State
	if len(s.NotReady) > 0 && s.State == ops.StateRunning {
		word = strings.Join(reasonCodes(s)[:min(len(s.NotReady), maxCodes)], ", ")
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
		oldest = max(oldest, p.OldestUnacked)
	}
	behind := fmt.Sprint(lag)
	switch {
	case unknown && lag == 0:
		behind = "-"
	case unknown:
		behind += "+"
	}
	line := fmt.Sprintf("%s  %.0f events/s  lag %s  sink %s", word, rate, behind, s.Sink.State)
	if oldest >= time.Second {
		line += "  oldest " + oldest.Round(time.Second).String()
	}
	if s.BufferedLimit > 0 {
		line += fmt.Sprintf("  buffer %d%%", s.BufferedBytes*100/s.BufferedLimit)
	}
	return line + fmt.Sprintf("  partitions %d", len(s.Partitions))
}
