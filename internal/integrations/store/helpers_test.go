package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/setting"
)

func TestMain(m *testing.M) {
	if broker, topic, ok := strings.Cut(os.Getenv("STORE_TEST_WRITER"), " "); ok {
		writer(broker, topic)
		return
	}
	os.Exit(kafkatest.Main(m))
}

func connection(b kafkatest.Broker) kafka.Connection {
	sec := b.Security()
	c := kafka.Connection{Brokers: b.Addrs(), ClientID: "bridge-test"}
	if sec.Mechanism != "" {
		c.SASL = kafka.SASL{Mechanism: strings.ToLower(sec.Mechanism), Username: sec.Username, Password: setting.Secret(sec.Password)}
	}
	return c
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

func options(b kafkatest.Broker, topic string) store.Options {
	return store.Options{Topic: topic, Connection: connection(b), Log: zap.NewNop(), Keys: func() ([][]byte, error) { return [][]byte{testKey}, nil }}
}

// open returns a store that the test's end closes.
func open(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	s := store.New(o)
	t.Cleanup(s.Close)
	return s
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), await.Limit(t))
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// record returns a record that can be written. The id follows from the slug.
func record(slug string) *store.Record {
	return &store.Record{ID: idOf(slug), Slug: slug, Name: slug, Vendor: "databricks_zerobus", Variant: "default", Enabled: true,
		Source: store.Values{"topics": []any{"events"}}, Target: store.Values{"workspace_url": "https://abc.cloud.databricks.com", "client_id": "id"},
		DeliveryMode: "server_side"}
}

func idOf(slug string) string {
	return "int_" + strings.ReplaceAll(fmt.Sprintf("%.12s", slug+"000000000000"), "-", "x")
}

func entry(action string) store.Entry {
	return store.Entry{Action: action, By: "test", ResourceType: "integration"}
}

var errTaken = errors.New("name taken")

// installing installs a record whose slug is free.
func installing(slug string) func(store.State) ([]store.Write, error) {
	return func(now store.State) ([]store.Write, error) {
		if now.Find(slug) != nil {
			return nil, errTaken
		}
		return []store.Write{{Record: record(slug), Entry: entry("integration.installed")}}, nil
	}
}

// renaming changes the name of a record.
func renaming(slug, name string) func(store.State) ([]store.Write, error) {
	return func(now store.State) ([]store.Write, error) {
		old := now.Find(slug)
		if old == nil {
			return nil, errors.New("not found")
		}
		r := *old
		r.Name = name
		return []store.Write{{Record: &r, Entry: entry("integration.updated")}}, nil
	}
}

func removing(slug string) func(store.State) ([]store.Write, error) {
	return func(store.State) ([]store.Write, error) {
		return []store.Write{{Remove: slug, Entry: entry("integration.removed")}}, nil
	}
}

func update(t testing.TB, s *store.Store, requestID string, decide func(store.State) ([]store.Write, error)) store.State {
	t.Helper()
	state, err := change(t, s, requestID, decide)
	if err != nil {
		t.Fatalf("%s: %v", requestID, err)
	}
	return state
}

// change is Update for as long as a busy machine takes, with the verdict of decide.
func change(t testing.TB, s *store.Store, requestID string, decide func(store.State) ([]store.Write, error)) (store.State, error) {
	t.Helper()
	ctx := within(t)
	for {
		state, err := s.Update(ctx, requestID, decide)
		if !errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
			return state, err
		}
		if errors.Is(err, store.ErrOutcome) {
			entries, err := s.Audit(ctx, 1, func(e *store.Entry) bool { return e.RequestID == requestID })
			must(t, err)
			if len(entries) > 0 {
				return s.Read(ctx)
			}
		}
	}
}

func slugs(s store.State) string {
	var all []string
	for _, r := range s.Records {
		all = append(all, fmt.Sprintf("%s@%d", r.Slug, r.Revision))
	}
	return strings.Join(all, " ")
}

// follower is a store that runs.
type follower struct {
	*store.Store
	mu     sync.Mutex
	states []store.State
}

func follow(t testing.TB, o store.Options) *follower {
	t.Helper()
	f := &follower{Store: store.New(o)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx, func(s store.State) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.states = append(f.states, s)
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		f.Close()
	})
	return f
}

// last returns the state that changed was called with last.
func (f *follower) last() store.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.states) == 0 {
		return store.State{}
	}
	return f.states[len(f.states)-1]
}

func (f *follower) await(t testing.TB, want string) {
	t.Helper()
	await.That(t, "the follower has "+want, func() bool { return describe(f.last()) == want }, func() string { return describe(f.last()) })
}

// describe returns the records of a state, and its problem.
func describe(s store.State) string {
	text := slugs(s)
	if s.Problem != nil {
		text += " !" + s.Problem.Code
	}
	return strings.TrimSpace(text)
}

// client is another application.
func client(t testing.TB, b kafkatest.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(b.ClientOpts(), opts...)...)
	must(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func admin(t testing.TB, b kafkatest.Broker) *kadm.Client {
	t.Helper()
	return kadm.NewClient(client(t, b))
}

// put writes a record by hand.
func put(t testing.TB, b kafkatest.Broker, topic, key, value string) {
	t.Helper()
	r := &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(value)}
	must(t, client(t, b, kgo.RecordPartitioner(kgo.ManualPartitioner())).ProduceSync(within(t), r).FirstErr())
}
