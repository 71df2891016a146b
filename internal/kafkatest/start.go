package kafkatest

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// Start starts an Apache cluster for one test and closes it when the test ends.
// On a machine that cannot run Kafka the test is skipped, or fails with
// REQUIRE_APACHE_KAFKA=1; under go test -short it is skipped in any case. When the test fails, the ends of the brokers' logs are
// shown.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	skipShort(t)
	c, err := Run(t.Context(), "", o)
	if err != nil {
		giveUp(t, err)
	}
	record(t)
	t.Cleanup(func() {
		c.logFailure(t)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped on Apache Kafka: -short")
	}
}

// giveUp ends a test that got no cluster.
func giveUp(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrUnavailable) && os.Getenv("REQUIRE_APACHE_KAFKA") != "1" {
		t.Skipf("skipped on Apache Kafka: %v", err)
	}
	t.Fatalf("starting Apache Kafka %s: %v", Version, err)
}

// logFailure shows the brokers' last words when the test failed.
func (c *Cluster) logFailure(t testing.TB) {
	if !t.Failed() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		t.Logf("end of the log of broker %d:\n%s", n.id, n.tail(20))
	}
}

// record counts a test that runs on Apache Kafka, for the summary of make test.
func record(t testing.TB) {
	t.Helper()
	name := os.Getenv("KAFKATEST_COUNT_FILE")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatalf("counting the tests on Apache Kafka: %v; check KAFKATEST_COUNT_FILE", err)
	}
	// One short write to a file opened for appending is never torn.
	_, err = fmt.Fprintf(f, "%s %s\n", Version, t.Name())
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatalf("counting the tests on Apache Kafka: %v; check KAFKATEST_COUNT_FILE", err)
	}
}
