package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/terminal"
)

// watchInterval is the time between two answers.
const watchInterval = time.Second

// statusWatch shows the state again and again. On a terminal each answer replaces the
// one before; elsewhere each is a few lines, or one line of JSON.
type statusWatch struct {
	ask  func(context.Context) (statusAnswer, error)
	out  io.Writer
	errs io.Writer // for answers that did not come
	json bool
	look terminal.Style
}

// run shows an answer at once and one for each tick, until ctx ends. The error is that
// of the first answer; later ones are shown, since the bridge may be restarting.
func (w *statusWatch) run(ctx context.Context, ticks <-chan time.Time) error {
	last, err := w.ask(ctx)
	if err != nil {
		return err
	}
	var frame *terminal.Frame
	if !w.json {
		frame = terminal.NewFrame(w.out, w.look)
	}
	before, missing := last.status, ""
	for {
		if missing != "" && frame == nil {
			fmt.Fprintln(w.errs, missing)
		} else if err := w.show(frame, last, before, missing); err != nil {
			return err
		}
		select {
		case <-ticks:
		case <-ctx.Done():
			return nil
		}
		answer, err := w.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // that is how a watch ends
		case err != nil:
			missing = "no answer: " + err.Error()
		default:
			before, last, missing = last.status, answer, ""
		}
	}
}

func (w *statusWatch) show(frame *terminal.Frame, a statusAnswer, before ops.Status, missing string) error {
	switch {
	case w.json:
		var line bytes.Buffer
		if err := json.Compact(&line, a.body); err != nil {
			return fmt.Errorf("writing the answer as one line: %w", err)
		}
		return printText(w.out, line.String()+"\n")
	case frame == nil && len(a.status.Integrations) > 0:
		var b strings.Builder
		a.status.WriteLines(&b, before)
		return printText(w.out, b.String())
	case len(a.status.Integrations) > 0:
		var b strings.Builder
		if err := a.status.WriteSince(&b, before); err != nil {
			return err
		}
		a.text = b.String()
	}
	if missing != "" {
		a.text = missing + "\n" + a.text
	}
	if frame == nil {
		return printText(w.out, a.text+"\n")
	}
	frame.Show(a.text)
	return nil
}
