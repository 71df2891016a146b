package hangup

import (
	"strings"
	"testing"
)

func TestIsRun(t *testing.T) {
	for line, want := range map[string]bool{
		"run": true, "run --config x": true, "--color never run": true, "--color=never run": true,
		"": false, "demo": false, "status run": false, "--help": false, "--color run": false, "-test.run x": false,
	} {
		if got := isRun(append([]string{"bridge"}, strings.Fields(line)...)); got != want {
			t.Errorf("%q: got %v, want %v", line, got, want)
		}
	}
}
