package main

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"
)

// echo serves connections that return what they receive.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

func TestWeather(t *testing.T) {
	p, err := newProxy(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	dial := func() (say func(string) (string, error)) {
		c, err := net.Dial("tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		in := bufio.NewReader(c)
		return func(text string) (string, error) {
			if _, err := io.WriteString(c, text+"\n"); err != nil {
				return "", err
			}
			if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				return "", err
			}
			return in.ReadString('\n')
		}
	}
	say := dial()
	if got, err := say("hello"); err != nil || got != "hello\n" {
		t.Fatalf("fair weather: got %q, %v", got, err)
	}

	began := time.Now()
	late := p.add(weather{latency: 50 * time.Millisecond})
	worse := p.add(weather{latency: 20 * time.Millisecond, rate: 1 << 20})
	if got, err := say("later"); err != nil || got != "later\n" || time.Since(began) < 100*time.Millisecond {
		t.Errorf("latency: got %q, %v after %v, want it 50 ms later each way", got, err, time.Since(began))
	}
	late()
	worse()

	torn := p.add(weather{tear: true})
	if got, err := say("torn apart"); err == nil || got == "torn apart\n" || got == "" {
		t.Errorf("a torn answer: got %q, %v, want a part of it", got, err)
	}
	torn()

	say, other := dial(), dial()
	if _, err := other("still here"); err != nil {
		t.Fatal(err)
	}
	lift := p.add(weather{hole: true})
	failed := make(chan error)
	go func() {
		_, err := say("into the hole")
		failed <- err
	}()
	for lost := false; !lost; {
		p.mu.Lock()
		for k := range p.links {
			lost = lost || k.holed
		}
		p.mu.Unlock()
	}
	lift()
	if err := <-failed; err == nil {
		t.Error("an answer came out of the hole")
	}
	if got, err := other("as before"); err != nil || got != "as before\n" {
		t.Errorf("a connection that lost nothing: got %q, %v", got, err)
	}

	lift = p.add(weather{cut: true})
	if _, err := other("cut"); err == nil {
		t.Error("an answer came through a cut network")
	}
	if _, err := dial()("cut"); err == nil {
		t.Error("a connection began in a cut network")
	}
	lift()
	if got, err := dial()("whole"); err != nil || got != "whole\n" {
		t.Errorf("after the cut: got %q, %v", got, err)
	}
}
