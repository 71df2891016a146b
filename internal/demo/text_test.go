package demo

import (
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/terminal"
)

// The rows of others are named apart, and what stays on a Kafka that is not the demo's.
func TestReportNamesWhatIsNotItsOwn(t *testing.T) {
	var b strings.Builder
	r := Report{Produced: 3, Rows: 3, Distinct: 3, Others: map[string]int64{"datafly.events.stream": 7, "datafly.events.retail": 2}, Kafka: "localhost:9092", Topic: "shop"}
	r.WriteText(&b, terminal.Style{})
	_, got, _ := strings.Cut(b.String(), "produced - distinct - rejected - filtered\n")
	want := `
2 more rows of installed integrations are in datafly.events.retail.
7 more rows of installed integrations are in datafly.events.stream.

Topics and groups whose names begin with shop are left on localhost:9092.
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b.Reset()
	(&Report{}).WriteText(&b, terminal.Style{})
	if strings.Contains(b.String(), "installed") || strings.Contains(b.String(), "are left") {
		t.Errorf("got\n%s\nwant nothing about others", b.String())
	}
}
