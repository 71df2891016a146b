// Package hangup receives SIGHUP for `bridge run` from the earliest moment a Go
// program can. By default the signal ends a process, and between the start of one
// and the first line of its main lie the milliseconds in which other packages
// initialize themselves: enough for a supervisor that reloads what it has just
// started. It imports little, so that it is initialized before them.
package hangup

import (
	"os"
	"os/signal"
	"strings"
	"syscall"
)

var signals = make(chan os.Signal, 1)

// early says whether the signal was asked for before main.
var early = len(os.Args) > 1 && reloads(os.Args[1:])

func init() {
	if early {
		signal.Notify(signals, syscall.SIGHUP)
	}
}

// reloads reports whether the words of a command line call for `bridge run`: the
// first that is neither a flag nor the value of --color.
func reloads(words []string) bool {
	for i := 0; i < len(words); i++ {
		switch word := words[i]; {
		case word == "--color":
			i++
		case !strings.HasPrefix(word, "-"):
			return word == "run"
		}
	}
	return false
}

// Signals returns the SIGHUPs of this process from its start on; from the call on,
// should the command line not have called for them. A SIGHUP that was ignored, as
// by nohup, is received all the same: `bridge run` reloads on it and ends on none, so
// there is no way to give it back.
func Signals() <-chan os.Signal {
	signal.Notify(signals, syscall.SIGHUP)
	return signals
}
