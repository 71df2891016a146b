package panics_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/panics"
)

func explode(with any) { panic(with) }

func guarded(f func()) (err error) {
	defer panics.To(&err)
	f()
	return nil
}

func TestPanicsBecomeErrors(t *testing.T) {
	for name, value := range map[string]any{"a text": "boom", "an error": context.Canceled, "a number": 7} {
		t.Run(name, func(t *testing.T) {
			var caught error
			func() {
				defer panics.Catch(func(err error) { caught = err })
				explode(value)
			}()
			for _, err := range []error{caught, guarded(func() { explode(value) })} {
				err = fmt.Errorf("delivering: %w", err)
				if !panics.Is(err) || !strings.Contains(err.Error(), fmt.Sprintf("panic: %v;", value)) {
					t.Errorf("got %v, want the panic named", err)
				}
				if !strings.Contains(panics.Stack(err), "panics_test.explode") || strings.Contains(err.Error(), "panics_test.go") {
					t.Errorf("got %q, want the stack beside the text", panics.Stack(err))
				}
				if errors.Is(err, context.Canceled) {
					t.Error("the panic counts as the error that it was raised with")
				}
			}
		})
	}
	if err := guarded(func() {}); err != nil || panics.Is(errors.New("panic: x")) || panics.Stack(nil) != "" {
		t.Errorf("without a panic: got %v", err)
	}
	var missing *strings.Builder
	if err := guarded(func() { missing.Reset() }); !strings.Contains(err.Error(), "nil pointer") {
		t.Errorf("got %v, want the runtime's error", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = guarded(runtime.Goexit)
	}()
	<-ended
}
