// Package hangup receives SIGHUP for `bridge run` as early as a Go program can. The
// default action ends the process. Other packages take milliseconds to initialize before
// main, and a supervisor may reload within them. This package imports little, so it is
// initialized first.
package hangup

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
)

var signals = make(chan os.Signal, 1)

func init() {
	if isRun(os.Args) {
		signal.Notify(signals, syscall.SIGHUP)
	}
}

// isRun reports whether a command line is `bridge run`: the first word behind the
// program's name that is neither a flag nor the value of --color.
func isRun(words []string) bool {
	for i := 1; i < len(words); i++ {
		switch word := words[i]; {
		case word == "--color":
			i++
		case !strings.HasPrefix(word, "-"):
			return word == "run"
		}
	}
	return false
}

// Signals returns the SIGHUPs of this process: since its start under `bridge run`,
// else from the call on. It also receives a SIGHUP that was ignored, as by nohup:
// `bridge run` never ends on one, so nothing has to be restored.
func Signals() <-chan os.Signal {
	signal.Notify(signals, syscall.SIGHUP)
	return signals
}
