package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	queries "net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

const twoEvents = `{"type":"track","event":"Products Searched","message_id":"m-1","userId":"u","timestamp":"2026-03-04T09:00:00Z","properties":{"query":"tea"}}
{"type":"page","message_id":"m-2","properties":{"title":"Home"}}
`

func TestMapMakesRows(t *testing.T) {
	t.Parallel()
	e := newEvidence(t)
	p, code := run(t, e, command{args: []string{"map"}, stdin: twoEvents})
	want := `{"event_name":"products_searched","event_type":"track","message_id":"m-1","user_id":"u","event_timestamp":1772614800000000}` + "\n" +
		`{"event_type":"page","message_id":"m-2"}` + "\n"
	if code != 0 || p.stdout.String() != want || p.stderr.String() != "" {
		t.Errorf("got exit code %d, rows\n%s and %q, want 0 and\n%s", code, p.stdout.String(), p.stderr.String(), want)
	}

	p, code = run(t, e, command{args: []string{"map", "--optional"}, stdin: twoEvents})
	wants(t, p.stdout.String(), `"search_query":"tea"`, `"page_title":"Home"`)
	if code != 0 {
		t.Errorf("--optional: got exit code %d, want 0", code)
	}

	p, code = run(t, e, command{args: []string{"map"}, stdin: "nonsense\n" + twoEvents})
	if code != 1 || p.stdout.String() != want {
		t.Errorf("got exit code %d and rows\n%s, want 1 and the good rows", code, p.stdout.String())
	}
	wants(t, p.stderr.String(), "line 1: rejected (not_json):")
}

func TestMapExplains(t *testing.T) {
	t.Parallel()
	e := newEvidence(t)
	p, code := run(t, e, command{args: []string{"map", "--explain"}, stdin: twoEvents})
	if code != 0 {
		t.Errorf("got exit code %d, want 0", code)
	}
	said := regexp.MustCompile(` +`).ReplaceAllString(p.stdout.String(), " ")
	wants(t, said, "line 1: row", "user_id STRING \"u\" from userId", "line 2: row", "event_name STRING NULL")

	p, code = run(t, e, command{args: []string{"map", "--explain", "--output", "json"}, stdin: twoEvents + "[1]\n"})
	if code != 1 {
		t.Errorf("got exit code %d of an event that is rejected, want 1", code)
	}
	var outcomes []string
	decoder := json.NewDecoder(strings.NewReader(p.stdout.String()))
	for {
		var one struct {
			Outcome string `json:"outcome"`
			Code    string `json:"code"`
			Columns []struct {
				Name   string `json:"name"`
				Source string `json:"source"`
				Why    string `json:"why"`
			} `json:"columns"`
		}
		if err := decoder.Decode(&one); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in %s", err, p.stdout.String())
		}
		outcomes = append(outcomes, one.Outcome+one.Code)
		for _, c := range one.Columns {
			if one.Outcome == "row" && (c.Source == "") == (c.Why == "") {
				t.Errorf("column %s: got source %q and why %q, want one of the two", c.Name, c.Source, c.Why)
			}
		}
	}
	if got := fmt.Sprint(outcomes); got != "[row row rejectnot_object]" {
		t.Errorf("got outcomes %s, want two rows and a reject", got)
	}
}

const blueprint = `version: 2
extends: default
global:
  mappings:
    - {source: properties.revenue, target: revenue, type: "DECIMAL(10,2)"}
    - {source: $kafka.offset, target: source_offset, type: BIGINT}
    - {source: properties, target: properties, transform: json}
    - {source: null, target: user_agent}
`

// What `bridge ddl` prints makes a table that `bridge run` writes to.
func TestDDLMakesTheTable(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		file := filepath.Join(t.TempDir(), "blueprint.yaml")
		must(t, os.WriteFile(file, []byte(blueprint), 0o600))
		const fresh = "datafly.events.orders"
		p, code := run(t, s.e, command{args: append(s.args("ddl", "zerobus.table="+fresh, "mapping.blueprint="+file), "--dedupe-view")})
		if code != 0 {
			t.Fatalf("got exit code %d, want 0", code)
		}
		sql := p.stdout.String()
		wants(t, sql, "CREATE CATALOG IF NOT EXISTS", "CREATE SCHEMA IF NOT EXISTS", "GRANT USE CATALOG ON CATALOG `datafly` TO `"+clientID+"`", "MODIFY ON TABLE", "CREATE OR REPLACE VIEW", "message_id")
		create := regexp.MustCompile(`(?s)CREATE TABLE.*?;`).FindString(sql)
		if _, err := s.ws.CreateTable(create); err != nil {
			t.Fatalf("the workspace refuses %s: %v", create, err)
		}
		s.p.events(5)
		m := s.beginReady("zerobus.table="+fresh, "mapping.blueprint="+file)
		table := s.ws.Table(fresh)
		eventually(t, patience, "5 rows in the new table", func() bool { return table.Count() == 5 })
		row := table.Newest(1)[0]
		for column, want := range map[string]string{"message_id": "0-4", "source_offset": "4", "revenue": "12.5", "properties": `{"revenue":12.5,"note":""}`, "user_agent": ""} {
			if got, _ := row.Value(column); got != want {
				t.Errorf("%s: got %q, want %q", column, got, want)
			}
		}
		m.alive()
	})
}

func TestEmulatorCommandServes(t *testing.T) {
	t.Parallel()
	e := newEvidence(t)
	address := kafkatest.FreeAddress(t)
	secret := newSecret()
	e.secret("the emulator's secret", secret)
	p := start(t, e, command{args: []string{"emulator", "--listen", address, "--client-secret", secret, "--jsonl", filepath.Join(t.TempDir(), "rows.jsonl")}})
	url := "http://" + address
	eventually(t, patience, "the emulator", func() bool { return strings.Contains(p.stderr.String(), "emulated workspace at "+url) })

	ingest := func(token string) int {
		t.Helper()
		status, _ := fetch(t, url+emulator.IngestPath, `{"table":"`+tableName+`","records":[{"message_id":"m-1"}]}`, "application/json", "Bearer "+token)
		return status
	}
	if status := ingest("none"); status != http.StatusUnauthorized {
		t.Errorf("ingest with a wrong token: got %d, want 401", status)
	}
	status, body := fetch(t, url+emulator.TokenPath, "grant_type=client_credentials&scope=all-apis", "application/x-www-form-urlencoded",
		"Basic "+base64.StdEncoding.EncodeToString([]byte(emulator.DefaultClientID+":"+queries.QueryEscape(secret))))
	var granted struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &granted); err != nil || granted.Token == "" {
		t.Fatalf("token: got %d and no token: %v", status, err)
	}
	e.secret("a token", granted.Token)
	if status := ingest(granted.Token); status != http.StatusOK {
		t.Errorf("ingest: got %d, want 200", status)
	}
	resp, err := browser.Get(url + "/emulator/tables/" + tableName + "/count")
	must(t, err)
	defer resp.Body.Close()
	count, err := io.ReadAll(resp.Body)
	must(t, err)
	wants(t, string(count), `"rows":1`)
	p.signal(syscall.SIGINT)
	if code := p.wait(patience); code != 0 {
		t.Errorf("after Ctrl-C: got exit code %d, want 0", code)
	}
}

// fetch posts a body.
func fetch(t *testing.T, url, body, kind, authorization string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	must(t, err)
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Authorization", authorization)
	resp, err := browser.Do(req)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// A workspace over TLS, from the command line alone: the emulator's certificate
// is what zerobus.ca_file names.
func TestEmulatorCommandServesABridgeOverTLS(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		address, ca := kafkatest.FreeAddress(t), filepath.Join(t.TempDir(), "ca.pem")
		p := start(t, s.e, command{args: []string{"emulator", "--listen", address, "--tls", "--ca-out", ca, "--client-id", clientID, "--client-secret", s.ws.secret}})
		url := "https://" + address
		eventually(t, patience, "the emulator", func() bool { return strings.Contains(p.stderr.String(), "ca_file: "+ca) })
		wants(t, p.stderr.String(), "workspace_url: "+url, "table: stream")

		m := s.begin("zerobus.workspace_url=" + url)
		m.blocked("sink_unreachable", patience)
		eventually(t, patience, "the line about it", func() bool { return strings.Contains(m.stderr.String(), "waiting for dependency") })
		wants(t, m.stderr.String(), "certificate is not trusted", "zerobus.ca_file")
		m.terminate(s.drain + time.Second + slack)

		m = s.beginReady("zerobus.workspace_url="+url, "zerobus.ca_file="+ca, "zerobus.gzip=true")
		s.p.events(50)
		s.commits()
		if got := m.snapshot().Totals.RowsDelivered; got != 50 {
			t.Errorf("got %d rows delivered, want 50", got)
		}
	})
}
