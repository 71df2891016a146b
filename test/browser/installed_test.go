package browser_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// newDeployment starts a bridge with the install API and without an integration. The
// page is on the admin listener.
func newDeployment(t *testing.T, change ...func(*emulator.Config)) (*stage, *page) {
	t.Helper()
	ctx := chromium(t)
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	broker := kafkatest.StartFake(t, kafkatest.Options{})
	s := &stage{t: t, topic: "signal-events", address: kafkatest.FreeAddress(t), log: &output{}, program: program}
	broker.CreateTopic(t, s.topic, 3, nil)
	var workspace emulator.Config
	for _, f := range change {
		f(&workspace)
	}
	if s.ws, err = emulator.New(workspace); err != nil {
		t.Fatal(err)
	}
	if err := s.ws.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.ws.Close(ctx) // what is cut off is the child's, and it is gone
	})
	if s.cl, err = kgo.NewClient(append(broker.ClientOpts(), kgo.DefaultProduceTopic(s.topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cl.Close)
	dir, admin := t.TempDir(), kafkatest.FreeAddress(t)
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	config := fmt.Sprintf(`deployment: prod-eu
kafka: {brokers: ["%s"]}
store: {enabled: true, keys: [%s]}
admin: {enabled: true, address: "%s"}
ops: {address: "%s", live_events: full}
`, strings.Join(broker.Addrs(), `", "`), filepath.Join(dir, "store.key"), admin, s.address)
	for name, text := range map[string][]byte{"store.key": key, "bridge.yaml": []byte(config)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.args = []string{"run", "--config", filepath.Join(dir, "bridge.yaml")}
	s.start()
	there := *s
	there.address = admin
	there.eventually("the console", func() bool {
		status, _ := there.get("/console/session")
		return status == http.StatusOK
	})
	return s, &page{t: t, ctx: ctx, s: &there}
}

// From a deployment without an integration to the first event in the table, by clicks
// and typing alone: in less than a minute on a quiet machine.
func TestConsoleFromNothingToTheFirstEvent(t *testing.T) {
	s, p := newDeployment(t)
	p.watched()
	p.look(1440, 900, "light")
	began := time.Now()
	p.visit("/")
	p.text("main", "No integration yet")
	p.picture("console-empty")
	p.press("Install")
	p.text("main h1", "Install Databricks (Zerobus Ingest)")
	p.until("document.querySelector('.topics')")
	p.do("document.querySelector('.topics input').click()")
	for _, f := range [][2]string{{"name", "Web shop"}, {"workspace_url", s.ws.URL()}, {"client_id", emulator.DefaultClientID}, {"client_secret", emulator.DefaultClientSecret}, {"catalog", "datafly"}, {"schema", "events"}, {"table", "stream"}} {
		p.fill(f[0], f[1])
	}
	p.press("Test connection")
	p.text("main", "All that is needed works.")
	p.do("document.querySelector('.steps').scrollIntoView({ block: 'center' })")
	p.picture("console-install")
	p.press("Install Integration")
	p.until("location.pathname === '/integrations/web-shop/events'")
	p.text("main", "Web shop")
	p.picture("console-first-event")
	s.event(track("Order Completed", "m-1"))
	p.text("main table", "successful")
	p.text("main table", "Order Completed")
	took := time.Since(began)
	t.Logf("from an empty deployment to a delivered event in %v", took.Round(time.Millisecond))
	if took > patience {
		t.Errorf("got the first event after %v, want it within a minute, and %v on a busy machine", took, patience)
	}
	if n := s.rows(); n != 1 {
		t.Errorf("got %d rows in the table, want 1", n)
	}
	p.quiet("install")

	// Who changed what is in the audit log, and the secret is nowhere.
	p.visit("/audit")
	p.press("Changes of web-shop, revision 1")
	p.text(".entry .diff", "stream")
	if text := js[string](p, "document.documentElement.outerHTML"); strings.Contains(text, emulator.DefaultClientSecret) {
		t.Error("the audit log shows the secret")
	}
	p.picture("console-audit")

	// The ops address shows the same, and changes nothing.
	p.s.address = s.address
	p.visit("/")
	p.text("main table", "Web shop")
	if p.is("[...document.querySelectorAll('main a, main button')].some(b => /^Install/.test(b.textContent))") {
		t.Error("the ops address offers to install")
	}
	p.visit("/members")
	p.text("main article", "Web shop")
	p.quiet("ops address")
}

// From a workspace without the table to the first event, by clicks and typing alone. The
// service principal may not create; the token of an administrator may.
func TestConsoleCreatesTheTable(t *testing.T) {
	s, p := newDeployment(t, func(c *emulator.Config) { c.NoCreate = true })
	p.watched()
	p.look(1440, 900, "light")
	p.visit("/library/databricks_zerobus/install")
	p.until("document.querySelector('.topics')")
	p.do("document.querySelector('.topics input').click()")
	for _, f := range [][2]string{{"name", "Web shop"}, {"workspace_url", s.ws.URL()}, {"client_id", emulator.DefaultClientID}, {"client_secret", emulator.DefaultClientSecret}, {"catalog", "shop"}, {"schema", "raw"}, {"table", "orders"}} {
		p.fill(f[0], f[1])
	}
	p.press("Test connection")
	p.text("main [role=status]", "failed.")
	p.until("document.querySelectorAll('[data-field=warehouse_id] option').length === 2") // from the dry run
	p.text("[data-field=warehouse_id]", "running, 2X-Small")
	p.press("Show what is missing")
	p.text("main", "6 statements will run on")

	p.press("Run with a warehouse")
	p.text("[aria-label=Statements]", "lacks CREATE CATALOG on METASTORE")
	p.fill("token", "wrong-token")
	p.press("Run with a warehouse")
	p.text("[data-field=token] .error", "was refused by the workspace")
	p.fill("token", emulator.DefaultAdminToken)
	p.do("document.querySelector('[data-field=token]').scrollIntoView({ block: 'center' })")
	p.still("run with a warehouse")
	p.picture("console-install-run")
	p.keys("\r") // runs the statements, and installs nothing
	p.text("main", "All that is needed works.")
	if p.is("location.pathname !== '/library/databricks_zerobus/install'") || p.is("document.querySelector('[data-field=token] input').value !== ''") {
		t.Error("Enter installed, or the token is kept in the form")
	}
	p.press("Install Integration")
	p.until("location.pathname === '/integrations/web-shop/events'")
	p.text("main", "Web shop")
	s.event(track("Order Completed", "m-1"))
	p.text("main table", "successful")
	if n := s.ws.Table("shop.raw.orders").Count(); n != 1 {
		t.Errorf("got %d rows in the table, want 1", n)
	}
	p.visit("/audit")
	p.text("main", "workspace.prepared")
	p.press("Changes of shop.raw.orders, revision")
	p.text(".entry .diff", "CREATE")
	if text := js[string](p, "document.documentElement.outerHTML") + s.log.String(); strings.Contains(text, emulator.DefaultAdminToken) || strings.Contains(text, "wrong-token") {
		t.Error("the audit log or the log of the bridge holds the token")
	}
	p.quiet("run with a warehouse")
}
