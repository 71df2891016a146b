package kafkatest

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Need skips a test of what this Apache Kafka lacks: what came with the release since,
// such as "4.0". kfake lacks none of it.
func Need(t testing.TB, b Broker, since, what string) {
	t.Helper()
	if b.Apache() {
		need(t, since, what)
	}
}

// NeedProtocol skips a test of the group protocol consumer on an Apache Kafka that has
// only classic. There a client may join by classic instead, and the test would pass.
func NeedProtocol(t testing.TB, b Broker, protocol string) {
	t.Helper()
	if protocol == "consumer" {
		Need(t, b, "4.0", "the group protocol consumer (KIP-848)")
	}
}

func need(t testing.TB, since, what string) {
	t.Helper()
	if slices.Compare(numbers(Version), numbers(since)) < 0 {
		t.Skipf("Apache Kafka %s lacks %s, new in %s", Version, what, since)
	}
}

// numbers are those of a release: 4, 3 and 1 of 4.3.1.
func numbers(release string) (out []int) {
	for part := range strings.SplitSeq(release, ".") {
		n, _ := strconv.Atoi(part) // of 4.0.0-rc1 only 4 and 0 matter
		out = append(out, n)
	}
	return out
}
