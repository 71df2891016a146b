package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/operations"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
	"github.com/datafly/bridge/mapping"
)

// maxLine bounds one event on standard input, in bytes: as large as Kafka clients take.
const maxLine = 100 << 20

// mapFlags is the command line of bridge map.
type mapFlags struct {
	blueprint                string
	optional, explain, watch bool
	output                   *outputForm
}

func newMapCommand() *cobra.Command {
	var f mapFlags
	cmd := &cobra.Command{
		Use:   "map [FILE...]",
		Short: "Map events from files or standard input to rows on standard output",
		Long: `map reads one event per line and writes one row per line, as bridge run would map
it. Rejected and filtered events are reported on standard error with their line and
reason. The exit code is 1 if an event was rejected. map connects to nothing. It
uses the mapping settings of the configuration, but requires no key. A file may also
hold one event over several lines.

With --watch it maps the files again whenever one of them, the blueprint or the
configuration changes, until it is interrupted. Mistakes in the blueprint are shown
in place of the rows.`,
		Example: `  bridge map < events.ndjson > rows.ndjson
  bridge map --blueprint blueprint.yaml --explain < event.json
  bridge map --blueprint blueprint.yaml --explain --watch event.json
  bridge map --integration orders < events.ndjson
  kcat -C -t delivery-int_xyz789 -c 10 -e | bridge map --optional`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, files []string) error {
			if f.watch {
				return f.watchFiles(cmd, files)
			}
			m, err := compileOffline(cmd, f.blueprint, f.optional)
			if err != nil {
				return err
			}
			run := f.newRun(m, cmd.OutOrStdout())
			run.errs = cmd.ErrOrStderr()
			if len(files) == 0 {
				err = run.lines(&plaintext.Interruptible{Ctx: cmd.Context(), Reader: cmd.InOrStdin()})
			} else {
				err = run.samples(cmd.Context(), files)
			}
			if ferr := run.out.Flush(); err == nil && ferr != nil {
				err = fmt.Errorf("writing rows: %w", ferr)
			}
			if err == nil && run.rejected > 0 {
				next := "bridge map --explain"
				if f.explain {
					next = "bridge help blueprint"
				}
				err = &quietError{suggest(errors.New("events were rejected"), next)}
			}
			return err
		},
	}
	config.AddFlags(cmd.Flags(), "integration")
	addBlueprint(cmd, &f.blueprint)
	cmd.Flags().BoolVar(&f.optional, "optional", false, "fill optional columns too, as for a table that has them")
	cmd.Flags().BoolVar(&f.explain, "explain", false, "instead of the rows, show for each column its source, or why it is NULL")
	cmd.Flags().BoolVar(&f.watch, "watch", false, "map the files again whenever one of them or the blueprint changes; Ctrl-C ends it")
	f.output = addOutput(cmd)
	return cmd
}

func addBlueprint(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "blueprint", "", "blueprint file (mapping.blueprint)")
}

// compileOffline compiles the blueprint of the command line without a table.
func compileOffline(cmd *cobra.Command, blueprint string, optional bool) (*mapping.Mapping, error) {
	var sets []string
	if blueprint != "" {
		sets = []string{"mapping.blueprint=" + blueprint}
	}
	cfg, err := loadConfig(cmd, true, sets...)
	if err != nil {
		return nil, err
	}
	m, err := pipeline.CompileOffline(cfg, optional)
	if err != nil {
		return nil, &usageError{err}
	}
	return m, nil
}

func (f *mapFlags) newRun(m *mapping.Mapping, out io.Writer) *mapRun {
	return &mapRun{mapper: m.NewMapper(), out: bufio.NewWriter(out), explain: f.explain, json: f.output.json()}
}

// mapRun maps standard input or files. It implements mapping.Out.
type mapRun struct {
	mapper                   *mapping.Mapper
	out                      *bufio.Writer
	errs                     io.Writer
	explain, json            bool
	rows, rejected, filtered int

	file string // "" is standard input
	line int
	buf  []byte
	err  error // of writing a row
}

// samples maps the events of files.
func (r *mapRun) samples(ctx context.Context, files []string) error {
	for _, file := range files {
		in, err := plaintext.Await(ctx, func() (io.Reader, error) { return readSample(file) })
		if err != nil {
			return err
		}
		r.file, r.line = file, 0
		if err := r.lines(in); err != nil {
			return err
		}
	}
	return nil
}

// readSample reads a file of one event per line, or of one event over several.
func readSample(file string) (io.Reader, error) {
	if info, err := plaintext.Stat(file); err == nil && info.Size() > maxLine {
		return nil, fmt.Errorf("%s is larger than %d MiB; pass it as standard input", file, maxLine>>20)
	}
	data, err := plaintext.ReadInput(file, maxLine)
	if err != nil {
		return nil, &usageError{fmt.Errorf("reading events: %w; name a file of one event per line", err)}
	}
	var one bytes.Buffer
	if json.Compact(&one, data) == nil {
		return &one, nil
	}
	return bytes.NewReader(data), nil
}

func (r *mapRun) lines(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		r.line++
		if len(lines.Bytes()) == 0 {
			continue
		}
		rec := &mapping.Record{Topic: "stdin", Offset: int64(r.line - 1), Timestamp: time.Now(), Value: lines.Bytes()}
		if r.explain {
			r.explainRecord(rec)
		} else {
			r.mapper.Map(rec, r)
		}
		if r.err != nil {
			return fmt.Errorf("writing rows: %w", r.err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading line %d of %s: %w; give one event per line, at most %d MiB", r.line+1, cmp.Or(r.file, "standard input"), err, maxLine>>20)
	}
	return nil
}

// position names the event that is being mapped.
func (r *mapRun) position() string {
	if r.file == "" {
		return fmt.Sprintf("line %d", r.line)
	}
	return fmt.Sprintf("%s:%d", plaintext.VisibleLine(r.file), r.line)
}

// Buf returns the reused row buffer.
func (r *mapRun) Buf() []byte { return r.buf[:0] }

// Row writes one row.
func (r *mapRun) Row(extended []byte) {
	r.buf = extended
	r.rows++
	if _, err := r.out.Write(append(extended, '\n')); err != nil {
		r.err = err
	}
}

// Reject reports an event that cannot become a row.
func (r *mapRun) Reject(code, column, reason string) {
	r.rejected++
	if column != "" {
		code += ", column " + column
	}
	fmt.Fprintf(r.errs, "%s: rejected (%s): %s\n", r.position(), plaintext.VisibleLine(code), plaintext.VisibleLine(reason))
}

// Filter reports an event that is left out.
func (r *mapRun) Filter(reason string) {
	r.filtered++
	fmt.Fprintf(r.errs, "%s: filtered (%s)\n", r.position(), reason)
}

// explainRecord writes the source of each column of one record.
func (r *mapRun) explainRecord(rec *mapping.Record) {
	for _, e := range r.mapper.Explain(rec) {
		switch e.Outcome {
		case "reject":
			r.rejected++
		case "filter":
			r.filtered++
		default:
			r.rows++
		}
		var err error
		if r.json {
			err = json.NewEncoder(r.out).Encode(e)
		} else {
			var b strings.Builder
			operations.WriteExplained(&b, r.position(), e)
			_, err = r.out.WriteString(b.String())
		}
		r.err = cmp.Or(r.err, err)
	}
}

// watchEvery is how often --watch looks at the files' times. That costs next to
// nothing and works on every file system.
const watchEvery = 250 * time.Millisecond

// clearScreen moves the cursor home and clears the terminal and its scrollback.
const clearScreen = "\x1b[H\x1b[2J\x1b[3J"

// mapWatch maps sample events again whenever a file changes.
type mapWatch struct {
	mapFlags
	samples []string
	out     io.Writer
	look    terminal.Style
	compile func() (*mapping.Mapping, error)
	files   func() []string // the files to watch
}

func (f *mapFlags) watchFiles(cmd *cobra.Command, samples []string) error {
	if len(samples) == 0 {
		return &usageError{errors.New("--watch needs files of events to map again; standard input can be read only once")}
	}
	w := mapWatch{mapFlags: *f, samples: samples, out: cmd.OutOrStdout(), look: styleOf(cmd, cmd.OutOrStdout())}
	w.compile = func() (*mapping.Mapping, error) { return compileOffline(cmd, f.blueprint, f.optional) }
	w.files = func() []string {
		blueprint := f.blueprint
		if cfg, err := loadConfig(cmd, true); blueprint == "" && err == nil {
			blueprint = cfg.Mapping.Blueprint
		}
		file := config.FromFlags(cmd.Flags(), os.Environ()).File
		return append([]string{cmp.Or(file, config.DefaultFile), blueprint}, samples...)
	}
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	return w.run(cmd.Context(), ticker.C)
}

// run maps at once, and after each tick at which a file has changed, until ctx ends.
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
			for i, now := range stamps(files) {
				if now != seen[i] {
					changed = files[i]
				}
			}
		}
		files = w.files() // the configuration may name another blueprint now
		seen = stamps(files)
	}
}

// stamp identifies one state of a file; zero for a file that cannot be read.
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

// show maps all samples and writes the results in one piece, so that a terminal
// does not flicker.
func (w *mapWatch) show(ctx context.Context, changed string) error {
	var b bytes.Buffer
	if changed != "" && !w.look.Live {
		fmt.Fprintf(&b, "--- %s has changed\n", plaintext.VisibleLine(changed))
	}
	w.render(ctx, &b)
	if !w.look.Live {
		_, err := w.out.Write(b.Bytes())
		return err
	}
	text := b.Bytes()
	if out, ok := w.out.(*terminal.Screen); ok {
		text = out.Visible(text)
	}
	return terminal.Control(w.out, clearScreen+string(text))
}

func (w *mapWatch) render(ctx context.Context, b *bytes.Buffer) {
	m, err := w.compile()
	if err == nil {
		run := w.newRun(m, b)
		run.errs = run.out // keeps the order of the events
		err = run.samples(ctx, w.samples)
		if err = errors.Join(err, run.out.Flush()); err == nil {
			result, paint := fmt.Sprintf("%d rows, %d rejected, %d filtered", run.rows, run.rejected, run.filtered), w.look.Good
			if run.rejected > 0 {
				paint = w.look.Bad
			}
			fmt.Fprintln(b, paint(result)+"; Ctrl-C ends the watch")
			return
		}
	}
	fmt.Fprintln(b, w.look.Bad(strings.TrimSpace(listed(err))))
}
