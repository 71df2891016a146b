package demo

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

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
