package manage_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/pipeline"
)

// A secret of the target, and one that replaces it, are in no answer and no audit
// entry. Nor are they in an export, an error or a record of the two topics.
func TestSecretsAreNowhere(t *testing.T) {
	count := 0
	for _, k := range config.Keys() {
		field, ours := strings.CutPrefix(k.Path, "zerobus.")
		if !ours || k.Type != "secret" {
			continue
		}
		count++
		s := newSite(t)
		s.create("events-web")
		marks := []string{"first-" + secret, "second-" + secret, "third-" + secret}
		var seen strings.Builder
		note := func(v any, err error) {
			all, failed := json.Marshal(v)
			if failed != nil {
				t.Fatal(failed)
			}
			fmt.Fprintf(&seen, "%s %+v %v\n", all, v, err)
			var e *manage.Error
			if errors.As(err, &e) {
				fmt.Fprintf(&seen, "%s %+v\n", text(t, e), *e)
			}
		}
		each := func(c pipeline.CheckStep) { note(c, c.Err) }
		r := s.request("web")
		r.Config[field] = marks[0]
		for _, spoil := range []func(*manage.Request){
			func(r *manage.Request) { r.Config["table"] = "a b" }, func(r *manage.Request) { r.Config["workspace_url"] = "https://evil.example" },
			func(r *manage.Request) { r.Config[field] = marks[0] + "\x00" }, func(r *manage.Request) { r.Config[field] = []any{marks[0]} },
			func(r *manage.Request) { r.Config[field] = map[string]any{"value": marks[0]} }, func(r *manage.Request) { r.Config[field+"x"] = marks[0] },
			func(r *manage.Request) { r.Config[field+"_file"] = marks[0] }, func(r *manage.Request) { r.Config[field] = strings.Repeat(marks[0], 999) },
			func(r *manage.Request) {
				r.Config["workspace_url"] = "https://me:" + marks[0] + "@abc.cloud.databricks.com"
			},
		} {
			bad := s.request("web")
			bad.Config[field] = marks[0]
			spoil(&bad)
			got, err := s.Install(s.within(), bad, who("bad"), true)
			if err == nil {
				t.Errorf("%s was accepted", text(t, got))
			}
			note(got, err)
			note(nil, s.CheckRequest(s.within(), bad, each))
		}
		note(s.Install(s.within(), r, who("dry"), true))
		note(s.Install(s.within(), r, who("a"), false))
		note(s.Install(s.within(), r, who("b"), false))
		p := edit(t, fmt.Sprintf(`{"config": {%q: %q}}`, field, marks[1]))
		note(s.Update(s.within(), "web", p, 9, who("c"), false))
		note(s.Update(s.within(), "web", p, 1, who("d"), false))
		note(nil, s.Check(s.within(), "web", nil, each))
		p = edit(t, fmt.Sprintf(`{"config": {%q: %q}}`, field, marks[2]))
		note(nil, s.Check(s.within(), "web", &p, each))
		note(s.List(s.within()))
		note(s.Get(s.within(), "web"))
		note(s.Revisions(s.within(), "web"))
		note(s.Audit(s.within(), "", 100))
		data, err := s.Export(s.within())
		note(string(data), err)
		note(s.Import(s.within(), []byte(strings.Replace(string(data), "name: web", "name: shop", 1)), who("e"), false))
		note(s.Import(s.within(), fmt.Appendf(nil, "shop: {zerobus: {%s: %s}}", field, marks[2]), who("f"), false))
		note(s.Reseal(s.within(), who("g"), false))
		s.write(s.key, strings.Repeat("x", 32))
		fresh, _ := s.member(nil)
		_, problems := fresh.Wanted(s.read())
		note(fmt.Sprint(problems), nil)
		note(s.Remove(s.within(), "web", 0, who("h"), false))
		note(s.History(s.within(), "web"))
		s.topics(func(rec *kgo.Record) { fmt.Fprintf(&seen, "%s %s\n", rec.Key, rec.Value) })
		for _, mark := range marks {
			if at := strings.Index(seen.String(), mark); at >= 0 {
				t.Errorf("%s is in ...%s", k.Path, seen.String()[max(0, at-300):at+60])
			}
		}
		if !strings.Contains(seen.String(), `"fingerprint":"`) || !strings.Contains(seen.String(), "integration.removed") {
			t.Error("what was looked at does not hold what was done")
		}
	}
	if count == 0 {
		t.Error("the target has no secret")
	}
}

// topics calls use with each record of the store and of the audit log.
func (s *site) topics(use func(*kgo.Record)) {
	s.t.Helper()
	topic := s.files.Load().Base.Store.Topic
	cl, err := kgo.NewClient(append(s.broker.ClientOpts(), kgo.ConsumeTopics(topic, topic+"-audit"))...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	seen := map[string]bool{}
	for removed := false; !removed || !seen[topic]; {
		fetches := cl.PollFetches(s.within())
		if err := fetches.Err(); err != nil {
			s.t.Fatal(err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			seen[rec.Topic] = true
			removed = removed || strings.Contains(string(rec.Value), "integration.removed")
			use(rec)
		})
	}
}
