package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// release is a single-table bridge, and later an integration of a deployment.
type release struct {
	*stage
	name string // of the integration and of the table
	bad  int    // events that are no JSON
}

func (r *release) begin() *member { return r.stage.begin("zerobus.table=" + r.name) }

// events appends n events, and one that becomes a dead letter.
func (r *release) events(n int) {
	r.t.Helper()
	r.p.events(n)
	ctx, cancel := within()
	defer cancel()
	must(r.t, r.p.cl.ProduceSync(ctx, &kgo.Record{Topic: r.topic, Partition: 0, Value: []byte("no JSON")}).FirstErr())
	r.p.next[0]++
	r.bad++
}

// delivered waits until every event is in the table or dead-lettered, and committed.
func (r *release) delivered(m *member) {
	r.t.Helper()
	table := r.ws.Table("datafly.events." + r.name)
	eventually(r.t, patience, r.name+" delivers and commits", func() bool {
		m.alive()
		return table.Count() >= r.p.total()-r.bad && sum(committed(r.t, r.adm, r.group, r.topic)) == int64(r.p.total())
	}, func() string {
		return fmt.Sprintf("got %d rows and offsets %v, want %d events", table.Count(), committed(r.t, r.adm, r.group, r.topic), r.p.total())
	})
}

// once wants every event in the table once, and every dead letter in the one topic.
func (r *release) once() {
	r.t.Helper()
	table, want := r.ws.Table("datafly.events."+r.name), r.p.total()-r.bad
	if rows, ids := table.Count(), table.Distinct("message_id"); rows != want || ids != want {
		r.t.Errorf("%s: got %d rows of %d events, want %d of each", r.name, rows, ids, want)
	}
	if got := length(r.t, r.adm, r.topic+"-dlq"); got != int64(r.bad) {
		r.t.Errorf("%s: got %d dead letters in %s-dlq, want %d", r.name, got, r.topic, r.bad)
	}
}

var ofOneTable = regexp.MustCompile(`(?m)^  (topics|group|table): .*\n`)

// TestSeveralReleasesIntoOne is docs/migration.md: three releases become one deployment,
// one of them goes back while the others run, and then the others.
func TestSeveralReleasesIntoOne(t *testing.T) {
	eachStage(t, setting{partitions: 2}, func(t *testing.T, first *stage) {
		var all []*release
		deploymentName := kafkatest.Name(t)
		for _, name := range []string{"orders", "clicks", "signups"} {
			s := *first
			s.topic, s.group = deploymentName+"."+name, deploymentName+"-"+name+"-to-databricks"
			s.ws.create(strings.Replace(emulator.DefaultDDL, tableName, "datafly.events."+name, 1))
			s.broker.CreateTopic(t, s.topic, 2, nil)
			s.p = newProducer(t, s.broker, s.topic, 2)
			s.write()
			all = append(all, &release{stage: &s, name: name})
		}
		stop := func(m *member) { m.terminate(m.s.drain + time.Second + slack) }

		// Three releases deliver and are stopped; events arrive meanwhile.
		for _, r := range all {
			r.events(300)
			m := r.begin()
			r.delivered(m)
			stop(m)
			r.events(300)
		}

		// The deployment: a base without a table, and a folder with a file for each.
		text, err := os.ReadFile(first.config)
		must(t, err)
		folder := t.TempDir()
		joint := *first
		joint.config = filepath.Join(t.TempDir(), "bridge.yaml")
		must(t, os.WriteFile(joint.config, []byte(ofOneTable.ReplaceAllString(string(text), "")+
			"integrations_dir: "+folder+"\ndeployment: "+deploymentName+"\n"), 0o600))
		for _, r := range all {
			overlay := fmt.Sprintf("%s:\n  kafka: {topics: [%s], group: %s}\n  zerobus: {table: %s}\n  rejects: {topic: %s-dlq}\n", r.name, r.topic, r.group, r.name, r.topic)
			must(t, os.WriteFile(filepath.Join(folder, r.name+".yaml"), []byte(overlay), 0o600))
		}
		for _, args := range [][]string{{"integrations", "validate"}, {"integrations", "list"}, {"integrations", "show", "orders"}, {"check"}} {
			if p, code := run(t, first.e, command{args: append(args, "--config", joint.config)}); code != 0 {
				t.Errorf("bridge %s: got exit code %d, want 0; it printed\n%s%s", strings.Join(args, " "), code, p.stdout.String(), tail(p.stderr.String()))
			}
		}
		deployment := joint.begin()
		for _, r := range all {
			r.delivered(deployment)
			r.events(300)
		}
		for _, r := range all {
			r.delivered(deployment)
			r.once()
		}

		// One goes back while the others run, then the others.
		running := func() (names []string) {
			_, body := deployment.get("/status", "application/json")
			var status struct {
				Integrations []struct{ Integration, State string }
			}
			_ = json.Unmarshal([]byte(body), &status) // a busy machine answers nothing
			for _, i := range status.Integrations {
				names = append(names, i.Integration+" "+i.State)
			}
			return names
		}
		must(t, os.Remove(filepath.Join(folder, "signups.yaml")))
		eventually(t, patience, "signups is drained", func() bool {
			deployment.alive()
			return slices.Equal(running(), []string{"clicks running", "orders running"})
		}, func() string { return fmt.Sprint(running()) })
		signups := all[2].begin()
		for _, r := range all {
			r.events(300)
		}
		all[2].delivered(signups)
		for _, r := range all[:2] {
			r.delivered(deployment)
		}
		if status, _ := deployment.get("/readyz", "text/plain"); status != http.StatusOK {
			t.Errorf("/readyz of the deployment that lost an integration: got %d, want 200", status)
		}
		stop(deployment)
		for _, r := range all[:2] {
			r.events(300)
			m := r.begin()
			r.delivered(m)
			stop(m)
		}
		stop(signups)
		for _, r := range all {
			r.once()
		}
		// No group and no topic came about on the way.
		ctx, cancel := within()
		defer cancel()
		groups, err := first.adm.ListGroups(ctx)
		must(t, err)
		for _, r := range all {
			if name := deploymentName + "-" + r.name; slices.Contains(groups.Groups(), name) {
				t.Errorf("there is a group %s; the integration has the group of the release", name)
			}
		}
		topics, err := first.adm.ListTopics(ctx)
		must(t, err)
		for _, name := range topics.Names() {
			if strings.HasPrefix(name, deploymentName) && strings.Contains(name, "-dlq-") {
				t.Errorf("there is a topic %s; dead letters belong into that of the release", name)
			}
		}
	})
}
