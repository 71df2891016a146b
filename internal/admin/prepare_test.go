package admin

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/ops/access"
	"github.com/datafly/bridge/internal/setup"
)

const preparePath = Prefix + "/integration-catalog/databricks_zerobus/prepare"

// withField adds a field to the page's body for an integration.
func withField(name, value string) string {
	return strings.Replace(bodyOf("web"), "{", `{"`+name+`": "`+value+`",`, 1)
}

func TestPrepare(t *testing.T) {
	r := newRig(t)
	var plan manage.Prepared
	if w := r.send(t, "POST", preparePath+"?dry_run=true", bodyOf("web")); w.Code != 200 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	} else if decode(t, w, &plan); !plan.OK || !plan.DryRun || plan.Executed || plan.Plan[2].State != setup.WillRun || plan.Table != "datafly.events.t_web" {
		t.Errorf("dry run: got %s", w.Body)
	}
	if got := r.expect(t, 422, "VALIDATION_FAILED", "POST", preparePath, withField("token", "YOUR_TOKEN")); len(got.Fields) != 1 || got.Fields[0].Field != "token" || strings.Contains(got.Error.Message+got.Fields[0].Message, "YOUR_TOKEN") {
		t.Errorf("with a wrong token: got %+v", got)
	}
	if got := r.expect(t, 422, "VALIDATION_FAILED", "POST", preparePath, withField("warehouse_id", "none")); len(got.Fields) != 1 || got.Fields[0].Field != "warehouse_id" {
		t.Errorf("with an unknown warehouse: got %+v", got)
	}
	for _, body := range []string{strings.Replace(withField("token", "x"), `"x"`, "7", 1), withField("tokn", "x"), strings.Replace(bodyOf("web"), pageHost, "evil.example", 1)} {
		r.expect(t, 422, "VALIDATION_FAILED", "POST", preparePath, body, "Accept", "text/event-stream")
	}
	r.expect(t, 404, "NOT_FOUND", "POST", strings.Replace(preparePath, "databricks_zerobus", "other", 1), bodyOf("web"))
	w := r.send(t, "POST", preparePath, bodyOf("web"), "Accept", "text/event-stream")
	text := w.Body.String()
	for _, want := range []string{"event: step\ndata: {\"statement\":\"CREATE TABLE", `"state":"started"}`, `"state":"done"}`, "event: done\ndata: {\"ok\":true,\"executed\":true,\"changed\":true"} {
		if w.Code != 200 || !strings.Contains(text, want) {
			t.Errorf("got %d %s, want %s", w.Code, text, want)
		}
	}
	if done := strings.Index(text, `"state":"done"`); done < strings.Index(text, `"state":"started"`) {
		t.Errorf("got %s, want each statement started first", text)
	}
	logged := r.logs.FilterLevelExact(zapcore.InfoLevel).FilterMessage("workspace prepared")
	if logged.Len() != 1 || logged.All()[0].ContextMap()["table"] != "datafly.events.t_web" {
		t.Errorf("got the log %v", logged.All())
	}
}

// waiting is a manager whose statement takes 40 seconds.
type waiting struct{ Manager }

func (waiting) Catalog() ([]catalog.Vendor, error) { return catalog.Vendors("") }

func (waiting) Prepare(_ context.Context, _ manage.PrepareRequest, _ manage.Who, _ bool, step func(setup.Item)) (manage.Prepared, error) {
	time.Sleep(40 * time.Second) //nolint:forbidigo // in virtual time; nothing was sent yet
	step(setup.Item{Statement: "CREATE", State: setup.Started})
	time.Sleep(40 * time.Second) //nolint:forbidigo // in virtual time
	return manage.Prepared{Prepared: setup.Prepared{OK: true, Plan: []*setup.Item{}}}, nil
}

// A stream that waits is not silent for a minute.
func TestPrepareSendsComments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open, err := NewAccess(access.Files{}, true, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		a := New(Config{Manager: waiting{}, Access: open, Log: zap.NewNop()})
		defer a.Stop()
		for _, accept := range []string{"text/event-stream", "application/json"} {
			req := httptest.NewRequestWithContext(t.Context(), "POST", preparePath, strings.NewReader(pageBody))
			req.Host = "localhost"
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Accept", accept)
			w := httptest.NewRecorder()
			a.ServeHTTP(w, req)
			text, comments := w.Body.String(), 0
			if accept == "text/event-stream" {
				comments = 3
			}
			if w.Code != 200 || strings.Count(text, ":\n\n") != comments || comments == 0 && !strings.HasPrefix(text, "{") || comments > 0 && !strings.HasPrefix(text, "event: step\n") {
				t.Errorf("%s: got %d %q, want %d comments", accept, w.Code, text, comments)
			}
		}
	})
}
