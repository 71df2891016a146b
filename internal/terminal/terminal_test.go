package terminal

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func TestReportsArePaintedByWholeLinesAlone(t *testing.T) {
	const report = "NOT READY running\nready      running\nREADY\n\nCODE  COLUMN  COUNT\nbad   NOT READY  1\nWARNING: 2 events\nTHE END\n0  A  B\n"
	const want = "\x1b[31mNOT READY\x1b[0m running\n\x1b[32mready \x1b[0m     running\nREADY\n\n\x1b[1mCODE  COLUMN  COUNT\x1b[0m\nbad   NOT READY  1\n\x1b[33mWARNING:\x1b[0m 2 events\nTHE END\n0  A  B\n"
	if got := (Style{Colour: true}).Table(report); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (Style{}).Table(report); got != report {
		t.Errorf("got %q, want it as it was", got)
	}
}

func TestTintKeepsTheText(t *testing.T) {
	look := Style{Colour: true}
	for _, line := range []string{"", "[", "[=", "[===  ]  30%", "running  1 events/s", "starting  0", "one word", "[ ]"} {
		got := strings.NewReplacer("\x1b[32m", "", "\x1b[33m", "", "\x1b[0m", "").Replace(look.tint(line))
		if got != line {
			t.Errorf("got %q of %q, want the text kept", got, line)
		}
	}
}

func TestPaceIsThatOfTheLastSeconds(t *testing.T) {
	var pc Pace
	if pc.Note(noon, 7); pc.Rate() != 0 || pc.ETA(100) != 0 {
		t.Errorf("got %v events/s of one moment, want 0", pc.Rate())
	}
	for i := range 60 { // fast for half a minute, then 100 a second
		done := int64(i * 100_000)
		if i >= 30 {
			done = 3_000_000 + int64(i)*100
		}
		pc.Note(noon.Add(time.Duration(i+1)*time.Second), done)
	}
	if got := pc.Rate(); got != 100 {
		t.Errorf("got %v events/s, want 100", got)
	}
	if got := pc.ETA(6000); got != time.Minute {
		t.Errorf("got %v left, want a minute", got)
	}
	if len(pc.at) > 12 {
		t.Errorf("got %d moments kept, want those of %v", len(pc.at), rateOver)
	}
}

func TestBarStaysBelowTheLog(t *testing.T) {
	for _, colour := range []bool{false, true} {
		var screen bytes.Buffer
		b := &Bar{w: &screen, style: Style{Live: true, Colour: colour}}
		b.Show("[==]")
		if _, err := b.Write([]byte("a log line\n")); err != nil {
			t.Fatal(err)
		}
		b.Show("[===]")
		b.End()
		b.End()
		const clear = "\r\x1b[2K"
		want := "[==]" + clear + "a log line\n[==]" + clear + "[===]\n"
		if got := strings.NewReplacer("\x1b[32m", "", "\x1b[0m", "").Replace(screen.String()); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := strings.Contains(screen.String(), "\x1b[32m"); got != colour {
			t.Errorf("got colours %v, want %v", got, colour)
		}
	}
	if NewBar(&bytes.Buffer{}, NewStyle("always", &bytes.Buffer{})) != nil {
		t.Error("got a bar where there is no terminal")
	}
}

// busyTerminal is one that is suspended.
type busyTerminal struct {
	bytes.Buffer
	busy bool
}

func (b *busyTerminal) Busy() bool { return b.busy }

// A terminal that was stopped does not get all the lines it missed.
// A report is replaced in place, cut to the window in both directions.
func TestFrameFitsTheWindow(t *testing.T) {
	var out bytes.Buffer
	f := NewFrame(&out, Style{Live: true})
	f.Show("first\nsecond\n")
	f.Show(strings.Repeat("x", 200) + "\n" + strings.Repeat("line\n", 40))
	f.Show("end\n")
	want := "first\nsecond\n" + "\r\x1b[2A\x1b[J" + strings.Repeat("x", assumedWidth-1) + "\n" + strings.Repeat("line\n", assumedHeight-3) +
		"(19 more lines; make the window higher)\n" + "\r\x1b[23A\x1b[J" + "end\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if NewFrame(&out, Style{}) != nil {
		t.Error("got a frame for what is no terminal")
	}
}

func TestBarSkipsASuspendedTerminal(t *testing.T) {
	var screen busyTerminal
	b := &Bar{w: &screen, style: Style{Live: true}}
	b.Show("[=  ]")
	screen.busy = true
	for range 100 {
		b.Show("[== ]")
	}
	screen.busy = false
	b.Show("[===]")
	screen.busy = true
	b.Show("[====]")
	b.End()
	if got, want := screen.String(), "[=  ]"+eraseLine+"[===]"+eraseLine+"[====]\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestALineIsCutBetweenFigures(t *testing.T) {
	const bar = "[====================] 100.0%  2002 events/s  lag 0  ack p99 20.6ms"
	for _, tc := range []struct {
		line, want string
		most       int
	}{
		{bar, bar, len(bar)},
		{bar, "[====================] 100.0%  2002 events/s  lag 0", len(bar) - 1},
		{bar, "[====================] 100.0%  2002 events/s  lag 0", 51}, // nothing of the next figure is there
		{bar, "[====================] 100.0%  2002 events/s", 50},
		{"[=                   ]   4.0%", "[=        ", 10},
		{"blocked  sink blocked: HTTP 403  ask", "blocked  sink blocked: HT", 25},
	} {
		if got := cut(tc.line, tc.most); got != tc.want {
			t.Errorf("%q in %d: got %q, want %q", tc.line, tc.most, got, tc.want)
		}
	}
}

func TestMarkdownIsRenderedToTheWidth(t *testing.T) {
	const page = "# Title\n\nSome `code` and a [link](x.md), [far](https://x.example) and\n**bold** text.\n\n- one that is longer than the line is wide\n- two\n\n| a | b | c |\n|---|---|---|\n| `k` | v \\| w | - |\n\n```\n  kept   as it is\n```\n"
	const want = "TITLE\n\nSome `code` and a link,\nfar (https://x.example)\nand bold text.\n\n- one that is longer than\n  the line is wide\n- two\n\nk\n    b: v | w\n\n      kept   as it is\n"
	if got := Markdown(page, "", 26, Style{}); got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	if got := Markdown(page, "", 26, Style{Colour: true}); !strings.Contains(got, "Some \x1b[1mcode\x1b[0m and") {
		t.Errorf("got %q, want code in bold", got)
	}
}
