package manage_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations/catalog"
	"github.com/datafly/bridge/internal/integrations/manage"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/zerobus/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	catalogVariant    = catalog.Variant
	configIntegration = config.Integration
)

const secret = "hunter2-of-the-principal"

// site is a deployment with a store: its configuration, a workspace and the members.
type site struct {
	t      testing.TB
	broker kafkatest.Broker
	ws     *emulator.Emulator
	file   string // of the configuration
	key    string // file of the sealing key
	dir    string
	files  atomic.Pointer[config.Deployment]
	*manage.Manager
	store *store.Store
}

func newSite(t testing.TB, change ...func(*emulator.Config)) *site {
	t.Helper()
	s := &site{t: t, broker: kafkatest.StartFake(t, kafkatest.Options{}), dir: t.TempDir()}
	cfg := emulator.Config{ClientSecret: secret}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if s.ws, err = emulator.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := s.ws.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.ws.Close(context.Background()) })
	s.file, s.key = filepath.Join(s.dir, "config.yaml"), filepath.Join(s.dir, "store.key")
	s.write(s.key, strings.Repeat("k", store.KeyBytes))
	s.configure("")
	s.Manager, s.store = s.member(nil)
	return s
}

func (s *site) write(file, text string) {
	s.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// configure loads a configuration with a store and the text.
func (s *site) configure(text string) {
	s.t.Helper()
	s.write(s.file, "kafka: {brokers: ["+strings.Join(s.broker.Addrs(), ", ")+"]}\nstore: {enabled: true, keys: ["+s.key+"], allowed_hosts: ['*.allowed.example']}\n"+text)
	s.load()
}

func (s *site) mkdir(dir string) {
	s.t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// load loads the configuration.
func (s *site) load() {
	s.t.Helper()
	d, err := config.LoadDeployment(config.Options{File: s.file})
	if err != nil {
		s.t.Fatal(err)
	}
	s.files.Store(d)
}

// member returns the manager and the store of a further member.
func (s *site) member(r manage.Runtime) (*manage.Manager, *store.Store) {
	c := s.files.Load().Base
	st := store.New(store.Options{Topic: c.Store.Topic, Connection: (&consumer.Config{Kafka: c.Kafka}).Connection(), Log: zap.NewNop(),
		Keys: func() ([][]byte, error) { return s.files.Load().Base.Store.ReadKeys() }})
	s.t.Cleanup(st.Close)
	return manage.New(manage.Options{Store: st, Files: s.files.Load, Runtime: r, Version: "test"}), st
}

func (s *site) within() context.Context {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), await.Limit(s.t))
	s.t.Cleanup(cancel)
	return ctx
}

// who returns a request with an id.
func who(id string) manage.Who { return manage.Who{By: "ann", RequestID: id, Reason: "as asked"} }

// request is the page's call for the workspace of the site.
func (s *site) request(name string) manage.Request {
	return manage.Request{Name: name, Variant: "default", DeliveryMode: "server_side", Source: store.Values{"topics": []any{"events-" + name}}, Config: store.Values{
		"workspace_url": s.ws.URL(), "client_id": emulator.DefaultClientID, "client_secret": secret, "catalog": "datafly", "schema": "events", "table": "stream"}}
}

func (s *site) install(name string) manage.Result {
	s.t.Helper()
	r, err := s.Install(s.within(), s.request(name), who("install-"+name), false)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *site) read() store.State {
	s.t.Helper()
	state, err := s.store.Read(s.within())
	if err != nil {
		s.t.Fatal(err)
	}
	return state
}

func (s *site) get(id string) manage.Integration {
	s.t.Helper()
	i, err := s.Get(s.within(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// edit is a patch in JSON.
func edit(t testing.TB, text string) manage.Patch {
	t.Helper()
	var p manage.Patch
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// code returns the code of an error; "" for nil.
func code(t testing.TB, err error) string {
	t.Helper()
	var e *manage.Error
	if err == nil {
		return ""
	}
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	return e.Code
}

// refusal returns an error as an *Error; an empty one for others.
func refusal(err error) manage.Error {
	if e, ok := errors.AsType[*manage.Error](err); ok {
		return *e
	}
	return manage.Error{}
}

// fields returns the fields of an error, in order.
func fields(err error) (names []string) {
	for _, f := range refusal(err).Fields {
		names = append(names, f.Field)
	}
	return names
}

func text(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func step(steps []pipeline.CheckStep, name string) pipeline.CheckStep {
	if n := slices.IndexFunc(steps, func(s pipeline.CheckStep) bool { return s.Step == name }); n >= 0 {
		return steps[n]
	}
	return pipeline.CheckStep{}
}
