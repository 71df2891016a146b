package terminal

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/datafly/bridge/internal/plaintext"
)

// Asker returns a function that asks a person at the terminal in, with the questions on out,
// and returns the line that is typed, without echo if it is secret. It ends with ctx. Asker
// returns nil unless both are terminals. Calls must not overlap.
func Asker(in io.Reader, out io.Writer) func(ctx context.Context, question string, secret bool) (string, error) {
	file, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || !IsTerminal(out) {
		return nil
	}
	fd, lines := int(file.Fd()), bufio.NewReader(file)
	return func(ctx context.Context, question string, secret bool) (string, error) {
		state, err := term.GetState(fd)
		if err != nil {
			return "", fmt.Errorf("reading the state of the terminal: %w; pass the value as a flag or in the environment", err)
		}
		defer func() { _ = term.Restore(fd, state) }() // a read that is left behind has no echo
		fmt.Fprintf(out, "%s: ", question)
		answer, err := plaintext.Await(ctx, func() (string, error) {
			if secret {
				typed, err := term.ReadPassword(fd)
				return string(typed), err
			}
			return lines.ReadString('\n')
		})
		if secret || err != nil {
			fmt.Fprintln(out)
		}
		if err != nil {
			return "", fmt.Errorf("reading the answer to %q: %w", question, err)
		}
		return strings.TrimRight(answer, "\r\n"), nil
	}
}
