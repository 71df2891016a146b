package browser_test

import (
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

func TestTheGroupIsShown(t *testing.T) {
	s, p := newStage(t, emulator.Latency{}, "ops.peers=127.0.0.1:1")
	p.open()
	s.event(track("Order Completed", "m-1"))
	p.row("Delivered", "m-1")
	p.click("#tab-group")
	p.text("#group-line", "1 of 1 members answer, 1 deliver, lag 0, group Stable.")
	p.text("#group-problems", "peer_not_answering")
	p.text("#group-problems", "127.0.0.1:1")
	p.text("#group-members", s.address)
	p.text("#group-members", "running")
	p.text("#group-partitions", s.topic+"/2")
}

func TestAGroupWithoutProblemsIsShown(t *testing.T) {
	s, p := newStage(t, emulator.Latency{})
	p.open()
	s.event(track("Order Completed", "m-1"))
	p.row("Delivered", "m-1")
	p.click("#tab-group")
	p.text("#group-line", "1 members, 1 deliver, lag 0, group Stable.")
	p.text("#group-partitions", s.topic+"/2")
}
