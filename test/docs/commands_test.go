package docs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// said is a command line of the bridge, and where it stands.
type said struct {
	where string
	args  []string
}

// commands finds the bridge's command lines in a page: in blocks that are shell
// or nothing in particular, and in the prose.
func (p page) commands() []said {
	var all []said
	add := func(number int, script string) {
		for _, words := range commandLines(script) {
			if args, ok := bridgeArgs(words); ok {
				all = append(all, said{fmt.Sprintf("%s:%d", p.name, number), args})
			}
		}
	}
	for _, f := range p.fences {
		if f.lang == "" || f.lang == "sh" || f.lang == "console" {
			add(f.number, f.text)
		}
	}
	for _, l := range p.prose {
		for _, span := range l.spans() {
			if strings.HasPrefix(span, "bridge ") {
				add(l.number, span)
			}
		}
	}
	return all
}

// TestCommandLinesAreTaken has the program read every command line of the pages
// with --help before its flags: it reports a wrong flag or value, and
// nothing is begun.
func TestCommandLinesAreTaken(t *testing.T) {
	t.Parallel()
	keys, _ := known()
	seen := map[string]bool{}
	var sayings []said
	for _, p := range pages(t) {
		sayings = append(sayings, p.commands()...)
	}
	sayings = append(sayings, examples(t, nil)...)
	if len(sayings) < 100 {
		t.Errorf("got %d command lines, want more: are they found?", len(sayings))
	}
	var wg sync.WaitGroup
	few := make(chan struct{}, 4)
	for _, s := range sayings {
		for _, key := range setKeys(s.args) {
			if overlay, ok := strings.CutPrefix(key, "integrations."); ok {
				_, key, _ = strings.Cut(overlay, ".")
			}
			if !keys[key] {
				t.Errorf("%s: bridge %s: %s is no key of the configuration", s.where, strings.Join(s.args, " "), key)
			}
			if secretKey.MatchString(key) {
				t.Errorf("%s: bridge %s: %s is a secret and refused on the command line", s.where, strings.Join(s.args, " "), key)
			}
		}
		if line := strings.Join(s.args, "\x00"); !seen[line] {
			seen[line] = true
			few <- struct{}{}
			wg.Go(func() {
				defer func() { <-few }()
				if fault := understood(s.args); fault != nil {
					t.Errorf("%s: bridge %s: %v", s.where, strings.Join(s.args, " "), fault)
				}
			})
		}
	}
	wg.Wait()
}

// secretKey matches the keys that hold a secret, not those that name its file.
var secretKey = regexp.MustCompile(`(secret|password|token)$`)

// setKeys are the keys that --set names.
func setKeys(args []string) []string {
	var keys []string
	for i, a := range args {
		value, joined := strings.CutPrefix(a, "--set=")
		if a == "--set" && i+1 < len(args) {
			value, joined = args[i+1], true
		}
		if key, _, ok := strings.Cut(value, "="); ok && joined {
			keys = append(keys, key)
		}
	}
	return keys
}

var (
	usageLine = regexp.MustCompile(`(?m)^Usage:\n  bridge(.*)$`)
	plainWord = regexp.MustCompile(`^[a-z]+$`)
)

// understood has the program parse a command line.
func understood(args []string) error {
	if len(args) > 0 && args[0] == "help" || slices.Contains(args, "--version") {
		_, err := output(args...)
		return err
	}
	// Before the flags: behind one without a value --help would be the value.
	flags := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") })
	if flags < 0 {
		flags = len(args)
	}
	help, err := output(slices.Insert(slices.Clone(args), flags, "--help")...)
	if err != nil {
		return err
	}
	m := usageLine.FindStringSubmatch(help)
	if m == nil {
		return errors.New("its help has no usage")
	}
	// The usage begins with the command that was meant; arguments look different.
	command := strings.Fields(m[1])
	if at := slices.IndexFunc(command, func(w string) bool { return !plainWord.MatchString(w) }); at >= 0 {
		command = command[:at]
	}
	if len(args) < len(command) || !slices.Equal(args[:len(command)], command) {
		return fmt.Errorf("was read as bridge %s", strings.Join(command, " "))
	}
	if rest := args[len(command):]; len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && strings.Contains(help, "Available Commands:") {
		return fmt.Errorf("there is no command %s", rest[0])
	}
	return nil
}

func output(args ...string) (string, error) {
	program, err := binary()
	if err != nil {
		return "", err
	}
	var stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Env = append(cmd.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

var (
	availableCommand = regexp.MustCompile(`(?m)^  ([a-z]+) +\S`)
	explained        = regexp.MustCompile(` {3,}.*`)
)

// examples are those in the help of a command and of the commands below it.
func examples(t *testing.T, command []string) []said {
	t.Helper()
	help, err := output(append(slices.Clone(command), "--help")...)
	if err != nil {
		t.Fatalf("bridge %s --help: %v", strings.Join(command, " "), err)
	}
	var all []said
	if _, part, ok := strings.Cut(help, "Examples:\n"); ok {
		part, _, _ = strings.Cut(part, "\n\n")
		var script []string
		for _, l := range strings.Split(part, "\n") {
			script = append(script, explained.ReplaceAllString(strings.TrimPrefix(l, "  "), ""))
		}
		for _, words := range commandLines(strings.Join(script, "\n")) {
			if args, ok := bridgeArgs(words); ok {
				all = append(all, said{"bridge " + strings.Join(command, " ") + " --help", args})
			}
		}
	}
	if _, part, ok := strings.Cut(help, "Available Commands:\n"); ok {
		part, _, _ = strings.Cut(part, "\n\n")
		for _, m := range availableCommand.FindAllStringSubmatch(part, -1) {
			if m[1] != "help" {
				all = append(all, examples(t, append(slices.Clone(command), m[1]))...)
			}
		}
	}
	return all
}

func TestBadCommandLinesAreFound(t *testing.T) {
	t.Parallel()
	if err := understood([]string{"run"}); err != nil {
		t.Fatalf("bridge run: %v", err)
	}
	for _, line := range []string{"rnu", "dlq lsit", "run --frobnicate", "check --output xml", "dlq redrive --limit many"} {
		if understood(strings.Fields(line)) == nil {
			t.Errorf("bridge %s was understood, want a fault", line)
		}
	}
	if got := setKeys([]string{"run", "--set", "zerobus.tabel=x", "--set=kafka.topics=a"}); !slices.Equal(got, []string{"zerobus.tabel", "kafka.topics"}) {
		t.Errorf("got keys %q of --set, want both", got)
	}
}

// The README names every command there is.
func TestReadmeNamesEveryCommand(t *testing.T) {
	t.Parallel()
	help, err := output("--help")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(help, "Available Commands:\n")
	part, _, _ = strings.Cut(part, "\n\n")
	commands := availableCommand.FindAllStringSubmatch(part, -1)
	if len(commands) < 10 {
		t.Fatalf("got %d commands, want more: are they found in\n%s", len(commands), help)
	}
	readme := readPage(t, "README.md")
	for _, m := range commands {
		if !strings.Contains(readme, "`bridge "+m[1]) {
			t.Errorf("README.md has no bridge %s", m[1])
		}
	}
}
