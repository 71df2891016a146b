package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
)

// stopLimit is what a member may take to stop, on a busy machine.
func (s *stage) stopLimit() time.Duration { return s.drain + 8*time.Second + patience }

func newPipe(t testing.TB) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "pipe")
	must(t, syscall.Mkfifo(path, 0o600))
	return path
}

// reader waits until p reads the pipe, and returns its writing end.
func (p *process) reader(pipe string) (w *os.File) {
	p.t.Helper()
	eventually(p.t, patience, p.name+" reads "+pipe, func() bool {
		var err error
		w, err = os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err == nil || !p.running()
	})
	if w == nil {
		p.t.Fatalf("%s ended with %v and has not read %s; its stderr:\n%s", p.name, p.cmd.ProcessState, pipe, p.stderr.String())
	}
	return w
}

const hungConfig = `kafka: {brokers: ["127.0.0.1:1"], topics: [events], group: g, tls: {enabled: true%s}}
zerobus: {workspace_url: "http://127.0.0.1:1", client_id: x, client_secret: y, catalog: c, schema: s, table: t}
`

// A pipe that nobody writes to and a file without an end are named with their key,
// within seconds and without filling memory, whatever they are given as.
func TestFilesThatNeverAnswer(t *testing.T) {
	const memory = 1 << 30 // of the build with the race detector; /dev/zero took twice as much
	for _, tc := range []struct{ name, tls, set, key string }{
		{"configuration", "", "", ""},
		{"blueprint", "", "mapping.blueprint", "mapping.blueprint"},
		{"secret", "", "zerobus.client_secret_file", "zerobus.client_secret_file"},
		{"token", "", "ops.token_file", "ops.token_file"},
		{"authority", "", "kafka.tls.ca_file", "kafka.tls.ca_file"},
		{"certificate", ", key_file: /dev/null", "kafka.tls.cert_file", "kafka.tls.cert_file"},
	} {
		for _, file := range []string{"a pipe", "/dev/zero"} {
			t.Run(tc.name+" "+strings.Trim(file, "/"), func(t *testing.T) {
				t.Parallel()
				config := filepath.Join(t.TempDir(), "bridge.yaml")
				must(t, os.WriteFile(config, fmt.Appendf(nil, hungConfig, tc.tls), 0o600))
				path, words := file, "larger than"
				if file == "a pipe" {
					path, words = newPipe(t), "nobody has written to this pipe since"
				}
				args := []string{"run", "--config", config, "--ops-address", "127.0.0.1:0"}
				if tc.set == "" {
					args[2] = path
				} else {
					args = append(args, "--set", tc.set+"="+path)
				}
				if tc.set == "zerobus.client_secret_file" {
					args = append(args, "--set", "zerobus.client_id=x")
					must(t, os.WriteFile(config, []byte(strings.Replace(fmt.Sprintf(hungConfig, tc.tls), "client_secret: y, ", "", 1)), 0o600))
				}
				p, code := run(t, newEvidence(t), command{args: args})
				if code != 2 {
					t.Errorf("got exit code %d, want 2", code)
				}
				wants(t, p.stderr.String(), path, words, tc.key)
				if used, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && used.Maxrss<<10 > memory {
					t.Errorf("got %d MiB of memory used, want less than %d", used.Maxrss>>10, memory>>20)
				}
			})
		}
	}
}

// A configuration may come through a pipe, as from <(...) or standard input.
func TestConfigurationFromAPipe(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(hungConfig, "") + "delivery: {drain: soon}\n"
	p, code := run(t, newEvidence(t), command{args: []string{"run", "--config", "/dev/stdin"}, stdin: text})
	if code != 2 {
		t.Errorf("/dev/stdin: got exit code %d, want 2", code)
	}
	wants(t, p.stderr.String(), "/dev/stdin:3", "delivery.drain", `"soon"`)

	pipe := newPipe(t)
	p = start(t, newEvidence(t), command{args: []string{"run", "--config", pipe}})
	w := p.reader(pipe)
	_, err := io.WriteString(w, text)
	must(t, err)
	must(t, w.Close())
	if code := p.wait(patience); code != 2 {
		t.Errorf("a named pipe: got exit code %d, want 2", code)
	}
	wants(t, p.stderr.String(), pipe+":3", "delivery.drain", `"soon"`)
}

// A configuration that came through a pipe stays in force until the pipe is written
// to again.
func TestReloadFromAPipe(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		text, err := os.ReadFile(s.config)
		must(t, err)
		must(t, os.Remove(s.config))
		must(t, syscall.Mkfifo(s.config, 0o600))
		put := func(p *process, more string) {
			t.Helper()
			w := p.reader(s.config)
			_, err := io.WriteString(w, string(text)+more)
			must(t, err)
			must(t, w.Close())
		}
		m := s.begin()
		put(m.process, "")
		m.ready()
		m.signal(syscall.SIGHUP)
		eventually(t, patience, "a reload by SIGHUP", func() bool { return strings.Contains(m.stderr.String(), `"because":"SIGHUP"`) })
		m.generation(1)
		wrote := make(chan error, 1)
		go func() { wrote <- os.WriteFile(s.config, append(text, "log: {level: debug}\n"...), 0o600) }() // waits for the next look
		m.generation(2)
		must(t, <-wrote)
		s.p.events(20)
		s.complete(m)
		m.terminate(s.drain + time.Second + slack)
	})
}

// SIGHUP means to reload from the start on: a supervisor that sends one before the
// configuration is read does not kill the bridge.
func TestSIGHUPBeforeTheConfigurationIsRead(t *testing.T) {
	t.Parallel()
	for range 20 {
		pipe := newPipe(t)
		p := start(t, newEvidence(t), command{args: []string{"run", "--config", pipe}})
		w := p.reader(pipe)
		for range 3 {
			p.signal(syscall.SIGHUP)
		}
		_, err := io.WriteString(w, "kafak: {}\n")
		must(t, err)
		must(t, w.Close())
		if code := p.wait(patience); code != 2 {
			t.Fatalf("got %v, want the configuration refused with exit code 2", p.cmd.ProcessState)
		}
		wants(t, p.stderr.String(), "kafak")
	}
}

// One interrupt ends any command, and is reported as what ended it, whatever the
// command waits for.
func TestInterruptWhileSomethingIsPending(t *testing.T) {
	t.Parallel()
	const settings = "--set zerobus.client_id=x --set zerobus.table=a.b.c --set zerobus.workspace_url=http://HOLE --topics events"
	for _, args := range []string{
		"run --config PIPE",
		"check --config PIPE",
		"map PIPE",
		"map --blueprint PIPE",
		"blueprint validate PIPE",
		"ddl --set mapping.blueprint=PIPE",
		"status --address HOLE",
		"check --brokers HOLE " + settings,
		"replay --to earliest --brokers HOLE --topics events",
		"dlq list --brokers HOLE --topics events",
		"dlq redrive --brokers HOLE " + settings,
		"ddl --alter " + settings,
		"run --brokers HOLE --group once --until now " + settings,
		"map",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			pipe := newPipe(t)
			hole, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer hole.Close()
			reached := make(chan net.Conn, 100)
			go func() { // ends with the listener
				for {
					c, err := hole.Accept()
					if err != nil {
						return
					}
					reached <- c
				}
			}()
			in, out, err := os.Pipe()
			must(t, err)
			defer in.Close()
			defer out.Close()
			line := strings.NewReplacer("PIPE", pipe, "HOLE", hole.Addr().String()).Replace(args)
			p := start(t, newEvidence(t), command{args: strings.Fields(line), stdinFrom: in, env: []string{"BRIDGE_ZEROBUS_CLIENT_SECRET=y"}})
			switch {
			case strings.Contains(args, "PIPE"):
				defer p.reader(pipe).Close()
			case strings.Contains(args, "HOLE"):
				select {
				case c := <-reached:
					defer c.Close()
				case <-p.done:
					t.Fatalf("got it ended: %s", p.stderr.String())
				}
			default: // it prints the outcome of the first line, and waits for the next
				_, err := io.WriteString(out, "no event\n")
				must(t, err)
				eventually(t, patience, "the first line is mapped", func() bool { return strings.Contains(p.stderr.String(), "line 1: rejected") })
			}
			p.signal(syscall.SIGINT)
			if code := p.wait(patience); code != 1 {
				t.Errorf("got %v, want exit code 1", p.cmd.ProcessState)
			}
			wants(t, p.stdout.String()+p.stderr.String(), "interrupted")
		})
	}
}

// A log that is not read holds up nothing: what does not fit is dropped, counted,
// and reported in the log once it is read again.
func TestALogThatNobodyReads(t *testing.T) {
	eachStage(t, setting{partitions: 2}, func(t *testing.T, s *stage) {
		m, log := s.unread(t, "log.level=debug")
		m.ready()
		dropped := regexp.MustCompile(`(?m)^bridge_log_lines_dropped_total [1-9]`)
		eventually(t, 5*patience, "lines of the log dropped", func() bool { // each event is fetched and written: a dozen lines
			for range 20 {
				s.p.events(1)
			}
			s.rows(m, s.p.total())
			_, metrics := m.get("/metrics", "")
			return dropped.MatchString(metrics)
		})
		m.answers()
		if m.snapshot().LogLinesDropped == 0 {
			t.Error("/status: got no lines dropped, want some")
		}
		lines := bufio.NewReader(log)
		for seen := false; !seen; {
			line, err := lines.ReadString('\n')
			must(t, err)
			seen = strings.Contains(line, `"msg":"log lines were dropped`) && strings.Contains(line, `"lines":`)
		}
		s.complete(m)
		m.signal(syscall.SIGTERM) // nobody reads on
		if code := m.wait(s.stopLimit()); code != 0 {
			t.Errorf("got %v after SIGTERM, want exit code 0", m.cmd.ProcessState)
		}
		s.complete(nil)
	})
}

// A closed standard error is a log without a reader, and no end of the bridge.
func TestAClosedStandardError(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		m, log := s.unread(t, "log.level=debug")
		must(t, log.Close())
		m.ready()
		s.p.events(100)
		s.complete(m)
		if m.snapshot().LogLinesDropped == 0 {
			t.Error("got no lines of the log dropped, want all")
		}
		m.signal(syscall.SIGTERM)
		if code := m.wait(s.stopLimit()); code != 0 {
			t.Errorf("got %v after SIGTERM, want exit code 0", m.cmd.ProcessState)
		}
	})
}

// unread starts a member whose standard error nobody reads but through log.
func (s *stage) unread(t testing.TB, sets ...string) (m *member, log *os.File) {
	t.Helper()
	log, w, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { log.Close() })
	address := kafkatest.FreeAddress(t)
	p := start(t, s.e, command{args: append(s.args("run", sets...), "--ops-address", address), stderrTo: w})
	must(t, w.Close())
	return &member{process: p, s: s, address: address}, log
}

// answers wants the probes to be answered, and well.
func (m *member) answers() {
	m.t.Helper()
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/status"} {
		if status, body := m.get(path, ""); status != http.StatusOK {
			m.t.Errorf("%s: got %d %s, want 200", path, status, body)
		}
	}
}

// Whatever hangs, alone or beside something else, delivery continues, probes are
// answered, and SIGTERM ends the member within its drain and the grace.
func TestWedges(t *testing.T) {
	instead := func(path string, with func(t testing.TB) string) func(*testing.T, *stage) {
		return func(t *testing.T, s *stage) {
			t.Helper()
			link := filepath.Join(t.TempDir(), "link")
			must(t, os.Symlink(with(t), link))
			must(t, os.Rename(link, path))
		}
	}
	endless := func(testing.TB) string { return "/dev/zero" }
	type wedge struct {
		name string
		put  func(t *testing.T, s *stage)
	}
	wedges := []wedge{
		{"log", nil},
		{"configuration", func(t *testing.T, s *stage) { instead(s.config, newPipe)(t, s) }},
		{"blueprint", func(t *testing.T, s *stage) { instead(s.config+".blueprint", newPipe)(t, s) }},
		{"secret", func(t *testing.T, s *stage) { instead(s.ws.file, newPipe)(t, s) }},
		{"endless secret", func(t *testing.T, s *stage) { instead(s.ws.file, endless)(t, s) }},
		{"endless blueprint", func(t *testing.T, s *stage) { instead(s.config+".blueprint", endless)(t, s) }},
	}
	try := func(t *testing.T, put ...wedge) {
		t.Parallel()
		s := newStage(t, kafkatest.StartFake(t, kafkatest.Options{}), setting{partitions: 2})
		plan := s.config + ".blueprint"
		must(t, os.WriteFile(plan, []byte(localeFrom("user_id")), 0o600))
		sets := []string{"mapping.blueprint=" + plan}
		var m *member
		if put[0].put == nil || put[len(put)-1].put == nil {
			m, _ = s.unread(t, append(sets, "log.level=debug")...)
		} else {
			m = s.begin(sets...)
		}
		m.ready()
		s.p.events(20)
		s.rows(m, s.p.total())
		loses := false
		for _, w := range put {
			if w.put != nil {
				w.put(t, s)
				loses = loses || w.name == "endless secret"
			}
		}
		if !loses { // a secret that is wrong is no secret that hangs
			s.ws.RevokeTokens()
		}
		m.signal(syscall.SIGHUP)
		for range 5 {
			s.p.events(20)
			s.rows(m, s.p.total())
			m.answers()
		}
		m.signal(syscall.SIGHUP)
		m.signal(syscall.SIGTERM)
		if code := m.wait(s.stopLimit()); code != 0 {
			t.Errorf("got %v after SIGTERM, want exit code 0; stderr:\n%s", m.cmd.ProcessState, tail(m.stderr.String()))
		}
		s.complete(nil)
	}
	for i, one := range wedges {
		t.Run(one.name, func(t *testing.T) { try(t, one) })
		for _, other := range wedges[i+1:] {
			if !strings.HasSuffix(other.name, one.name) {
				t.Run(one.name+" and "+other.name, func(t *testing.T) { try(t, one, other) })
			}
		}
	}
}
