package consumer_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/datafly/bridge/consumer"
)

func TestTopicFor(t *testing.T) {
	long := strings.Repeat("t", 249)
	for _, c := range []struct {
		what                       string
		topic, integration, source string
		want                       string
	}{
		{"no integration", "", "", "events", "events-dlq"},
		{"default", "", "default", "events", "events-dlq"},
		{"another", "", "orders", "events", "events-dlq-orders"},
		{"a topic of its own", "rejects", "orders", "events", "rejects"},
		{"as long as can be", "", "orders", long[:238], long[:238] + "-dlq-orders"},
		{"one more", "", "orders", long[:239], long[:221] + "-dlq-orders-9ef9855935b5b323"},
		{"default, as long as can be", "", "", long[:245], long[:245] + "-dlq"},
		{"default, one more", "", "", long[:246], long[:228] + "-dlq-051a6c6936a7995b"},
		// "a-dlq-b" of "x" would be named as "b" of "x-dlq-a".
		{"a name with dlq", "", "a-dlq-b", "x", "x-dlq-a-dlq-b-ff211eb42e5e356a"},
		{"a topic with dlq", "", "b", "x-dlq-a", "x-dlq-a-dlq-b"},
		// And "dlq" of "x" as default of "x-dlq".
		{"dlq", "", "dlq", "x", "x-dlq-dlq-aa56da9f54e5b8ed"},
		{"default of a dead-letter topic", "", "", "x-dlq", "x-dlq-dlq"},
	} {
		if got := (consumer.Rejects{Topic: c.topic, Integration: c.integration}).TopicFor(c.source); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// No two pairs of a source and an integration have the same dead-letter topic. No name is
// longer than Kafka allows, and each is the same every time.
func TestTopicForIsDistinct(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	word := func(most int) string {
		parts := []string{"a", "b", "dlq", "-", "-dlq", "-dlq-", "t" + strings.Repeat("x", random.IntN(120))}
		var b strings.Builder
		for range 1 + random.IntN(4) {
			b.WriteString(parts[random.IntN(len(parts))])
		}
		if random.IntN(3) == 0 {
			b.WriteString(strings.Repeat("y", 249))
		}
		return b.String()[:min(b.Len(), most)]
	}
	seen := map[string]string{}
	long := 0
	for range 20_000 {
		source, name := word(249-random.IntN(12)), word(40)
		if random.IntN(4) == 0 {
			name = consumer.DefaultIntegration
		}
		r := consumer.Rejects{Integration: name}
		topic, pair := r.TopicFor(source), fmt.Sprintf("source %q of integration %q", source, name)
		if other, taken := seen[topic]; taken && other != pair {
			t.Fatalf("got %q for %s and for %s", topic, pair, other)
		}
		seen[topic] = pair
		if len(topic) > 249 || topic == source || topic != r.TopicFor(source) {
			t.Fatalf("got %q and then %q for %s, want one name of at most 249 characters", topic, r.TopicFor(source), pair)
		}
		if len(source) > 240 {
			long++
		}
	}
	if len(seen) < 5_000 || long < 1_000 {
		t.Errorf("got %d pairs, %d of a long source; the generator draws too few", len(seen), long)
	}
}
