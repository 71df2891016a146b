package consumer_test

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/await"
)

// Some addresses take connections and never answer, such as a load balancer without a
// target. A request to one ends with its context.
func TestAnAddressThatNeverAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() { // ends with the connection, or the listener
		if conn, err := l.Accept(); err == nil {
			accepted <- conn
		}
	}()
	cluster, err := consumer.NewCluster(consumer.Config{Kafka: consumer.Kafka{Brokers: []string{l.Addr().String()}}}, nopLog)
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan error, 1)
	go func() {
		_, err := cluster.ID(ctx)
		asked <- err
	}()
	var conn net.Conn
	select {
	case conn = <-accepted:
		defer conn.Close()
	case <-time.After(await.Limit(t)):
		t.Fatal("got no connection")
	}
	buf := make([]byte, 4096)
	if _, err := conn.Read(buf); err != nil { // the request that is not answered
		t.Fatal(err)
	}
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	// It did not wait until the client gave the connection up.
	if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v of the connection, want it to be open still", err)
	}
}
