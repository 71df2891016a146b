package demo

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/app"
	"github.com/datafly/bridge/internal/config"
)

// A bridge that refuses to deliver, for a missing table say, ends the demo.
func TestBridgeThatEndsEarly(t *testing.T) {
	gone := errors.New("there is no such table")
	_, err := Run(t.Context(), Options{
		Events: 1, Partitions: 1, Topic: "shop", Transport: "workspace", OpsAddress: "127.0.0.1:0", LogLevel: "error", ShowEvery: time.Minute,
		Log: func(config.Log) *zap.Logger { return zap.NewNop() }, Message: func(string, ...any) {}, Show: func(Progress) {},
		Serve: func(ctx context.Context, o app.Options, listening func(*app.App)) error {
			a, err := app.New(ctx, o)
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = a.Close(ctx) })
			listening(a)
			return gone
		},
	})
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
	err = createTopic(ctx, cl, "shop", 1, true)
	if want := "stopped before the first event; nothing was sent"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}
