package terminal

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

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
		show := func() { fmt.Fprintf(out, "%s: ", question) }
		answer, err := plaintext.Await(ctx, func() (string, error) {
			if secret {
				return readSecret(fd, state, show)
			}
			show()
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

// readSecret calls show once the terminal echoes nothing: what is typed at a question must
// not be seen. state is that of the terminal before.
func readSecret(fd int, state *term.State, show func()) (string, error) {
	read, shown := make(chan struct{}), make(chan struct{})
	go func() { // ends before readSecret does
		defer close(shown)
		defer show()
		for range 1000 { // a second
			now, err := term.GetState(fd)
			if err != nil || *now != *state {
				return
			}
			select {
			case <-read:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	typed, err := term.ReadPassword(fd)
	close(read)
	<-shown
	return string(typed), err
}
