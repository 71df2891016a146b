package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/setup"
)

func (c *call) catalog() (any, error) {
	vendors, err := c.cfg.Manager.Catalog()
	return after(c, vendors, err, func(v *catalog.Vendor) string { return v.Key })
}

func (c *call) vendor() (any, error) {
	vendors, err := c.cfg.Manager.Catalog()
	if err != nil {
		return nil, err
	}
	for _, v := range vendors {
		if v.Key == c.r.PathValue("key") {
			return v, nil
		}
	}
	return nil, notFound("the catalog has no such entry; " + Prefix + "/integration-catalog lists them")
}

// request reads the body of an install.
func (c *call) installRequest() (r manage.Request, err error) {
	if _, err = c.vendor(); err == nil {
		_, err = c.body(&r)
	}
	return r, err
}

func (c *call) install() (any, error) {
	r, err := c.installRequest()
	if err != nil {
		return nil, err
	}
	result, err := c.cfg.Manager.Install(c.r.Context(), r, c.request(), c.dryRun)
	if err == nil && !c.dryRun {
		c.w.Header().Set("Location", Prefix+"/integrations/"+result.Integration.ID)
	}
	return c.result("integration installed", result, err)
}

// result answers with the result of a change.
func (c *call) result(action string, r manage.Result, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	c.changed(action, r.Integration.Slug, zap.Int64("revision", r.Integration.Revision), zap.Strings("fields", slices.Sorted(maps.Keys(r.Changes))))
	c.tag(r.Integration.Revision)
	return r, nil
}

// tag sets the entity tag of an integration.
func (c *call) tag(revision int64) {
	if revision > 0 {
		c.w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(revision, 10)))
	}
}

func (c *call) list() (any, error) {
	all, err := c.cfg.Manager.List(c.r.Context())
	return after(c, all, err, func(i *manage.Integration) string { return i.Slug })
}

// after returns the page of items that follows the cursor. The items have the order of
// their keys.
func after[T any](c *call, items []T, err error, key func(*T) string) (any, error) {
	if err != nil {
		return nil, err
	}
	last, err := c.cursor()
	if err != nil {
		return nil, err
	}
	items = slices.DeleteFunc(slices.Clone(items), func(item T) bool { return key(&item) <= last && last != "" })
	slices.SortFunc(items, func(a, b T) int { return cmp.Compare(key(&a), key(&b)) })
	return paginate(items, c.limit(), key), nil
}

// integration returns the integration that the path names.
func (c *call) integration() (manage.Integration, error) {
	return c.cfg.Manager.Get(c.r.Context(), c.r.PathValue("id"))
}

func (c *call) get() (any, error) {
	i, err := c.integration()
	if err != nil {
		return nil, err
	}
	c.tag(i.Revision)
	return i, nil
}

func (c *call) patch() (any, error) {
	var p manage.Patch
	if _, err := c.body(&p); err != nil {
		return nil, err
	}
	return c.update("integration changed", p)
}

func (c *call) setEnabled(on bool) (any, error) {
	action := "integration disabled"
	if on {
		action = "integration enabled"
	}
	return c.update(action, manage.Patch{Enabled: &on})
}

func (c *call) update(action string, p manage.Patch) (any, error) {
	revision, err := c.revision()
	if err != nil {
		return nil, err
	}
	r, err := c.cfg.Manager.Update(c.r.Context(), c.r.PathValue("id"), p, revision, c.request(), c.dryRun)
	return c.result(action, r, err)
}

func (c *call) remove() (any, error) {
	revision, err := c.revision()
	if err != nil {
		return nil, err
	}
	r, err := c.cfg.Manager.Remove(c.r.Context(), c.r.PathValue("id"), revision, c.request(), c.dryRun)
	return c.result("integration removed", r, err)
}

func (c *call) revisions() (any, error) {
	entries, err := c.cfg.Manager.Revisions(c.r.Context(), c.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	last, err := c.cursor()
	if err != nil {
		return nil, err
	}
	if before, err := strconv.ParseInt(last, 10, 64); err == nil {
		entries = slices.DeleteFunc(slices.Clone(entries), func(e store.Entry) bool { return e.Revision >= before })
	}
	return paginate(entries, c.limit(), func(e *store.Entry) string { return strconv.FormatInt(e.Revision, 10) }), nil
}

func (c *call) diff() (any, error) {
	entries, err := c.cfg.Manager.Revisions(c.r.Context(), c.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strconv.FormatInt(e.Revision, 10) == c.r.PathValue("n") {
			if e.Changes == nil {
				e.Changes = map[string]store.Changed{}
			}
			return diff{Revision: e.Revision, Changes: e.Changes}, nil
		}
	}
	return nil, notFound("the integration has no such revision, or the audit log no longer has it; its revisions are at " + strings.TrimSuffix(c.r.URL.Path, "/"+c.r.PathValue("n")+"/diff"))
}

func (c *call) audit() (any, error) {
	before, err := c.cursor()
	if err != nil {
		return nil, err
	}
	entries, err := c.cfg.Manager.Audit(c.r.Context(), before, c.limit()+1)
	if err != nil {
		return nil, err
	}
	return paginate(entries, c.limit(), func(e *store.Entry) string { return e.ID }), nil
}

func (c *call) status() (any, error) {
	i, err := c.integration()
	if err != nil {
		return nil, err
	}
	only, _ := c.cfg.Group(c.r.Context()).Only(i.Slug) // a disabled one has no group
	return only, nil
}

// operation decodes the body of an operation, checks the reason in it, and returns the
// integration.
func (c *call) operation(body any, why *string) (none manage.Integration, err error) {
	if _, err := c.body(body); err != nil {
		return none, err
	}
	if wrong := reason.check(*why); wrong != "" {
		return none, invalid("reason", wrong, "shorten it, or take out what does not print")
	}
	return c.integration()
}

func (c *call) replay() (any, error) {
	var r pipeline.ReplayRequest
	i, err := c.operation(&r, &r.Reason)
	if err != nil {
		return nil, err
	}
	if r.By, r.RequestID, r.Execute = c.who.Name, c.id, !c.dryRun; r.Execute && i.Enabled {
		return nil, &failure{Status: http.StatusConflict, Code: manage.StillEnabled, Message: "the integration is enabled, and a replay sets its offsets only while it is not", Remedy: "disable it, replay, and enable it again"}
	}
	report, err := c.cfg.Operations.Replay(c.r.Context(), i.Slug, r)
	if err != nil {
		return nil, err
	}
	c.changed("integration replayed", i.Slug, zap.String("to", report.To), zap.Int64("delivered_again", report.Totals.Again), zap.Int64("skipped", report.Totals.Skipped), zap.String("reason", r.Reason))
	return report, nil
}

func (c *call) deadLetters() (any, error) {
	i, err := c.integration()
	if err != nil {
		return nil, err
	}
	f := pipeline.DeadLetterFilter{Codes: c.items("codes"), Column: c.params["column"]}
	f.From, _ = time.Parse(time.RFC3339, c.params["from"]) // were checked
	f.To, _ = time.Parse(time.RFC3339, c.params["to"])
	for _, text := range c.items("partitions") {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return nil, failed(http.StatusBadRequest, "INVALID_PARAMETER", `parameter "partitions" is numbers that are separated by commas, as in 0,3`)
		}
		f.Partitions = append(f.Partitions, int32(n))
	}
	groups, err := c.cfg.Operations.DeadLetters(c.r.Context(), i.Slug, f)
	return groups, err
}

func (c *call) redrive() (any, error) {
	var r pipeline.RedriveRequest
	i, err := c.operation(&r, &r.Reason)
	if err != nil {
		return nil, err
	}
	r.By, r.RequestID, r.Execute = c.who.Name, c.id, !c.dryRun
	report, err := c.cfg.Operations.Redrive(c.r.Context(), i.Slug, r)
	if err != nil {
		return nil, err
	}
	c.changed("dead letters redriven", i.Slug, zap.Int("matched", report.Matched), zap.Int("delivered", report.Delivered), zap.String("reason", r.Reason))
	return report, nil
}

func (c *call) recentEvents() (any, error) {
	i, err := c.integration()
	if err != nil {
		return nil, err
	}
	events, err := c.cfg.Operations.RecentEvents(c.r.Context(), i.Slug, c.limit())
	if err != nil {
		return nil, err
	}
	return paginate(events, c.limit(), func(*pipeline.RecentEvent) string { return "" }), nil
}

func (c *call) topics() (any, error) {
	all, err := c.cfg.Operations.Topics(c.r.Context())
	return after(c, all, err, func(t *pipeline.Topic) string { return t.Name })
}

func (c *call) validateBlueprint() (any, error) {
	var r pipeline.BlueprintRequest
	if _, err := c.body(&r); err != nil {
		return nil, err
	}
	return answered(c.cfg.Operations.ValidateBlueprint(c.r.Context(), r))
}

func (c *call) tryBlueprint() (any, error) {
	var r pipeline.TryRequest
	if _, err := c.body(&r); err != nil {
		return nil, err
	}
	if len(r.Event) == 0 {
		return nil, invalid("event", "is missing", "send the event as JSON")
	}
	return answered(c.cfg.Operations.TryBlueprint(c.r.Context(), r))
}

// answered returns an answer of any type.
func answered[T any](answer T, err error) (any, error) { return answer, err }

func (c *call) checkInstall() (any, error) {
	r, err := c.installRequest()
	if err != nil {
		return nil, err
	}
	return c.steps(func(step func(pipeline.CheckStep)) error { return c.cfg.Manager.CheckRequest(c.r.Context(), r, step) })
}

func (c *call) check() (any, error) {
	var p *manage.Patch
	var sent manage.Patch
	if ok, err := c.body(&sent); err != nil {
		return nil, err
	} else if ok {
		p = &sent
	}
	return c.steps(func(step func(pipeline.CheckStep)) error {
		return c.cfg.Manager.Check(c.r.Context(), c.r.PathValue("id"), p, step)
	})
}

// steps runs a check. To who accepts events, it sends each step as it ends, then
// "done", or "failure" if the check could not be completed.
func (c *call) steps(check func(step func(pipeline.CheckStep)) error) (any, error) {
	streamed := strings.Contains(c.r.Header.Get("Accept"), "text/event-stream")
	answer := checked{OK: true, Steps: []pipeline.CheckStep{}}
	err := check(func(s pipeline.CheckStep) {
		answer.OK = answer.OK && s.Status != pipeline.StepFailed
		answer.Steps = append(answer.Steps, s)
		if streamed {
			c.event("step", s)
		}
	})
	return c.ended(answer, map[string]bool{"ok": answer.OK}, streamed, err)
}

// ended answers with what was done or, in a stream, ends it.
func (c *call) ended(answer, done any, streamed bool, err error) (any, error) {
	switch {
	case err != nil && c.w.status != 0: // the stream has begun
		c.event("failure", problemOf(c.explain(err)))
	case err != nil:
		return nil, err
	case streamed:
		c.event("done", done)
	}
	return answer, nil
}

// prepare creates the table and its grants. To who accepts events, it sends each statement
// before it runs and after, then "done" with the whole, or "failure".
func (c *call) prepare() (any, error) {
	var r manage.PrepareRequest
	_, err := c.vendor()
	if err == nil {
		_, err = c.body(&r)
	}
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards the answer
	streamed := strings.Contains(c.r.Header.Get("Accept"), "text/event-stream")
	end := c.keepOpen(&mu)
	answer, err := c.cfg.Manager.Prepare(c.r.Context(), r, c.request(), c.dryRun, func(i setup.Item) {
		mu.Lock()
		defer mu.Unlock()
		if streamed {
			c.event("step", i)
		}
	})
	end()
	if err == nil && !c.dryRun {
		c.cfg.Log.Info("workspace prepared", zap.String("workspace", answer.Workspace), zap.String("table", answer.Table), zap.Bool("ok", answer.OK), zap.Bool("changed", answer.Changed),
			zap.String("by", c.who.Name), zap.String("role", c.who.Role), zap.String("request_id", c.id))
	}
	return c.ended(answer, answer, streamed, err)
}

// heartbeat is how often a stream that waits sends a comment: proxies end what is silent for
// a minute.
const heartbeat = 15 * time.Second

// keepOpen sends comments to a stream that has begun, until end.
func (c *call) keepOpen(mu *sync.Mutex) (end func()) {
	over := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(heartbeat)
		defer ticker.Stop()
		for {
			select {
			case <-over:
				return
			case <-ticker.C:
			}
			mu.Lock()
			if c.w.status != 0 {
				c.send(":\n\n")
			}
			mu.Unlock()
		}
	})
	return func() {
		close(over)
		running.Wait()
	}
}

// event sends one server-sent event. If the client has gone, the context of the request
// ends what sends them.
func (c *call) event(name string, data any) {
	if c.w.status == 0 {
		c.w.Header().Set("Content-Type", "text/event-stream")
		c.w.Header().Set("X-Accel-Buffering", "no") // turns off buffering of nginx
	}
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // an event holds only what can be encoded
	}
	c.send(fmt.Sprintf("event: %s\ndata: %s\n\n", name, visible(text)))
}

// send sends a part of a stream.
func (c *call) send(text string) {
	control := http.NewResponseController(c.w)
	_ = control.SetWriteDeadline(time.Now().Add(answerTimeout)) // a test's writer may have none
	_, _ = io.WriteString(c.w, text)
	_ = control.Flush()
}

// events streams the events of an integration, as the page of live events has them.
func (c *call) events() (any, error) {
	i, err := c.integration()
	if err != nil {
		return nil, err
	}
	if c.cfg.Live == nil {
		return nil, &failure{Status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", Message: "events are not recorded", Remedy: "set ops.live_events to metadata or full"}
	}
	// A stream has no deadline.
	ctx, cancel := context.WithCancel(c.stream)
	defer cancel()
	defer context.AfterFunc(c.active, cancel)()
	r := c.r.Clone(ctx)
	r.URL = &url.URL{Path: ops.LivePath + "stream", RawQuery: url.Values{"integration": {i.Slug}}.Encode()}
	refused := &refusal{ResponseWriter: c.w}
	c.cfg.Live.ServeHTTP(refused, r)
	if refused.status != 0 {
		var why struct{ Error string }
		_ = json.Unmarshal(refused.text, &why) // of another form: no reason is known
		return nil, failed(refused.status, "UNAVAILABLE", cmp.Or(why.Error, "the events are not available"))
	}
	return nil, nil
}

// refusal keeps an answer that is an error, so that it can be given the form of the API.
type refusal struct {
	http.ResponseWriter
	status int // 0: no error
	text   []byte
}

// WriteHeader implements http.ResponseWriter.
func (r *refusal) WriteHeader(status int) {
	if status < http.StatusBadRequest {
		r.ResponseWriter.WriteHeader(status)
		return
	}
	r.status = status
}

// Write implements http.ResponseWriter.
func (r *refusal) Write(p []byte) (int, error) {
	if r.status == 0 {
		return r.ResponseWriter.Write(p)
	}
	r.text = append(r.text, p[:min(len(p), maxRefusal-len(r.text))]...)
	return len(p), nil
}

// Unwrap lets http.ResponseController reach the connection.
func (r *refusal) Unwrap() http.ResponseWriter { return r.ResponseWriter }

const maxRefusal = 4 << 10 // bytes that are kept
