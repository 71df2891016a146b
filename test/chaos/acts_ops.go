package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// strangers is how many addresses hold connections, idlePerStranger how many
	// each: together twice what a member has for everybody.
	strangers       = 8
	idlePerStranger = 64
	// endWithin is how long a process that no longer answers may take to end.
	endWithin = 15 * time.Second
	// reopenAfter is when a connection is opened again that the member has closed.
	reopenAfter = 500 * time.Millisecond
)

// idleConnections has strangers hold connections to a member's ops endpoints while
// probes ask it. A process that ends meanwhile, or stands still, is another fault's
// doing: the probe waits for the second, and is not held against the first.
func (r *run) idleConnections(d *doing) error {
	_, p := r.fleet.pick(d.Target)
	if p == nil || !r.until(r.ctx, patience, func() bool { return !p.running() || p.probe(r.ctx, patience) == nil }) {
		return nil
	}
	ctx, release := context.WithTimeout(r.ctx, d.Length)
	defer release()
	var holding sync.WaitGroup
	defer holding.Wait()
	for i := range strangers * idlePerStranger {
		holding.Go(func() { p.beHeld(ctx, i) })
	}
	for hold(ctx, time.Second) && p.running() {
		err := p.probe(r.ctx, patience)
		if err == nil || r.ctx.Err() != nil {
			continue
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(endWithin):
			r.v.add(ruleProbe, "%s runs and does not answer /livez beside idle connections: %v", p.name, err)
		case <-r.ctx.Done():
		}
		return nil
	}
	return nil
}

// beHeld keeps the i-th connection of the strangers open until ctx ends: without a
// request, with half of one, after one, or, one of each stranger, without reading
// the answer.
func (p *process) beHeld(ctx context.Context, i int) {
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%strangers))}, Timeout: patience}
	begin := []string{"", "GET /livez HT", "GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"}[i/strangers%3]
	slow := i < strangers
	if slow {
		begin = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
	}
	for ctx.Err() == nil {
		conn, err := from.DialContext(ctx, "tcp", p.address)
		if err != nil { // it has ended, or no other address than 127.0.0.1 is the loopback here
			from.LocalAddr = nil
			hold(ctx, reopenAfter)
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		_, _ = io.WriteString(conn, begin)
		if slow {
			<-ctx.Done()
		} else {
			_, _ = io.Copy(io.Discard, conn)
		}
		stop()
		conn.Close()
		hold(ctx, reopenAfter)
	}
}

// probe asks a member whether it is alive, as kubelet does. What it answers does not
// matter here: one that was stopped may say no.
func (p *process) probe(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/livez", nil)
	if err != nil {
		return err
	}
	resp, err := browser.Do(req)
	if err != nil {
		return fmt.Errorf("asking %s: %w", p.name, err)
	}
	return resp.Body.Close()
}
