package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write man pages for the commands and the help topics",
		Long: `man writes man pages into DIR/man1 for the commands and DIR/man7 for the help
topics. DIR is made if it is missing; pages that are there already are replaced.
SOURCE_DATE_EPOCH, if set, dates the pages, so that the same build writes the same
bytes.`,
		Example: `  bridge man /usr/local/share/man
  bridge man /tmp/man && man -M /tmp/man bridge-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := writeMan(cmd.Root(), args[0]); err != nil {
				return fmt.Errorf("writing man pages: %w; name a directory that can be written", err)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "man pages are in %s; man -M %s bridge shows them\n", args[0], shellWord(args[0]))
			return err
		},
	}
}

func writeMan(root *cobra.Command, dir string) error {
	commands, pages := filepath.Join(dir, "man1"), filepath.Join(dir, "man7")
	for _, d := range []string{commands, pages} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	root.DisableAutoGenTag = true
	spellOut(root)
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "bridge " + version(), Manual: "bridge"}, commands); err != nil {
		return err
	}
	for _, t := range topics {
		page, err := t.page()
		if err != nil {
			return err
		}
		head := fmt.Sprintf("%% BRIDGE-%s 7\n\n# NAME\nbridge-%s - %s\n\n", t.name, t.name, t.short)
		if err := os.WriteFile(filepath.Join(pages, "bridge-"+t.name+".7"), md2man.Render([]byte(head+legibleAngles(page))), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// spellOut readies the texts of the command and of those below it for a renderer
// of Markdown, which takes <TIME> for HTML and drops it.
func spellOut(cmd *cobra.Command) {
	cmd.Use, cmd.Short, cmd.Long = legibleAngles(cmd.Use), legibleAngles(cmd.Short), legibleAngles(cmd.Long)
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(f.Usage, `\<`) { // a shared flag is met twice
			f.Usage = legibleAngles(f.Usage)
		}
	})
	for _, sub := range cmd.Commands() {
		spellOut(sub)
	}
}

// legibleAngles escapes < where Markdown would read it as HTML, and the _ beside
// it, which is everywhere but in code.
func legibleAngles(text string) string {
	var b strings.Builder
	fenced, span := false, false
	for line := range strings.Lines(text) {
		fence := strings.HasPrefix(strings.TrimLeft(line, " "), "```")
		if fence {
			fenced = !fenced
		}
		if fence || fenced || strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "\t") {
			b.WriteString(line)
			continue
		}
		span = span && strings.TrimSpace(line) != "" // a paragraph ends what it opened
		for i := range len(line) {
			c := line[i]
			if c == '`' {
				span = !span
			}
			// A _ at the edge of a word would begin or end emphasis.
			edge := c == '_' && (i > 0 && line[i-1] == '>' || i+1 < len(line) && strings.IndexByte("< ", line[i+1]) >= 0)
			if (c == '<' || edge) && !span {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
	}
	return b.String()
}
