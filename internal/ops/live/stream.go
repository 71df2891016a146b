package live

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/plaintext"
)

const (
	maxViewers  = 16
	eventsEvery = 250 * time.Millisecond
	statusEvery = time.Second
	// partitionsEvery is longer where there are many of them.
	partitionsEvery, manyPartitionsEvery = 2 * time.Second, 10 * time.Second
	manyPartitions                       = 64 << 10 // bytes of JSON
	// A viewer that needs longer for one message is disconnected; its browser reconnects.
	viewerTimeout = 15 * time.Second
	// streamLife ends a stream, so that dead ones behind proxies do not stay. Browsers
	// reconnect after retryMillis.
	streamLife  = 30 * time.Minute
	retryMillis = 1000
	// eventsAtOnce bounds one message, backlogEvents the first.
	eventsAtOnce, backlogEvents = 200, 300
)

// hello is the first message of a stream.
type hello struct {
	Mode        string `json:"mode"`
	DeadLetters bool   `json:"dead_letters"` // there is a dead-letter topic
	MaxEvents   int    `json:"max_events"`   // most that are kept
	Rate        int    `json:"rate"`         // most events shown per second
}

// eventsMessage has the events that were added or have changed.
type eventsMessage struct {
	Events []Event `json:"events"`
}

// viewer is one open stream.
type viewer struct {
	p   *Page
	who *access.Control
	of  *view
	w   http.ResponseWriter
	rc  *http.ResponseController
	buf bytes.Buffer
	rev uint64
}

// serveStream returns what sends server-sent events until the viewer disconnects or who
// no longer admits it.
func (p *Page) serveStream(who *access.Control) func(*view, http.ResponseWriter, *http.Request) {
	return func(of *view, w http.ResponseWriter, r *http.Request) { p.stream(who, of, w, r) }
}

func (p *Page) stream(who *access.Control, of *view, w http.ResponseWriter, r *http.Request) {
	if p.stopped.Err() != nil {
		fail(w, http.StatusServiceUnavailable, "the bridge is stopping")
		return
	}
	defer p.viewers.Add(-1)
	if n := p.viewers.Add(1); n > maxViewers {
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("%d viewers are connected already; close one", maxViewers))
		return
	}
	of.events.viewers.Add(1)
	defer of.events.viewers.Add(-1)
	v := &viewer{p: p, who: who, of: of, w: w, rc: http.NewResponseController(w), rev: of.resume(r.Header.Get("Last-Event-ID"))}
	// The server's read timeout would end the stream.
	if err := v.rc.SetReadDeadline(time.Time{}); err != nil {
		fail(w, http.StatusInternalServerError, "this connection cannot stream: "+err.Error())
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // turns off buffering of nginx
	if err := v.run(r); err != nil && r.Context().Err() == nil {
		p.log.Debug("viewer of live events disconnected", zap.String("integration", of.name), zap.Error(err))
	}
}

// resume returns the last revision that the viewer has of these events.
func (v *view) resume(lastID string) uint64 {
	epoch, rev, ok := strings.Cut(lastID, "-")
	if n, err := strconv.ParseUint(rev, 10, 64); ok && err == nil && epoch == v.epoch {
		return n
	}
	return 0
}

func (v *viewer) run(r *http.Request) error {
	_, partitions, ok := v.p.read(v.of)
	if !ok {
		return nil
	}
	fmt.Fprintf(&v.buf, "retry: %d\n", retryMillis)
	v.put("hello", hello{Mode: v.p.cfg.Mode, DeadLetters: v.p.deadLetters(v.of) != nil, MaxEvents: maxEvents, Rate: watchedRate})
	v.status()
	v.raw("partitions", partitions)
	v.events(backlogEvents)
	if err := v.flush(); err != nil {
		return err
	}
	events, status, partitionsTick := time.NewTicker(eventsEvery), time.NewTicker(statusEvery), time.NewTicker(every(partitions))
	defer events.Stop()
	defer status.Stop()
	defer partitionsTick.Stop()
	life := time.NewTimer(streamLife)
	defer life.Stop()
	for {
		select {
		case <-events.C:
			v.events(eventsAtOnce)
		case <-status.C:
			if !v.who.StillValid(r) {
				return nil // the session has expired or the token has changed
			}
			if !v.status() { // also a heartbeat
				return nil // the integration was removed
			}
		case <-partitionsTick.C:
			if _, partitions, ok = v.p.read(v.of); !ok {
				return nil
			}
			v.raw("partitions", partitions)
			partitionsTick.Reset(every(partitions))
		case <-life.C:
			return nil
		case <-r.Context().Done():
			return nil
		case <-v.p.stopped.Done():
			return nil
		}
		if err := v.flush(); err != nil {
			return err
		}
	}
}

func every(partitions []byte) time.Duration {
	if len(partitions) > manyPartitions {
		return manyPartitionsEvery
	}
	return partitionsEvery
}

func (v *viewer) status() (ok bool) {
	status, _, ok := v.p.read(v.of)
	if ok {
		v.raw("status", status)
	}
	return ok
}

func (v *viewer) events(limit int) {
	changed, rev := v.of.events.Since(v.rev, limit)
	if len(changed) == 0 {
		return
	}
	v.rev = rev
	fmt.Fprintf(&v.buf, "id: %s-%d\n", v.of.epoch, rev)
	v.put("events", eventsMessage{changed})
}

func (v *viewer) put(name string, what any) {
	if text, err := json.Marshal(what); err == nil { // all messages can be encoded
		v.raw(name, text)
	}
}

// raw adds one message; encoded JSON has no line breaks.
func (v *viewer) raw(name string, text []byte) {
	fmt.Fprintf(&v.buf, "event: %s\ndata: %s\n\n", name, plaintext.AppendVisible(nil, text))
}

// flush sends the messages. Its deadline replaces the server's write timeout.
func (v *viewer) flush() error {
	if v.buf.Len() == 0 {
		return nil
	}
	if err := v.rc.SetWriteDeadline(time.Now().Add(viewerTimeout)); err != nil {
		return err
	}
	if _, err := v.w.Write(v.buf.Bytes()); err != nil {
		return err
	}
	v.buf.Reset()
	return v.rc.Flush()
}
