// Package panics turns a panic into an error, so that a fault in a goroutine of one
// integration ends that integration and not the process.
package panics

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// Error is a panic that was recovered. It does not unwrap to the value: a panic is
// never one of the errors that callers handle.
type Error struct {
	Value any
	Stack []byte // of the goroutine that panicked
}

// Error names the value, without the stack.
func (e *Error) Error() string {
	return fmt.Sprintf("panic: %v; this is a fault of the bridge: report it with the stack in the log", e.Value)
}

// Catch recovers a panic and reports it. Defer it directly.
func Catch(report func(error)) {
	if v := recover(); v != nil {
		report(&Error{Value: v, Stack: debug.Stack()})
	}
}

// To recovers a panic and makes it the error of the function that defers it. Defer
// it directly.
func To(err *error) {
	if v := recover(); v != nil {
		*err = &Error{Value: v, Stack: debug.Stack()}
	}
}

// Is reports whether a panic is the reason of err.
func Is(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

// Stack returns the stack of the panic that is the reason of err; empty if none is.
func Stack(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return string(e.Stack)
	}
	return ""
}
