package kafka_test

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/kafka"
)

// A panic on the way to credentials is an error of the connection.
func TestPanicOnTheWayToCredentials(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL())
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	conn := kafka.Connection{Brokers: fake.ListenAddrs(), SASL: kafka.SASL{Mechanism: "plain", Username: "u",
		ReadPassword: func() (string, error) { panic("injected at ReadPassword") }}}
	cl, err := kafka.NewClient(conn, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "panic: injected at ReadPassword") {
		t.Errorf("got %v, want the panic", err)
	}
}
