//go:build unix

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestThePagesCallInTheDemo runs the call of Signal's integration page, as it is printed
// there, against the demo: see testdata/integration-page-install.sh. What it installs
// delivers to the page's table. The same call again is refused.
func TestThePagesCallInTheDemo(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("the page's call needs curl: %v", err)
	}
	text, err := os.ReadFile("testdata/integration-page-install.sh")
	must(t, err)
	call := string(text)
	temporary := t.TempDir()
	p, printed := startDemo(t, temporary)
	port := printed(`console and install API: http://127\.0\.0\.1:(\d+)\n`)
	rows := strings.Replace(printed(`its rows: curl -sk '(https://127\.0\.0\.1:\d+/\S+)\?limit=3'\n`), "/rows", "/count", 1)
	state := printed(`its state at (http://127\.0\.0\.1:\d+), `)
	if !strings.Contains(p.stderr.String(), strings.Replace(strings.TrimSpace(call), ":8084/", ":"+port+"/", 1)) {
		t.Errorf("the demo does not print the page's call for its own port, %s:\n%s", port, p.stderr.String())
	}
	keys, err := filepath.Glob(filepath.Join(temporary, "bridge-demo-*", "*"))
	if err != nil || len(keys) != 1 {
		t.Fatalf("got the files %q, %v, want the key of the store", keys, err)
	}
	if info, err := os.Stat(keys[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a key that only its owner reads", info, err)
	}

	status, answer := runPagesCall(t, call, port)
	if status != http.StatusCreated {
		t.Fatalf("got %d %s, want 201", status, answer)
	}
	installed := time.Now()
	var result struct {
		Integration struct {
			Slug, Table string
			Enabled     bool
		}
	}
	if err := json.Unmarshal([]byte(answer), &result); err != nil || result.Integration.Table != "datafly.events.stream" || !result.Integration.Enabled || strings.Contains(answer, "YOUR_CLIENT_SECRET") {
		t.Errorf("got %s, %v, want the integration, enabled and without its secret", answer, err)
	}
	eventually(t, patience, "rows in datafly.events.stream", func() bool {
		var count struct{ Rows int }
		return getJSON(t, &count, rows) && count.Rows > 0
	})
	t.Logf("rows arrived %v after the answer", time.Since(installed).Round(time.Millisecond))
	eventually(t, patience, result.Integration.Slug+" delivers", func() bool {
		var s struct {
			Integrations []struct {
				Integration string
				Ready       bool
				Totals      struct {
					RowsDelivered int64 `json:"rows_delivered"`
				}
			}
		}
		if getJSON(t, &s, state+"/status") {
			for _, i := range s.Integrations {
				if i.Integration == result.Integration.Slug && i.Ready && i.Totals.RowsDelivered > 0 {
					return true
				}
			}
		}
		return false
	})
	// What the data call delivered, Live Events shows as successful.
	eventually(t, patience, "a delivered event of "+result.Integration.Slug+" in Live Events", func() bool {
		var live struct{ Events []struct{ Status string } }
		return getJSON(t, &live, state+"/live/events?status=delivered&integration="+result.Integration.Slug) && len(live.Events) > 0 && live.Events[0].Status == "delivered"
	})

	if status, answer := runPagesCall(t, call, port); status != http.StatusConflict || !strings.Contains(answer, `"NAME_TAKEN"`) {
		t.Errorf("the same call again: got %d %s, want 409 NAME_TAKEN", status, answer)
	}
	p.signal(syscall.SIGINT)
	if code := p.wait(patience); code != 0 {
		t.Fatalf("got exit code %d, want 0", code)
	}
	var a demoAnswer
	a.read(t, p.stdout.String())
	if a.Others["datafly.events.stream"] == 0 || len(a.Others) != 1 {
		t.Errorf("got other tables %v, want the rows of datafly.events.stream", a.Others)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("got %v, %v, want no file left", left, err)
	}
}

// startDemo starts a demo for a while. printed waits for a line of it and returns what the
// pattern's group matched.
func startDemo(t *testing.T, temporary string) (p *process, printed func(pattern string) string) {
	t.Helper()
	p = start(t, newEvidence(t), command{env: []string{"TMPDIR=" + temporary}, args: []string{"demo", "--duration", "10m", "--rate", "200", "--output", "json", "--set", "admin.address=127.0.0.1:0"}})
	return p, func(pattern string) string {
		t.Helper()
		var found []string
		eventually(t, patience, pattern, func() bool {
			found = regexp.MustCompile(pattern).FindStringSubmatch(p.stderr.String())
			return found != nil
		})
		return found[1]
	}
}

// TestTheCallOfComposeInstallsRetail runs the call of docs/deployment.md that installs a
// third integration in compose, with the demo's workspace in place of the one of compose.
func TestTheCallOfComposeInstallsRetail(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("the call needs curl: %v", err)
	}
	page, err := os.ReadFile("../../docs/deployment.md")
	must(t, err)
	call := regexp.MustCompile("(?s)```\n(curl -X POST .*?)```").FindStringSubmatch(string(page))
	tables, err := os.ReadFile("../../deploy/compose/tables.sql")
	must(t, err)
	_, retail, found := strings.Cut(string(tables), "CREATE TABLE IF NOT EXISTS `datafly`.`events`.`retail`")
	if call == nil || !found {
		t.Fatal("docs/deployment.md has no call, or deploy/compose/tables.sql no table retail")
	}
	p, printed := startDemo(t, t.TempDir())
	port := printed(`console and install API: http://127\.0\.0\.1:(\d+)\n`)
	tablesURL := printed(`its rows: curl -sk '(https://127\.0\.0\.1:\d+/emulator/tables)/`)
	var created struct{ Created []string }
	if !getJSON(t, &created, tablesURL, "CREATE TABLE datafly.events.retail"+retail) || len(created.Created) != 1 {
		t.Fatalf("got %v, want the table retail", created)
	}
	mine := strings.NewReplacer("http://127.0.0.1:8090", "https://abc-12345.cloud.databricks.com", `"emulator"`, `"00000000-0000-0000-0000-000000000000"`, "emulator-secret", "YOUR_CLIENT_SECRET").Replace(call[1])
	if status, answer := runPagesCall(t, mine, port); status != http.StatusCreated {
		t.Fatalf("got %d %s, want 201", status, answer)
	}
	eventually(t, patience, "an order in datafly.events.retail", func() bool {
		var newest struct {
			Rows []struct{ Row map[string]any }
		}
		if getJSON(t, &newest, tablesURL+"/datafly.events.retail/rows?limit=1000") {
			for _, r := range newest.Rows {
				if r.Row["order_id"] != nil && r.Row["revenue"] != nil && r.Row["items"] != nil {
					return true
				}
			}
		}
		return false
	})
	p.signal(syscall.SIGINT)
	if code := p.wait(patience); code != 0 {
		t.Fatalf("got exit code %d, want 0", code)
	}
}

// runPagesCall runs the call as it is, in a shell. A configuration of curl leads it to
// the port and adds the status to the output.
func runPagesCall(t *testing.T, call, port string) (status int, answer string) {
	t.Helper()
	home := t.TempDir()
	settings := "connect-to = \"localhost:8084:127.0.0.1:" + port + "\"\nsilent\nshow-error\nmax-time = 60\nnoproxy = \"*\"\nwrite-out = \"\\n%{http_code}\"\n"
	must(t, os.WriteFile(filepath.Join(home, ".curlrc"), []byte(settings), 0o600))
	cmd := exec.CommandContext(t.Context(), "sh", "-c", call)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "CURL_HOME=" + home, "HOME=" + home}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the page's call: %v: %s", err, stderr.String())
	}
	cut := strings.LastIndexByte(string(out), '\n')
	if _, err := fmt.Sscan(string(out[cut+1:]), &status); err != nil {
		t.Fatalf("got %q, want a status at the end", out)
	}
	return status, string(out[:max(cut, 0)])
}

// getJSON reads an answer with curl, which the demo's own certificate does not stop, as
// the demo prints it. A body is posted.
func getJSON(t *testing.T, into any, url string, body ...string) bool {
	t.Helper()
	args := []string{"-skf", "--noproxy", "*", "--max-time", "60", url}
	for _, text := range body {
		args = append(args, "--data-binary", text)
	}
	cmd := exec.CommandContext(t.Context(), "curl", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.Output()
	return err == nil && json.Unmarshal(out, into) == nil
}

// A demo whose port for the API is taken does without, and reports it.
func TestDemoWithoutItsPort(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p, code := run(t, newEvidence(t), command{args: []string{"demo", "--events", "500", "--output", "json", "--set", "admin.address=" + ln.Addr().String()}})
	if code != 0 {
		t.Fatalf("got exit code %d, want 0", code)
	}
	wants(t, p.stderr.String(), "this demo has no install API", "admin.address "+ln.Addr().String(), "--set admin.address=127.0.0.1:0")
	if strings.Contains(p.stderr.String(), "console and install API: ") {
		t.Errorf("got %q, want no address of an API", p.stderr.String())
	}
	var a demoAnswer
	a.read(t, p.stdout.String())
	a.want(t, 500)
}
