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
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/mapping"
)

// maxLine bounds one event on standard input: as large as Kafka clients take.
const maxLine = 100 << 20

func newMapCommand() *cobra.Command {
	var explain, optional, watch bool
	var blueprint string
	output := outputText
	cmd := &cobra.Command{
		Use:   "map [FILE...]",
		Short: "Map events from files or standard input to rows on standard output",
		Long: `map reads one event per line and writes one row per line, as bridge run would make
them. Rejected and filtered events are told on standard error with their line
and reason; the exit code is 1 if any event was rejected. It connects to
nothing. Mapping settings come from the configuration like those of bridge run,
but no key is required. A file may also hold one event over several lines.

--watch maps the files again whenever one of them, the blueprint or the
configuration changes, until it is interrupted; what is wrong with the blueprint
stands in the place of the rows.`,
		Example: `  bridge map < events.ndjson > rows.ndjson
  bridge map --blueprint blueprint.yaml --explain < event.json
  bridge map --blueprint blueprint.yaml --explain --watch event.json
  kcat -C -t delivery-int_xyz789 -c 10 -e | bridge map --optional`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, files []string) error {
			if watch {
				return watchMap(cmd, mapWatch{blueprint: blueprint, optional: optional, explain: explain, form: output, samples: files})
			}
			m, err := compileOffline(cmd, blueprint, optional)
			if err != nil {
				return err
			}
			run := &mapRun{mapping: m, mapper: m.NewMapper(), out: bufio.NewWriter(cmd.OutOrStdout()), errs: cmd.ErrOrStderr(), explain: explain, form: output}
			if len(files) == 0 {
				err = run.lines(&interruptible{ctx: cmd.Context(), r: cmd.InOrStdin()})
			} else {
				err = run.samples(cmd.Context(), files)
			}
			if ferr := run.out.Flush(); err == nil && ferr != nil {
				err = fmt.Errorf("writing rows: %w", ferr)
			}
			if err == nil && run.rejected > 0 {
				next := "bridge help blueprint"
				if !explain {
					next = "bridge map --explain"
				}
				err = &quietError{advise(errors.New("events were rejected"), next)}
			}
			return err
		},
	}
	config.AddFlags(cmd.Flags())
	cmd.Flags().StringVar(&blueprint, "blueprint", "", "blueprint file (mapping.blueprint)")
	cmd.Flags().BoolVar(&optional, "optional", false, "fill optional columns too, as for a table that has them")
	cmd.Flags().BoolVar(&explain, "explain", false, "show for each column which source fed it, or why it is NULL, in place of the rows")
	cmd.Flags().BoolVar(&watch, "watch", false, "map the files again whenever one of them or the blueprint changes; Ctrl-C ends it")
	addOutput(cmd, &output)
	return cmd
}

// compileOffline compiles the blueprint the command line asks for without a
// table.
func compileOffline(cmd *cobra.Command, blueprint string, optional bool) (*mapping.Mapping, error) {
	o := config.FromFlags(cmd.Flags(), os.Environ())
	o.Partial = true
	if blueprint != "" {
		o.Sets = append(o.Sets, "mapping.blueprint="+blueprint)
	}
	cfg, err := config.Load(o)
	if err != nil {
		return nil, &usageError{err}
	}
	bp, _, err := pipeline.ReadBlueprint(cfg.Mapping.Blueprint)
	if err != nil {
		return nil, &usageError{err}
	}
	opts := pipeline.MappingOptions(cfg)
	opts.AllOptional = optional
	m, err := bp.Compile(opts)
	if err != nil {
		return nil, &usageError{err}
	}
	return m, nil
}

// mapRun is one run over standard input or files.
type mapRun struct {
	mapping  *mapping.Mapping
	mapper   *mapping.Mapper
	out      *bufio.Writer
	errs     io.Writer
	explain  bool
	form     outputForm
	rows     int
	rejected int
	filtered int

	file string // "" is standard input
	line int
	buf  []byte
	werr error
}

// where names the event that is being mapped.
func (r *mapRun) where() string {
	if r.file == "" {
		return fmt.Sprintf("line %d", r.line)
	}
	return fmt.Sprintf("%s:%d", plaintext.VisibleLine(r.file), r.line)
}

// samples maps the events of files.
func (r *mapRun) samples(ctx context.Context, files []string) error {
	for _, file := range files {
		in, err := awaited(ctx, func() (io.Reader, error) { return readSample(file) })
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
	info, err := plaintext.Stat(file)
	if err == nil && info.Size() > maxLine {
		return nil, fmt.Errorf("%s is larger than %d MiB; hand it in as standard input", file, maxLine>>20)
	}
	data, err := plaintext.ReadInput(file, maxLine)
	if err != nil {
		return nil, &usageError{fmt.Errorf("reading events: %w; name a file of one event per line", err)}
	}
	if !json.Valid(data) {
		return bytes.NewReader(data), nil
	}
	var one bytes.Buffer
	if err := json.Compact(&one, data); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return &one, nil
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
			r.explainOne(rec)
		} else {
			r.mapper.Map(rec, r)
		}
		if r.werr != nil {
			return fmt.Errorf("writing rows: %w", r.werr)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading line %d of %s: %w; give one event per line, at most %d MiB", r.line+1, cmp.Or(r.file, "standard input"), err, maxLine>>20)
	}
	return nil
}

// Buf, Row, Reject and Filter make a mapRun the mapping's Out.

// Buf returns the reused row buffer.
func (r *mapRun) Buf() []byte { return r.buf[:0] }

// Row writes one row.
func (r *mapRun) Row(extended []byte) {
	r.buf = extended
	r.rows++
	if _, err := r.out.Write(append(extended, '\n')); err != nil {
		r.werr = err
	}
}

// Reject tells why an event is no row.
func (r *mapRun) Reject(code, column, reason string) {
	r.rejected++
	if column != "" {
		code += ", column " + column
	}
	fmt.Fprintf(r.errs, "%s: rejected (%s): %s\n", r.where(), plaintext.VisibleLine(code), plaintext.VisibleLine(reason))
}

// Filter tells that an event is left out.
func (r *mapRun) Filter(reason string) {
	r.filtered++
	fmt.Fprintf(r.errs, "%s: filtered (%s)\n", r.where(), reason)
}

// explainOne shows where each column of one record came from.
func (r *mapRun) explainOne(rec *mapping.Record) {
	for _, e := range r.mapper.Explain(rec) {
		switch e.Outcome {
		case "reject":
			r.rejected++
		case "filter":
			r.filtered++
		default:
			r.rows++
		}
		if r.form == outputJSON {
			if err := json.NewEncoder(r.out).Encode(e); err != nil {
				r.werr = err
			}
			continue
		}
		r.explainText(e)
	}
}

func (r *mapRun) explainText(e mapping.Explained) {
	if err := writeExplained(r.out, r.where(), e); err != nil {
		r.werr = err
	}
}

// writeExplained shows what became of one event, for people.
func writeExplained(w io.Writer, title string, e mapping.Explained) error {
	said := e.Outcome
	for _, part := range []string{e.Code, e.Reason} {
		if part != "" {
			said += ", " + part
		}
	}
	if e.Section != "" {
		said += ", section " + e.Section
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "%s: %s\n", title, plaintext.VisibleLine(said))
	for _, c := range e.Columns {
		switch {
		case c.Value == "":
			fmt.Fprintf(tw, "  %s\t%s\tNULL\t%s\n", c.Name, c.Type, plaintext.VisibleLine(c.Why))
		default:
			fmt.Fprintf(tw, "  %s\t%s\t%s\tfrom %s\n", c.Name, c.Type, plaintext.VisibleLine(c.Value), plaintext.VisibleLine(c.Source))
		}
	}
	return tw.Flush()
}
