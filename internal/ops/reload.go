package ops

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// States of the configuration, for ReloadStatus.State.
const (
	ReloadOK     = "ok"     // what the files say is in force, but for PendingRestart
	ReloadFailed = "failed" // the files are refused; what was in force before goes on
)

// ReloadStatus tells which configuration is in force, and what became of the
// last attempt to load another.
type ReloadStatus struct {
	State string    `json:"state"`       // one of the Reload constants
	At    time.Time `json:"at,omitzero"` // of the last attempt; of the start before the first
	// Error says why the files are refused: file, line, remedy.
	Error string `json:"error,omitempty"`
	// Generation counts the configurations that have been in force since the
	// start, from 1.
	Generation int `json:"generation"`
	// Hash is the same for members with the same configuration and blueprint
	// in force. Secrets do not go into it.
	Hash string `json:"hash"`
	// PendingRestart are the keys that have changed and take effect only after
	// a restart.
	PendingRestart []string `json:"pending_restart,omitempty"`
}

// writeReload prints what an operator has to know of the configuration; nothing
// while it is the one of the start.
func writeReload(b *bytes.Buffer, r ReloadStatus, now time.Time) {
	if r.State == "" || r.State == ReloadOK && r.Generation <= 1 && len(r.PendingRestart) == 0 {
		return
	}
	what := "reloaded"
	if r.State != ReloadOK {
		what = "NOT RELOADED, the one before goes on; tried"
	}
	fmt.Fprintf(b, "%-10s %s", "config", what)
	if !r.At.IsZero() {
		fmt.Fprintf(b, " %s ago", age(now.Sub(r.At)))
	}
	fmt.Fprintf(b, ", generation %d, hash %s\n", r.Generation, orDash(r.Hash))
	detail(b, "error", r.Error)
	if len(r.PendingRestart) > 0 {
		detail(b, "after a restart", strings.Join(r.PendingRestart, ", "))
	}
}
