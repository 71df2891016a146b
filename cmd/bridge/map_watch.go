package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
)

// watchEvery is how often the files of map --watch are looked at. Asking for
// their times costs next to nothing, and works on every file system.
const watchEvery = 250 * time.Millisecond

// clearScreen puts the cursor home and takes away what is shown and what has
// been scrolled.
const clearScreen = "\x1b[H\x1b[2J\x1b[3J"

// mapWatch maps sample events again whenever a file changes.
type mapWatch struct {
	blueprint         string
	optional, explain bool
	form              outputForm
	samples           []string

	out     io.Writer
	look    style
	compile func() (*mapping.Mapping, error)
	files   func() []string // that a change of is waited for
}

func watchMap(cmd *cobra.Command, w mapWatch) error {
	if len(w.samples) == 0 {
		return &usageError{errors.New("--watch needs files of events to map again; standard input can be read only once")}
	}
	w.out = cmd.OutOrStdout()
	w.look = styleOf(cmd, w.out)
	w.compile = func() (*mapping.Mapping, error) { return compileOffline(cmd, w.blueprint, w.optional) }
	w.files = func() []string {
		o := config.FromFlags(cmd.Flags(), os.Environ())
		o.Partial = true
		files := append([]string{config.DefaultFile}, w.samples...)
		if o.File != "" {
			files[0] = o.File
		}
		if cfg, err := config.Load(o); w.blueprint == "" && err == nil {
			return append(files, cfg.Mapping.Blueprint)
		}
		return append(files, w.blueprint)
	}
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	return w.run(cmd.Context(), ticker.C)
}

// run maps at once, and after each tick at which a file has changed, until ctx
// ends.
func (w *mapWatch) run(ctx context.Context, ticks <-chan time.Time) error {
	files := w.files()
	seen := stamps(files)
	changed := ""
	for {
		if err := w.show(ctx, changed); err != nil {
			return fmt.Errorf("writing rows: %w", err)
		}
		for changed = ""; changed == ""; {
			select {
			case <-ctx.Done():
				return nil // that is how a watch ends
			case <-ticks:
			}
			now := stamps(files)
			for i := range files {
				if now[i] != seen[i] {
					changed = files[i]
				}
			}
		}
		files = w.files() // the configuration may name another blueprint now
		seen = stamps(files)
	}
}

// stamp tells one state of a file from another; the zero value is a file that
// cannot be seen.
type stamp struct {
	size int64
	at   time.Time
}

func stamps(files []string) []stamp {
	out := make([]stamp, len(files))
	for i, file := range files {
		if info, err := plaintext.Stat(file); err == nil {
			out[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	return out
}

// show maps all samples and writes what came of them in one piece.
func (w *mapWatch) show(ctx context.Context, changed string) error {
	var b bytes.Buffer
	switch {
	case w.look.live:
		w.render(ctx, &b)
		text := b.Bytes()
		if out, ok := w.out.(*screen); ok {
			text = out.visible(text)
		}
		_, err := bare(w.out).Write(append([]byte(clearScreen), text...)) // one piece, so that it does not flicker
		return err
	case changed != "":
		fmt.Fprintf(&b, "--- %s has changed\n", plaintext.VisibleLine(changed))
	}
	w.render(ctx, &b)
	_, err := w.out.Write(b.Bytes())
	return err
}

func (w *mapWatch) render(ctx context.Context, b *bytes.Buffer) {
	wrong := func(err error) { fmt.Fprintln(b, w.look.bad(strings.TrimSpace(listed(err)))) }
	m, err := w.compile()
	if err != nil {
		wrong(err)
		return
	}
	run := &mapRun{mapping: m, mapper: m.NewMapper(), out: bufio.NewWriter(b), explain: w.explain, form: w.form}
	run.errs = run.out // so that all stands in the order of the events
	err = run.samples(ctx, w.samples)
	if err = errors.Join(err, run.out.Flush()); err != nil {
		wrong(err)
		return
	}
	said := fmt.Sprintf("%d rows, %d rejected, %d filtered", run.rows, run.rejected, run.filtered)
	if run.rejected > 0 {
		said = w.look.bad(said)
	} else {
		said = w.look.good(said)
	}
	fmt.Fprintln(b, said+"; Ctrl-C ends the watch")
}
