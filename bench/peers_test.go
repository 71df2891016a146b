package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/procfs"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus/emulator"
)

func peerFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "peer.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPeerFiles(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"name: X\ncommand: [x, '{{.Brokers}}']\nenv: {A: b}\nfiles: {a.yaml: 'topic: {{.Topic}}'}", ""},
		{"", "a name and a command"},
		{"name: X", "a name and a command"},
		{"name: X\ncommand: [x]\ncolour: red", "colour"},
		{"name: X\ncommand: ['{{.Colour}}']", "Colour"},
		{"name: X\ncommand: ['{{.Topic']", "unclosed"},
		{"name: X\ncommand: [x]\nfiles: {../x: y}", "no plain file name"},
		{"name: X\ncommand: [x]\nfiles: {a/x: y}", "no plain file name"},
	} {
		_, err := readPeer(peerFile(t, tc.text))
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.text, err, tc.want)
		}
	}
	if _, err := readPeer("no such file"); err == nil {
		t.Error("a file that does not exist: got no error")
	}
}

// The files that bench brings along name the broker, the topic, a new group and the
// sink, and leave nothing unfilled.
func TestPeersOfThisRepository(t *testing.T) {
	files, err := filepath.Glob("peers/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("got %v, %v; want the files of four peers", files, err)
	}
	for _, file := range files {
		p, err := readPeer(file)
		if err != nil {
			t.Error(err)
			continue
		}
		q, err := p.filled(peerData{Here: "/here", Dir: "/dir", Brokers: "a:1,b:2", Topic: "events", Group: "group-7", Workspace: "http://sink", Ingest: "http://sink/ingest", Rows: "http://sink/rows", Table: "a.b.c"})
		if err != nil {
			t.Error(err)
		}
		text := fmt.Sprint(q.Command, q.Env, q.Files)
		for _, want := range []string{"a:1,b:2", "events", "group-7", "http://sink", "a.b.c"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is not in its command or files: %s", file, want, text)
			}
		}
		if len(p.Needs) == 0 || strings.Contains(text, "{{") {
			t.Errorf("%s: got needs %v and %s", file, p.Needs, text)
		}
	}
}

func TestPeerWithoutItsProgram(t *testing.T) {
	if got := (&peer{Needs: []string{"sh", "no-such-program-here"}}).missing(); got != "no-such-program-here" {
		t.Errorf("got %q", got)
	}
	if got := (&peer{Needs: []string{"sh"}}).missing(); got != "" {
		t.Errorf("got %q missing", got)
	}
}

func TestPeerThatDoesNotBuild(t *testing.T) {
	p := &peer{Name: "X", Build: [][]string{{"sh", "-c", "echo out of tea; exit 1"}}}
	if err := p.build(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "out of tea") {
		t.Errorf("got %v, want its output", err)
	}
}

// A peer may end in any way that SIGTERM explains, but not before.
func TestPeerThatEnds(t *testing.T) {
	for script, want := range map[string]string{
		"echo ready; exec tail -f /dev/null":                                      "",
		"trap 'exit 143' TERM; sh -c 'echo ready; exec tail -f /dev/null' & wait": "",
		"trap 'exit 0' TERM; sh -c 'echo ready; exec tail -f /dev/null' & wait":   "",
		"trap 'exit 5' TERM; sh -c 'echo ready; exec tail -f /dev/null' & wait":   "exit status 5",
		"echo ready; echo out of tea >&2; exit 143":                               "out of tea",
		"echo ready; exit 0":                             "ended without being stopped",
		"trap '' TERM; echo ready; kill -9 $$; echo not": "ended without being stopped",
	} {
		c, err := start(t.Context(), t.TempDir(), "peer", inherited(), "/bin/sh", "-c", script)
		if err != nil {
			t.Fatal(err)
		}
		<-c.lines // it is ready
		if strings.Contains(want, "ended") || strings.Contains(want, "tea") {
			<-c.done
		}
		err = c.end()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", script, err, want)
		}
	}
}

// What a subject starts counts as its own, however deep.
func TestProcessTree(t *testing.T) {
	at := func(pid, parent int) procfs.ProcStat { return procfs.ProcStat{PID: pid, PPID: parent} }
	machine := table{0: {at(1, 0)}, 1: {at(10, 1), at(20, 1)}, 10: {at(11, 10), at(12, 10)}, 12: {at(13, 12)}}
	got := map[int]bool{}
	for _, s := range machine.tree(10) {
		got[s.PID] = true
	}
	if len(got) != 4 || !got[10] || !got[11] || !got[12] || !got[13] {
		t.Errorf("got %v, want 10 to 13", got)
	}
	if got := machine.tree(99); len(got) != 0 {
		t.Errorf("a process that has ended: got %v", got)
	}
}

func TestProcessesBelowASubject(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("bench reads /proc")
	}
	c, err := start(t.Context(), t.TempDir(), "peer", inherited(), "/bin/sh", "-c", "sh -c 'echo ready; exec tail -f /dev/null' & wait")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.end(); err != nil {
			t.Error(err)
		}
	}()
	<-c.lines
	_, alone, err := memoryOf(c.pid)
	if err != nil {
		t.Fatal(err)
	}
	await.That(t, "the memory of the shell and of what it started", func() bool {
		_, both, err := memoryOfTree(c.pid)
		return err == nil && both > alone
	})
	if _, err := readCPU(c.pid); err != nil {
		t.Error(err)
	}
}

// A program that can send no more than an array reaches the same table.
func TestBareRows(t *testing.T) {
	var path, body string
	rec := httptest.NewRecorder()
	bareRows(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		path, body = r.URL.Path, string(text)
	}))(rec, httptest.NewRequest(http.MethodPost, rowsPath, strings.NewReader(`[{"a":1}]`)))
	if path != emulator.IngestPath || body != `{"table":"`+benchTable+`","records":[{"a":1}]}` {
		t.Errorf("got %s at %s", body, path)
	}
}

func TestPeersReport(t *testing.T) {
	of := func(name string, micros ...float64) series {
		s := series{Name: name}
		for _, m := range micros {
			s.Runs = append(s.Runs, figures{CPUMicros: m, PerCPU: 1e6 / m, PeakMemory: 64 << 20})
		}
		s.summarise(s.Runs)
		return s
	}
	// Both rates differ from round to round; the ratio is taken within each.
	report := peersResult{comparison{Series: []series{of("poll-only", 1, 2, 1), of("bridge", 2, 4, 4), of("naive", 8, 16, 20)}}, []string{"Vector needs vector"}}.String()
	got := strings.Join(strings.Fields(report), " ")
	for _, want := range []string{"poll-only 0 1000000 1.00 64 MiB 0.00 s 1.000 2.000 2.000 4.000", "naive 0 62500 16.00 64 MiB 0.00 s 0.125 0.250 0.200 0.250", "left out: Vector needs vector"} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %q in it", report, want)
		}
	}
}
