package operations

import (
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/pipeline"
)

func TestReplayReportSaysWhatIsOutOfTheOrdinary(t *testing.T) {
	r := &ReplayReport{ReplayReport: pipeline.ReplayReport{Group: "live", To: "offset 3"}, integration: "default"}
	r.Members = []kafka.Member{{ID: "m-1\x1b[2J", InstanceID: "bridge-0", ClientID: "c\r\nl", Host: "10.0.0.1", Partitions: 2}, {ID: "m-2"}}
	r.ReplaySummary = kafka.Summarize([]kafka.Move{
		{Topic: "a", Partition: 0, Committed: 9, Requested: 3, Target: 5, LogStart: 5, LogEnd: 10, Redelivered: 4},
		{Topic: "a", Partition: 1, Committed: -1, Requested: 3, Target: 2, LogEnd: 2, Skipped: 2},
		{Topic: "a", Partition: 2, Committed: 7, Requested: 3, Target: 3, LogEnd: 4},
		{Topic: "a", Partition: 3, Committed: 3, Requested: 3, Target: 3, LogEnd: 4},
	})
	text := textOf(r.WriteText)
	for _, want := range []string{
		"group live to offset 3: dry run, nothing is changed\n",
		"a      0          9          5       10       5        4      0        the log begins at 5: 2 events before it are removed already\n",
		"a      1          none       2       2        0        0      2        3 is past the log's end\n",
		"the committed offset is past the log's end: was the topic recreated?\n",
		"a      3          3          3       4        1        0      0        is there already\n",
		"Up to 4 rows", "WARNING: 2 events that were never delivered are SKIPPED",
		"The group has 2 members;", `m-1\u001b[2J`, `c\u000d\nl`, "A member with an instance id may stay listed",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got\n%s\nwant %q in it", text, want)
		}
	}
	const alone = "Or set enabled: false in orders alone: it leaves its group"
	if r.integration = "orders"; strings.Contains(text, alone) || !strings.Contains(textOf(r.WriteText), alone) {
		t.Errorf("got\n%s\nand\n%s\nwant %q for an integration other than default", text, textOf(r.WriteText), alone)
	}
	if strings.ContainsAny(text, "\x1b\r") {
		t.Errorf("got %q, want no control characters of a member's", text)
	}
	if got := strings.Join(r.Offsets(), " "); got != "a/0:9->5 a/1:none->2 a/2:7->3" {
		t.Errorf("got %q for the audit line, want the three that change", got)
	}
}

func TestReplayThatMovesNothingAsksForNothing(t *testing.T) {
	r := &ReplayReport{ReplayReport: pipeline.ReplayReport{Group: "live", To: "latest"}}
	if got := textOf(r.WriteText); !strings.Contains(got, "Every partition is there already.\n") || strings.Contains(got, "--execute") {
		t.Errorf("got %q, want no word of --execute where there is nothing to do", got)
	}
}
