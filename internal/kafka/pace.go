package kafka

import (
	"encoding/binary"
	"net"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// FetchInterval is the least time between two fetches from a broker while they bring
// little. A broker answers a fetch with the first record that comes, and each answer
// wakes the process several times, whatever it holds. At a thousand events a second the
// 330 answers took most of the processor time.
const FetchInterval = 15 * time.Millisecond

// fewRecords is up to how many records a second fetches are spaced out. A broker takes 2 to
// 3 ms over each of them, so beyond that they bring a hundred records and more anyway.
const fewRecords = 40_000

// paceLook is how long records are counted before that is decided.
const paceLook = 100 * time.Millisecond

// FetchPacer spaces out the fetches of one client, so that events gather at the
// brokers. A fetch that a broker has held for that long is not delayed: the first event
// after a pause of the producers is read at once.
type FetchPacer struct {
	on atomic.Bool

	// Owned by the poll loop.
	began   time.Time // of the count
	records int
}

// Polled is called after each poll with how many records it brought, and whether more of
// them wait at the brokers: fetches are not spaced out then.
func (p *FetchPacer) Polled(records int, more bool) {
	p.records += records
	now := time.Now()
	took := now.Sub(p.began)
	switch {
	case more:
		p.on.Store(false)
	case took < paceLook:
		return
	default:
		p.on.Store(float64(p.records) <= fewRecords*took.Seconds())
	}
	p.began, p.records = now, 0
}

// Wrap is for Connection.Wrap.
func (p *FetchPacer) Wrap(conn net.Conn) net.Conn { return &pacedConn{Conn: conn, pacer: p} }

// pacedConn delays writing a fetch. The client sends a broker's requests one after
// another, so others wait as long. It writes a request with one call.
type pacedConn struct {
	net.Conn
	pacer *FetchPacer
	last  time.Time // when the last fetch was sent; the client writes from one goroutine at a time
}

func (c *pacedConn) Write(p []byte) (int, error) {
	if len(p) > 6 && binary.BigEndian.Uint16(p[4:]) == uint16(kmsg.Fetch) { // after the length
		if wait := time.Until(c.last.Add(FetchInterval)); wait > 0 && c.pacer.on.Load() {
			<-time.After(wait)
		}
		c.last = time.Now()
	}
	return c.Conn.Write(p)
}
