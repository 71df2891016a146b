package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/app"
	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/config"
)

// quiet returns options for a run in a test, which show nothing.
func quiet(topic string) Options {
	return Options{
		Partitions: 1, Topic: topic, Transport: "workspace", OpsAddress: "127.0.0.1:0", LogLevel: "error", ShowEvery: time.Minute, Sets: []string{"admin.address=127.0.0.1:0"},
		Log: func(config.Log) *zap.Logger { return zap.NewNop() }, Message: func(string, ...any) {}, Show: func(Progress) {},
		Serve: func(ctx context.Context, o app.Options, listening func(*app.App)) (err error) {
			a, err := app.New(ctx, o)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.Close(ctx)) }()
			if err := a.Listen(ctx); err != nil {
				return err
			}
			listening(a)
			return a.Run(ctx)
		},
	}
}

// A demo without a number of events ends at its bound, and invites to try the call.
func TestAnOpenDemoIsBounded(t *testing.T) {
	o := quiet("open")
	o.MaxEvents = 50
	var messages strings.Builder
	o.Message = func(format string, args ...any) { fmt.Fprintf(&messages, format+"\n", args...) }
	report, err := Run(t.Context(), o)
	if err != nil || report.Produced != 50 || report.Distinct != 50 || report.Lost != 0 {
		t.Fatalf("got %+v, %v, want 50 events", report, err)
	}
	if got := messages.String(); !strings.Contains(got, "console and install API: http://127.0.0.1:") || !strings.Contains(got, "curl -X POST http://localhost:") {
		t.Errorf("got %q, want the console and the call", got)
	}
	messages.Reset()
	o.Events, o.Topic = 10, "closed"
	if report, err := Run(t.Context(), o); err != nil || report.Produced != 10 || strings.Contains(messages.String(), "curl") || !strings.Contains(messages.String(), "console") {
		t.Errorf("with a number of events: got %+v, %v and %q, want 10 events and the console alone", report, err, messages.String())
	}
}

// A bridge that refuses to deliver, for a missing table say, ends the demo.
func TestBridgeThatEndsEarly(t *testing.T) {
	gone := errors.New("there is no such table")
	o := quiet("shop")
	o.Events = 1
	o.Serve = func(ctx context.Context, o app.Options, listening func(*app.App)) error {
		a, err := app.New(ctx, o)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = a.Close(ctx) })
		listening(a)
		return gone
	}
	_, err := Run(t.Context(), o)
	if !errors.Is(err, gone) || strings.Count(err.Error(), gone.Error()) != 1 {
		t.Errorf("got %v, want the error of the bridge, once", err)
	}
}

func TestStoppedBeforeTheFirstEvent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	err = createTopic(ctx, cl, "shop", 1, logBytes)
	if want := "stopped before the first event; nothing was sent"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

// The in-process Kafka is bounded: it removes old records, and the producer waits for the
// bridge, so that they are delivered before.
func TestTheLogIsBounded(t *testing.T) {
	const keep = 64 << 10
	cluster, err := startKafka(keep)
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	o := quiet("bounded")
	o.Events, o.Kafka = 4000, strings.Join(cluster.ListenAddrs(), ",")
	p, err := newProducer(o.Kafka, o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := createTopic(t.Context(), p.cl, o.Topic, 1, keep); err != nil {
		t.Fatal(err)
	}
	if err := p.run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	await.That(t, "old records are removed", func() bool {
		starts, err := kadm.NewClient(p.cl).ListStartOffsets(t.Context(), o.Topic)
		start, _ := starts.Lookup(o.Topic, 0)
		return err == nil && start.Offset > 2000
	})
}

func TestTheProducerWaitsForTheBridge(t *testing.T) {
	cluster, err := startKafka(logBytes)
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	o := quiet("waits")
	o.Events, o.Kafka = maxLag+20_000, strings.Join(cluster.ListenAddrs(), ",")
	p, err := newProducer(o.Kafka, o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := createTopic(t.Context(), p.cl, o.Topic, 1, logBytes); err != nil {
		t.Fatal(err)
	}
	var done, asked atomic.Int64
	ended := make(chan error, 1)
	go func() { ended <- p.run(t.Context(), func() int64 { asked.Add(1); return done.Load() }) }() // received below
	// Asked again without an event in between: it waits.
	await.That(t, "the producer waits", func() bool { return asked.Load() > (maxLag+20_000)/1024+5 })
	if sent := p.written.Load(); sent > maxLag+1024 {
		t.Errorf("got %d events, want at most %d ahead of the bridge", sent, maxLag+1024)
	}
	done.Store(20_000)
	if err := <-ended; err != nil || p.written.Load() != maxLag+20_000 {
		t.Errorf("got %d events, %v, want all of them", p.written.Load(), err)
	}
}
