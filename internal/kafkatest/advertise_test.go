package kafkatest_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafkatest"
)

// Clients are sent to the advertised address; Brokers keeps to the real one.
func TestClientsUseTheAdvertisedAddress(t *testing.T) {
	const elsewhere = "127.0.0.1:1"
	var listens string
	c := kafkatest.Start(t, kafkatest.Options{Advertise: func(i int, addr string) string {
		if i != 0 {
			t.Errorf("asked for broker %d of one", i)
		}
		listens = addr
		return elsewhere
	}})
	if got := c.Brokers(); len(got) != 1 || got[0] != listens {
		t.Errorf("brokers: got %v, want %s, the address passed to Advertise", got, listens)
	}
	var sent atomic.Bool
	cl, err := kgo.NewClient(append(c.ClientOpts(), kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
		if host == elsewhere {
			sent.Store(true)
			host = listens
		}
		return new(net.Dialer).DialContext(ctx, network, host)
	}))...)
	must(t, err)
	defer cl.Close()
	// Groups are asked of every broker by the address in the metadata.
	_, err = kadm.NewClient(cl).ListGroups(t.Context())
	must(t, err)
	if !sent.Load() {
		t.Errorf("no client was sent to %s", elsewhere)
	}
}
