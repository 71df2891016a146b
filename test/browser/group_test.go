package browser_test

import (
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
)

func TestTheGroupIsShown(t *testing.T) {
	s, p := newStage(t, emulator.Latency{}, "ops.peers=127.0.0.1:1")
	p.open()
	s.event(track("Order Completed", "m-1"))
	p.row("successful", "m-1")
	p.tab("Partitions")
	p.text("#partitions-line", "3 partitions, 1 member.")
	p.text("#main", "peer_not_answering")
	p.text("#main", "127.0.0.1:1")
	p.text("#partitions tbody", s.address)
	p.text("#partitions tbody", "waiting")
	p.visit("/members")
	p.text("#main", s.address)
	p.text("#main", "127.0.0.1:1")
}

func TestAGroupWithoutProblemsIsShown(t *testing.T) {
	s, p := newStage(t, emulator.Latency{})
	p.open()
	s.event(track("Order Completed", "m-1"))
	p.row("successful", "m-1")
	p.text("#scope", "Set ops.peers")
	p.tab("Partitions")
	p.text("#partitions-line", "3 partitions, 1 member.")
	p.until("document.querySelectorAll('#partitions tr[data-row]').length === 3")
}
