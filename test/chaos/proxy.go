package main

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// weather is what a proxy does to what passes through it.
type weather struct {
	cut     bool          // connections end, and none begins
	hole    bool          // bytes vanish; the connections that lost some end with the hole
	latency time.Duration // added to each packet
	rate    int           // bytes a second and direction; 0: no bound
	tear    bool          // connections end in the middle of an answer
}

// proxy is a part of the network: it carries TCP connections to one address.
type proxy struct {
	target string
	ln     net.Listener
	wg     sync.WaitGroup // all goroutines; close waits

	mu      sync.Mutex      // guards the fields below
	layers  map[int]weather // what is on, by number
	next    int             // number of the next layer
	now     weather         // all layers together
	changed chan struct{}   // closed when now changes
	links   map[*link]struct{}
	closed  bool
}

// link is one connection through a proxy.
type link struct {
	client, server net.Conn
	done           chan struct{} // closed with both
	once           sync.Once
	holed          bool // has lost bytes; guarded by the proxy's mu
}

func (k *link) close() {
	k.once.Do(func() {
		close(k.done)
		k.client.Close()
		k.server.Close()
	})
}

// newProxy listens on a free loopback port and carries what comes to target.
func newProxy(target string) (*proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for a proxy to %s: %w; free a loopback port", target, err)
	}
	p := &proxy{target: target, ln: ln, layers: map[int]weather{}, changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.wg.Go(p.accept)
	return p, nil
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

// close ends all connections and waits for everything the proxy started.
func (p *proxy) close() {
	p.ln.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.add(weather{cut: true})
	p.wg.Wait()
}

// add puts weather on top of what there is, until it is lifted.
func (p *proxy) add(w weather) (lift func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.next
	p.next++
	p.layers[n] = w
	p.change()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.layers, n)
		p.change()
	}
}

// change makes now what the layers say. The caller holds mu.
func (p *proxy) change() {
	was := p.now
	p.now = weather{}
	for _, w := range p.layers {
		p.now.cut = p.now.cut || w.cut
		p.now.hole = p.now.hole || w.hole
		p.now.tear = p.now.tear || w.tear
		p.now.latency = max(p.now.latency, w.latency)
		if w.rate > 0 && (p.now.rate == 0 || w.rate < p.now.rate) {
			p.now.rate = w.rate
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
	for k := range p.links {
		// A connection does not recover what vanished in a hole.
		if p.now.cut || was.hole && !p.now.hole && k.holed {
			k.close()
		}
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // a client that left at once
		}
		p.wg.Go(func() { p.carry(client) })
	}
}

func (p *proxy) carry(client net.Conn) {
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second) //nolint:noctx // bounded, and to this machine
	if err != nil {
		client.Close()
		return
	}
	k := &link{client: client, server: server, done: make(chan struct{})}
	p.mu.Lock()
	if p.now.cut || p.closed {
		p.mu.Unlock()
		k.close()
		return
	}
	p.links[k] = struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pump(k, server, client, false) })
	both.Go(func() { p.pump(k, client, server, true) })
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, k)
}

// pump carries bytes one way until either end is closed, which closes the other.
func (p *proxy) pump(k *link, dst, src net.Conn, answers bool) {
	defer k.close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			n, ok := p.pass(k, n, answers)
			if _, werr := dst.Write(buf[:n]); werr != nil || !ok {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits until n bytes may pass and returns how many do; not ok ends the
// connection behind them.
func (p *proxy) pass(k *link, n int, answers bool) (int, bool) {
	for {
		p.mu.Lock()
		w, changed := p.now, p.changed
		if w.hole {
			k.holed = true
		}
		p.mu.Unlock()
		switch {
		case w.cut:
			return 0, false
		case w.hole:
			select {
			case <-changed: // if the hole is gone, so is the link
			case <-k.done:
				return 0, false
			}
			continue
		case w.tear && answers && n > 1:
			return n / 2, false
		}
		wait := w.latency
		if w.rate > 0 {
			wait += time.Duration(n) * time.Second / time.Duration(w.rate)
		}
		if wait <= 0 {
			return n, true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			return n, true
		case <-changed: // better or worse: look again
			timer.Stop()
		case <-k.done:
			timer.Stop()
			return 0, false
		}
	}
}
