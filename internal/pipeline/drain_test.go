package pipeline

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/zerobus/emulator"
)

// The columns are watched until the group has drained: rows that have to be made again are
// then delivered by the drain.
func TestColumnsChangeDuringTheDrain(t *testing.T) {
	b := kafkatest.StartFake(t, kafkatest.Options{})
	topic := kafkatest.Topic(t, b, 1)
	produceOne(t, b, topic, `{"type":"page","message_id":"m","context":{"page":{"title":"t"}},"properties":{"title":"t"}}`)
	ws, err := emulator.New(emulator.Config{DDL: "CREATE TABLE datafly.events.stream (event_name STRING, event_type STRING, message_id STRING, user_id STRING, " +
		"anonymous_id STRING, event_timestamp TIMESTAMP, ip_address STRING, user_agent STRING, locale STRING, timezone STRING, page_url STRING, " +
		"page_referrer STRING, source_id STRING, page_title STRING)"})
	if err == nil {
		err = ws.Start("127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close(context.WithoutCancel(t.Context())) })
	ctx, terminate := context.WithTimeout(t.Context(), time.Minute)
	defer terminate()
	var once sync.Once
	at, err := url.Parse(ws.URL())
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(at)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		if r.Body = io.NopCloser(bytes.NewReader(text)); bytes.Contains(text, []byte(`"page_title"`)) {
			once.Do(func() {
				if err := ws.Table("datafly.events.stream").DropColumn("page_title"); err != nil {
					t.Error(err)
				}
				terminate()
			})
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	settings := config.Defaults()
	settings.Kafka.Brokers, settings.Kafka.Topics = b.Addrs(), []string{topic}
	z := &settings.Zerobus
	z.WorkspaceURL, z.ClientID, z.ClientSecret = front.URL, emulator.DefaultClientID, emulator.DefaultClientSecret
	z.Catalog, z.Schema, z.Table = "datafly", "events", "stream"
	p, err := New(Config{Settings: &settings}, Deps{Log: zap.NewNop(), Metrics: ops.NewMetrics("test", nil, true).Integration("default", KnownLabels(&settings))})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if n := ws.Table("datafly.events.stream").Count(); n != 1 {
		t.Errorf("%d rows were delivered, want 1", n)
	}
}
