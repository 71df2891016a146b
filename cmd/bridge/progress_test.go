package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"
)

func TestProgressLineFitsATerminal(t *testing.T) {
	var pc pace
	pc.note(noon, 0)
	pc.note(noon.Add(2*time.Second), 5000)
	for _, tc := range []struct {
		p    consumer.Progress
		want string
	}{
		{consumer.Progress{Total: 10_000, Done: 5000, Partitions: 4, Reached: 1}, "[==========          ]  50.0%  2500 events/s  ETA 2s  lag 5000"},
		{consumer.Progress{Partitions: 1}, "[                    ]   0.0%  2500 events/s  ETA -  lag 0"},
		{consumer.Progress{Total: 10_000, Done: 10_000, Partitions: 4, Reached: 3}, "[=================== ]  99.9%  2500 events/s  ETA -  lag 0"},
		{consumer.Progress{Total: 10_000, Done: 10_000, Partitions: 4, Reached: 4}, "[====================] 100.0%  2500 events/s  ETA -  lag 0"},
	} {
		got := progressLine(tc.p, &pc)
		if got != tc.want || len(got) > 80 {
			t.Errorf("%+v: got %q, want %q", tc.p, got, tc.want)
		}
	}
}

func TestPaceIsThatOfTheLastSeconds(t *testing.T) {
	var pc pace
	if pc.note(noon, 7); pc.rate() != 0 || pc.eta(100) != 0 {
		t.Errorf("got %v events/s of one moment, want 0", pc.rate())
	}
	for i := range 60 { // fast for half a minute, then 100 a second
		done := int64(i * 100_000)
		if i >= 30 {
			done = 3_000_000 + int64(i)*100
		}
		pc.note(noon.Add(time.Duration(i+1)*time.Second), done)
	}
	if got := pc.rate(); got != 100 {
		t.Errorf("got %v events/s, want 100", got)
	}
	if got := pc.eta(6000); got != time.Minute {
		t.Errorf("got %v left, want a minute", got)
	}
	if len(pc.at) > 12 {
		t.Errorf("got %d moments kept, want those of %v", len(pc.at), rateOver)
	}
}

func TestBarStaysBelowTheLog(t *testing.T) {
	for _, colour := range []bool{false, true} {
		var screen bytes.Buffer
		b := &bar{w: &screen, style: style{live: true, colour: colour}}
		b.show("[==]")
		if _, err := b.Write([]byte("a log line\n")); err != nil {
			t.Fatal(err)
		}
		b.show("[===]")
		b.end()
		b.end()
		const clear = "\r\x1b[2K"
		want := "[==]" + clear + "a log line\n[==]" + clear + "[===]\n"
		if got := strings.NewReplacer("\x1b[32m", "", "\x1b[0m", "").Replace(screen.String()); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := strings.Contains(screen.String(), "\x1b[32m"); got != colour {
			t.Errorf("got colours %v, want %v", got, colour)
		}
	}
	if newBar(&bytes.Buffer{}, newStyle("always", &bytes.Buffer{})) != nil {
		t.Error("got a bar where there is no terminal")
	}
}

// busyTerminal is one that stands still.
type busyTerminal struct {
	bytes.Buffer
	busy bool
}

func (b *busyTerminal) Busy() bool { return b.busy }

// A terminal that was stopped does not get all the lines it missed.
func TestBarSkipsATerminalThatStandsStill(t *testing.T) {
	var screen busyTerminal
	b := &bar{w: &screen, style: style{live: true}}
	b.show("[=  ]")
	screen.busy = true
	for range 100 {
		b.show("[== ]")
	}
	screen.busy = false
	b.show("[===]")
	if got, want := screen.String(), "[=  ]"+eraseLine+"[===]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
