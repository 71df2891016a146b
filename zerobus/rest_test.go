package zerobus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus"
)

// insertion is one arrival at the insert path of the endpoint.
type insertion struct {
	path string
	body string
	head http.Header
}

// resting returns a client of the rest transport whose endpoint answers with
// answer; nil: it takes everything.
func resting(t *testing.T, answer http.HandlerFunc, change func(*zerobus.Config)) (bench, *[]insertion) {
	t.Helper()
	got := &[]insertion{}
	b := virtualOver(t, func(c *zerobus.Config) {
		c.Transport, c.Endpoint = zerobus.TransportREST, "1234567890123456.zerobus.us-west-2.cloud.databricks.com"
		if change != nil {
			change(c)
		}
	}, func(space http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/zerobus/") {
				space.ServeHTTP(w, r)
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Errorf("reading a body: %v", err)
			}
			*got = append(*got, insertion{r.Host + r.URL.EscapedPath(), string(body), r.Header})
			if answer != nil {
				answer(w, r)
				return
			}
			io.WriteString(w, "{}")
		})
	})
	return b, got
}

func TestInsert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, got := resting(t, nil, func(c *zerobus.Config) { c.Catalog, c.Table = "data fly?", "st#ream"; c.Catalog = "data%fly" })
		write(t, b, rows(2))
		write(t, b, rows(1))
		first := (*got)[0]
		if want := "1234567890123456.zerobus.us-west-2.cloud.databricks.com/zerobus/v1/tables/data%25fly.events.st%23ream/insert"; first.path != want {
			t.Errorf("asked %s, want %s", first.path, want)
		}
		if want := "[" + string(row(0)) + "," + string(row(1)) + "]"; first.body != want {
			t.Errorf("body is %s, want %s", first.body, want)
		}
		if want := "[" + string(row(0)) + "]"; (*got)[1].body != want {
			t.Errorf("body of one row is %s, want %s", (*got)[1].body, want)
		}
		for key, want := range map[string]string{"Content-Type": "application/json", "Authorization": "Bearer token-1-of-test",
			"Content-Encoding": "", "Unity-Catalog-Endpoint": "https://abc-12345.cloud.databricks.com"} {
			if got := first.head.Get(key); got != want {
				t.Errorf("header %s is %q, want %q", key, got, want)
			}
		}
		if err := b.Preflight(t.Context()); err != nil || (*got)[2].body != "[]" {
			t.Errorf("Preflight: %v with body %q, want nil and an empty array", err, (*got)[2].body)
		}
	})
}

func TestInsertAnswers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		status  int
		header  string // X-Databricks-Reason-Phrase
		body    string
		outcome string // refused code, blocked or retried
		want    string // in the refusal or the state
	}{
		{"bad row", 400, "", `{"error_code":"INVALID_PARAMETER_VALUE","message":"unrecognized field name 'n' at line 1 column 285. Error Code: 4044, Error State: 3."}`, "schema_mismatch", "unrecognized field"},
		{"bad row, code as number", 400, "", `{"error_code":400,"message":"no"}`, "refused", "no"},
		{"not this workspace", 400, "", ``, "blocked", "does not serve this workspace"},
		{"too large", 413, "", ``, "too_large", "lower delivery.max_bytes"},
		{"token", 401, "Invalid token audience", ``, "blocked", "Invalid token audience"},
		{"token, code as number", 401, "", `{"error_code":401,"message":"no"}`, "blocked", "401"},
		{"grants", 403, "", `{"error_code":"PERMISSION_DENIED","message":"missing MODIFY"}`, "blocked", "GRANT SELECT, MODIFY ON TABLE"},
		{"table", 404, "", `{"error_code":"NOT_FOUND","message":"Table \"a.b.c\" cannot be found."}`, "blocked", "bridge ddl"},
		{"kind of table", 501, "", `{"error_code":"NOT_IMPLEMENTED"}`, "blocked", "managed Delta table"},
		{"elsewhere", 302, "", ``, "blocked", "zerobus.endpoint"},
		{"busy", 503, "", `<html>`, "retried", "503"},
		{"throttled", 429, "", `{}`, "retried", "429"},
		{"a proxy's page", 200, "", `<html>`, "retried", "does not confirm"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var fixed atomic.Bool
				b, _ := resting(t, func(w http.ResponseWriter, _ *http.Request) {
					if fixed.Load() {
						io.WriteString(w, "{}")
						return
					}
					if tt.header != "" {
						w.Header().Set("X-Databricks-Reason-Phrase", tt.header)
					}
					w.Header().Set("Location", "https://elsewhere.example/")
					w.WriteHeader(tt.status)
					io.WriteString(w, tt.body)
				}, nil)
				b.SetRowColumns(rowColumns)
				done := inBackground(t.Context(), b, rows(2))
				after(100 * time.Millisecond)
				state := b.State()
				reported := state.Reason + "; " + state.Remedy
				switch tt.outcome {
				case "blocked", "retried":
					want := map[string]string{"blocked": zerobus.Blocked, "retried": zerobus.Retrying}[tt.outcome]
					if state.Name != want || !strings.Contains(reported, tt.want) {
						t.Errorf("state is %+v, want %s with %q", state, want, tt.want)
					}
					fixed.Store(true)
					if err := <-done; err != nil {
						t.Errorf("Write: %v", err)
					}
				default:
					err := <-done
					var no *zerobus.RefusedError
					if !errors.As(err, &no) || !strings.Contains(err.Error(), tt.want) {
						t.Fatalf("Write: %v, want a refusal with %q", err, tt.want)
					}
					if code, _ := no.Refused(); code != tt.outcome {
						t.Errorf("code is %q, want %q", code, tt.outcome)
					}
				}
			})
		})
	}
}

func TestAGrantGivenLaterIsInAFreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := resting(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer token-3-of-test" {
				fail(w, 403, "PERMISSION_DENIED", "the token lacks MODIFY")
				return
			}
			io.WriteString(w, "{}")
		}, nil)
		start := time.Now()
		write(t, b, rows(1))
		if got := time.Since(start); got != 30*time.Second {
			t.Errorf("rows were taken after %v, want at the first probe, after 30s", got)
		}
	})
}

func TestATokenForTheEndpoint(t *testing.T) {
	for _, omit := range []bool{false, true} {
		t.Run(fmt.Sprint("omit operations ", omit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked []map[string]string
				b, _ := resting(t, nil, func(c *zerobus.Config) { c.OmitOperations = omit })
				b.space.onToken = func(_ http.ResponseWriter, r *http.Request) bool {
					form := map[string]string{"resource": r.FormValue("resource"), "authorization_details": r.FormValue("authorization_details")}
					asked = append(asked, form)
					return false
				}
				write(t, b, rows(1))
				if _, err := b.Columns(t.Context()); err != nil {
					t.Fatalf("Columns: %v", err)
				}
				if len(asked) != 2 {
					t.Fatalf("%d tokens, want 2: one for rows, one for Unity Catalog", len(asked))
				}
				if want := "api://databricks/workspaces/1234567890123456/zerobusDirectWriteApi"; asked[0]["resource"] != want {
					t.Errorf("resource is %q, want %q", asked[0]["resource"], want)
				}
				var details []map[string]any
				if err := json.Unmarshal([]byte(asked[0]["authorization_details"]), &details); err != nil || len(details) != 3 {
					t.Fatalf("authorization_details is %q, want three objects", asked[0]["authorization_details"])
				}
				for i, want := range []string{"CATALOG datafly [USE CATALOG]", "SCHEMA datafly.events [USE SCHEMA]", "TABLE datafly.events.stream [SELECT MODIFY]"} {
					d := details[i]
					if got := fmt.Sprint(d["object_type"], " ", d["object_full_path"], " ", d["privileges"]); got != want || d["type"] != "unity_catalog_privileges" {
						t.Errorf("privilege %d is %s of type %v, want %s", i, got, d["type"], want)
					}
				}
				want := any([]any{"zerobuswrite"})
				if omit {
					want = nil
				}
				if got := details[2]["operations"]; fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("operations is %v, want %v", got, want)
				}
				if asked[1]["resource"] != "" || asked[1]["authorization_details"] != "" {
					t.Errorf("the token for Unity Catalog was asked with %v, want a plain one", asked[1])
				}
			})
		})
	}
}

func TestTheTokenEndpointReportsAMissingGrantOrTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := resting(t, nil, nil)
		b.space.onToken = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(401)
			io.WriteString(w, `{"error":"invalid_authorization_details","error_description":"User is not authorized to the requested authorizations"}`)
			return true
		}
		err := b.Token(t.Context())
		if !zerobus.IsPermanent(err) {
			t.Errorf("Token: %v, want a permanent fault", err)
		}
		for _, want := range append([]string{"or the table does not exist"}, zerobus.Grants(b.Table(), principal)...) {
			if !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("Token: %v, want it to hold %q", err, want)
			}
		}
	})
}

func TestEndpointForms(t *testing.T) {
	const host = "1234567890123456.zerobus.us-west-2.cloud.databricks.com"
	for _, tt := range []struct{ endpoint, id, want string }{
		{host, "", ""}, {host + ":8443", "", ""}, {"https://" + host, "", ""}, {"https://" + host + ":443/", "", ""}, {" " + host + " ", "", ""}, {host + "/zerobus/v1", "", ""},
		{"http://127.0.0.1:8091", "42", ""}, {"http://localhost", "", ""}, {"http://[::1]:8091", "42", ""},
		{"", "", ""}, // the workspace names it
		{"http://" + host, "", "must be https"},
		{"ftp://" + host, "", "must be an https URL"},
		{"https://", "", "must be a URL"},
		{"https://u:hunter2@" + host, "", "must not hold a user or password"},
		{"a b", "", "must be a URL"},
		{"http://[::1]:8091", "", "workspace_id"},
		{host, "12 34", "workspace_id"},
	} {
		for _, transport := range []string{zerobus.TransportGRPC, zerobus.TransportREST} {
			cfg := config("https://abc.cloud.databricks.com")
			cfg.Transport, cfg.Endpoint, cfg.WorkspaceID = transport, tt.endpoint, tt.id
			_, err := zerobus.New(cfg, nopLog, nil)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New with endpoint %q: %v, want it to hold %q", tt.endpoint, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("New: %v holds the password", err)
			}
		}
	}
	for name, change := range map[string]func(*zerobus.Config){
		"record_format":   func(c *zerobus.Config) { c.RecordFormat = "avro" },
		"streams":         func(c *zerobus.Config) { c.Streams = 65 },
		"max_in_flight":   func(c *zerobus.Config) { c.MaxInFlight = 100 },
		"columns_refresh": func(c *zerobus.Config) { c.ColumnsRefresh = -1 },
		"gRPC metadata":   func(c *zerobus.Config) { c.Table = "strøm" },
	} {
		cfg := grpcConfig()
		change(&cfg)
		if _, err := zerobus.New(cfg, nopLog, nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New: %v, want it to name %s", err, name)
		}
	}
}

func TestAlterDiff(t *testing.T) {
	table := zerobus.TableName{Catalog: "datafly", Schema: "events", Table: "stream"}
	have := []zerobus.Column{{Name: "message_id", Type: "STRING"}, {Name: "At", Type: "STRING"}, {Name: "n", Type: "STRING"}, {Name: "k", Type: "BIGINT", NotNull: true},
		{Name: "ctx", Type: "STRUCT<a:INT NOT NULL>"}}
	for _, tt := range []struct {
		name   string
		expect []zerobus.Column
		want   []string
	}{
		{"fits", []zerobus.Column{{Name: "message_id", Type: "STRING"}, {Name: "k", Type: "INT"}, {Name: "ctx", Type: "STRUCT<a:INT>"}}, nil},
		{"differs", []zerobus.Column{{Name: "x", Type: "STRING"}, {Name: "y`", Type: "DATE", NotNull: true}, {Name: "at", Type: "STRING"}, {Name: "n", Type: "BIGINT"}}, []string{
			"-- at is At in the table, and names must match exactly: change the blueprint's target",
			"ALTER TABLE `datafly`.`events`.`stream` ADD COLUMNS (`x` STRING, `y``` DATE);",
			"-- n is STRING in the table, rows carry BIGINT: set type: STRING on the blueprint's mapping",
			"ALTER TABLE `datafly`.`events`.`stream` ALTER COLUMN `k` DROP NOT NULL;",
		}},
	} {
		var got []string
		if sql := zerobus.AlterDiff(table, tt.expect, have); sql != "" {
			got = strings.Split(strings.TrimSuffix(sql, "\n"), "\n")
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: AlterDiff = %q, want %q", tt.name, got, tt.want)
		}
	}
}
