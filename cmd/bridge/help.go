package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	documents "github.com/datafly/bridge"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/terminal"
)

// topic is a page that `bridge help` shows beside the commands.
type topic struct {
	name, short string
	page        func() (string, error) // Markdown
}

// topics are pages of docs/, or parts of them, and config.example.yaml.
var topics = []topic{
	{"config", "every key of the configuration: meaning, unit, default, trade-off", configPage},
	{"blueprint", "how an event becomes a row: sources, types, transforms, filters", wholePage("docs/blueprint.md")},
	{"metrics", "every metric, and the questions it answers", wholePage("docs/metrics.md")},
	{"troubleshooting", "reason codes of a bridge that is not ready, reject codes, and remedies", troubleshootingPage},
	{"environment", "the variables that are read", environmentPage},
	{"exit-codes", "what the exit codes mean", partOf("docs/terminal.md", "Exit codes")},
	{"terminal", "colours, progress, completion, man pages", wholePage("docs/terminal.md")},
}

func topicNamed(name string) *topic {
	if i := slices.IndexFunc(topics, func(t topic) bool { return t.name == name }); i >= 0 {
		return &topics[i]
	}
	return nil
}

func document(name string) (string, error) {
	text, err := documents.Documents.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w; this build lacks it, take a release", name, err)
	}
	return string(text), nil
}

func wholePage(name string) func() (string, error) {
	return func() (string, error) { return document(name) }
}

// partOf returns the sections with these headings, in the order of the page.
func partOf(name string, heads ...string) func() (string, error) {
	return func() (string, error) {
		page, err := document(name)
		if err != nil {
			return "", err
		}
		var b strings.Builder
		level, fenced := 0, false
		for line := range strings.Lines(page) {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
			}
			text := strings.TrimLeft(line, "#")
			if depth := len(line) - len(text); !fenced && depth > 0 && (level == 0 || depth <= level) {
				level = 0
				if slices.Contains(heads, strings.TrimSpace(text)) {
					level = depth
				}
			}
			if level > 0 {
				b.WriteString(line)
			}
		}
		return b.String(), nil
	}
}

// Sections that help with a bridge that does not deliver.
var (
	troubledOperations = []string{"When you are paged", "Did we lose anything?", "A batch that is too large", "Alerts"}
	troubledBlueprint  = []string{"Events that do not become rows"}
)

func troubleshootingPage() (string, error) {
	operations, err := partOf("docs/operations.md", troubledOperations...)()
	if err != nil {
		return "", err
	}
	rejects, err := partOf("docs/blueprint.md", troubledBlueprint...)()
	if err != nil {
		return "", err
	}
	return "# Troubleshooting\n\n" + operations + "\n" + rejects, nil
}

func environmentPage() (string, error) {
	part, err := partOf("docs/terminal.md", "Environment")()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(part + "\n## Variables of keys\n\n| variable | key |\n|---|---|\n")
	for _, k := range config.Keys() {
		fmt.Fprintf(&b, "| `%s` | `%s` |\n", k.Env, k.Path)
	}
	b.WriteString("\n## Signal's own names, below those of the bridge\n\n| variable | key |\n|---|---|\n")
	borrowed := config.Borrowed()
	for _, name := range slices.Sorted(maps.Keys(borrowed)) {
		fmt.Fprintf(&b, "| `%s` | `%s` |\n", name, borrowed[name])
	}
	return b.String(), nil
}

func configPage() (string, error) {
	example, err := document("config.example.yaml")
	if err != nil {
		return "", err
	}
	return config.Page(example)
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command | topic [word] | topics]",
		Short: "Help on a command or a topic; `bridge help topics` lists the topics",
		Long: `help prints the --help of a command, or a topic: a page of the documentation, which
is part of the program. A word after the topic selects the sections and rows whose
name contains the word.`,
		Example: `  bridge help topics
  bridge help run
  bridge help config delivery
  bridge help troubleshooting sink_blocked`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			if len(args) == 0 {
				return cmd.Root().Help()
			}
			if args[0] == "topics" && len(args) == 1 {
				return listTopics(out, styleOf(cmd, out))
			}
			if t := topicNamed(args[0]); t != nil && len(args) <= 2 {
				return t.write(out, args[1:], styleOf(cmd, out))
			}
			about, rest, err := cmd.Root().Find(args)
			if err != nil || about == cmd.Root() || len(rest) > 0 {
				return unknownTopic(cmd.Root(), args)
			}
			about.InitDefaultHelpFlag() // as cobra does before --help
			return about.Help()
		},
	}
}

func unknownTopic(root *cobra.Command, args []string) error {
	problem := fmt.Sprintf("there is neither a command nor a topic %q", strings.Join(args, " "))
	near := root.SuggestionsFor(args[0])
	for _, t := range topics {
		if strings.HasPrefix(t.name, strings.ToLower(args[0])) {
			near = append(near, t.name)
		}
	}
	if len(near) > 0 {
		return &usageError{suggest(fmt.Errorf("%s; did you mean %s?", problem, near[0]), "bridge help "+near[0])}
	}
	return &usageError{suggest(fmt.Errorf("%s; bridge --help lists the commands", problem), "bridge help topics")}
}

func listTopics(w io.Writer, look terminal.Style) error {
	var b strings.Builder
	for _, t := range topics {
		fmt.Fprintf(&b, "%s  %s\n", look.Strong(fmt.Sprintf("%-16s", t.name)), t.short)
	}
	b.WriteString("\nbridge help <topic> shows one, and bridge help <topic> <word> a part of it.\n")
	return printText(w, b.String())
}

// write shows the topic, or the parts of it that match a word.
func (t *topic) write(w io.Writer, words []string, look terminal.Style) error {
	page, err := t.page()
	if err != nil {
		return err
	}
	word := strings.Join(words, " ") // one at most
	text := terminal.Markdown(page, word, terminal.Width(w), look)
	if text == "" {
		return &usageError{suggest(fmt.Errorf("the topic %s has nothing on %q; read all of it, or try another word", t.name, plaintext.ShortLine(word, 100)), "bridge help "+t.name)}
	}
	return printText(w, text)
}

func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write man pages for the commands and the help topics",
		Long: `man writes man pages into DIR/man1 for the commands and DIR/man7 for the help
topics. It creates DIR if necessary and replaces existing pages. SOURCE_DATE_EPOCH,
if set, dates the pages, so that the same build writes the same bytes.`,
		Example: `  bridge man /usr/local/share/man
  bridge man /tmp/man && man -M /tmp/man bridge-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := writeMan(cmd.Root(), args[0]); err != nil {
				return fmt.Errorf("writing man pages: %w; name a directory that can be written", err)
			}
			return printText(cmd.OutOrStdout(), fmt.Sprintf("man pages are in %s; man -M %s bridge shows them\n", args[0], shellWord(args[0])))
		},
	}
}

func writeMan(root *cobra.Command, dir string) error {
	commands, pages := filepath.Join(dir, "man1"), filepath.Join(dir, "man7")
	if err := errors.Join(os.MkdirAll(commands, 0o755), os.MkdirAll(pages, 0o755)); err != nil {
		return err
	}
	root.DisableAutoGenTag = true
	encodeAngles(root)
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "bridge " + version(), Manual: "bridge"}, commands); err != nil {
		return err
	}
	written, err := filepath.Glob(filepath.Join(commands, "bridge*.1"))
	if err != nil {
		return err
	}
	for _, file := range written {
		page, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, []byte(decodedAngles.Replace(string(page))), 0o644)
		}
		if err != nil {
			return err
		}
	}
	for _, t := range topics {
		page, err := t.page()
		if err != nil {
			return err
		}
		head := fmt.Sprintf("%% BRIDGE-%s 7\n\n# NAME\nbridge-%s - %s\n\n", t.name, t.name, t.short)
		text := decodedAngles.Replace(string(md2man.Render([]byte(head + encodedAngles.Replace(page)))))
		if err := os.WriteFile(filepath.Join(pages, "bridge-"+t.name+".7"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// The renderer of man pages takes <TIME> for HTML and drops it. It gets words in
// place of the angle brackets, which are replaced in the result.
var (
	encodedAngles = strings.NewReplacer("<", "q0lt0q", ">", "q0gt0q")
	decodedAngles = strings.NewReplacer("q0lt0q", "<", "q0gt0q", ">")
)

func encodeAngles(cmd *cobra.Command) {
	encode := func(texts ...*string) {
		for _, text := range texts {
			*text = encodedAngles.Replace(*text)
		}
	}
	encode(&cmd.Use, &cmd.Short, &cmd.Long, &cmd.Example)
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { encode(&f.Usage) })
	for _, sub := range cmd.Commands() {
		encodeAngles(sub)
	}
}
