// Command kafka runs one broker of Apache Kafka without a container, to try the
// bridge by hand. It is a child process on a free loopback port; its data is
// removed at the end. Needs Java 17 and, the first time, Maven.
//
//	go run ./internal/kafkatest/kafka
//
// It prints the environment variable for the bridge. Stop it with Ctrl-C.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/datafly/bridge/internal/kafkatest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kafka:", err)
		os.Exit(1)
	}
}

// serve runs the broker until ctx ends.
func serve(ctx context.Context, out io.Writer) (err error) {
	cluster, err := kafkatest.Run(ctx, "", kafkatest.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Close()) }()
	if _, err := fmt.Fprintf(out, "export KAFKA_BROKERS=%s\n", strings.Join(cluster.Brokers(), ",")); err != nil {
		return fmt.Errorf("printing the address: %w; give it a standard output", err)
	}
	<-ctx.Done()
	return nil
}
