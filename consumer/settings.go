package consumer

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/setting"
)

// Kafka is the source: the cluster, the topics and the consumer group. Zero values
// are not defaults: the caller fills every field.
type Kafka struct {
	// Brokers are the seed brokers, host:port; 9092 where the port is left out.
	// The others are discovered.
	Brokers []string `yaml:"brokers" default:"localhost:9092"`
	// Topics to read, by exact name. A topic may be created later.
	Topics []string `yaml:"topics" required:"the topic Signal writes its events to" unique:"true" scope:"integration"`
	// Group is the consumer group, shared by every replica of one bridge and by
	// nobody else. A new group begins at Start.
	Group string `yaml:"group" default:"zerobus-bridge" scope:"integration"`
	// Start is where a topic begins in which the group has committed nothing. It is
	// committed at the first start. Partitions that are added later begin at their
	// start. With latest, events that were produced before are never delivered.
	Start string `yaml:"start" default:"earliest" choices:"earliest,latest" scope:"integration"`
	// Isolation: read_committed, or empty, skips the events of aborted transactions,
	// and those behind an open transaction wait for its end. read_uncommitted
	// delivers all of them.
	Isolation string `yaml:"isolation" default:"read_committed" choices:"read_committed,read_uncommitted"`
	// Protocol is classic (cooperative-sticky) or consumer (KIP-848, brokers from
	// 4.0), with which the broker sets the session timeout.
	Protocol string `yaml:"protocol" default:"classic" choices:"classic,consumer"`
	// InstanceID makes the member static: a restart within SessionTimeout moves no
	// partition, and after a crash the partitions wait for SessionTimeout. It must
	// differ between members. Empty is a dynamic member.
	InstanceID string `yaml:"instance_id"`
	// ClientID names this client in the brokers' logs and quotas.
	ClientID string `yaml:"client_id" default:"zerobus-bridge"`
	// SessionTimeout is how long a silent member keeps its partitions. Lower:
	// quicker takeover, and more rebalances when the network is unstable.
	//
	// Brokers accept 6s to 30m by default (group.min.session.timeout.ms,
	// group.max.session.timeout.ms); the lower bound leaves room for others.
	SessionTimeout time.Duration `yaml:"session_timeout" default:"45s" min:"1s" max:"30m" when:"protocol=classic" remedy:"take it out; set group.consumer.session.timeout.ms on the brokers"`
	// RebalanceTimeout is how long the group waits for members to release revoked
	// partitions. It must exceed Drain. Higher: a stuck member delays the group.
	RebalanceTimeout time.Duration `yaml:"rebalance_timeout" default:"60s" min:"1s" max:"30m"`
	// FetchMaxBytes and FetchMaxPartitionBytes cap one fetch response, in compressed
	// bytes per broker and per partition; a larger event still arrives. Where events
	// decompress to more than seven times that, smaller responses are requested. See
	// internal/memory for what the client holds besides MaxBuffered. franz-go
	// reads at most 100 MiB from a broker at once.
	FetchMaxBytes          setting.Size `yaml:"fetch_max_bytes" default:"4MiB" min:"1KiB" max:"100MiB"`
	FetchMaxPartitionBytes setting.Size `yaml:"fetch_max_partition_bytes" default:"256KiB" min:"1KiB" max:"100MiB"`

	TLS  kafka.TLS  `yaml:"tls"`
	SASL kafka.SASL `yaml:"sasl"`
}

// Delivery is the size of batches, the memory they may take and how long a stop may
// last.
type Delivery struct {
	// MaxRows and MaxBytes cap one Write in rows and in encoded bytes; a larger row
	// is written alone. Higher: more throughput per partition, more duplicates
	// after a crash, and a buffer of MaxBytes for each busy partition.
	MaxRows  int          `yaml:"max_rows" default:"20000" min:"1" max:"1000000" scope:"integration"`
	MaxBytes setting.Size `yaml:"max_bytes" default:"4MiB" min:"1KiB" max:"1GiB" scope:"integration"`
	// MaxBuffered caps the bytes of events polled and not yet durable, over all
	// partitions; beyond it fetching pauses. A poll may exceed it by one fetch
	// response.
	MaxBuffered setting.Size `yaml:"max_buffered" default:"96MiB" min:"1KiB" max:"1024GiB"`
	// Linger is how long a batch that is not full waits for more events. 0: what
	// arrives during a Write is the next batch. Trade-off: every event is that much
	// later, for fewer Writes. Fetches are spaced out anyway, see
	// [kafka.FetchInterval]: with a few partitions it saves no processor time.
	Linger time.Duration `yaml:"linger" default:"0s" min:"0s" max:"1m"`
	// Drain is how long a stop, or a revoked partition, waits for the Write in
	// flight. Lower: a slow Write is abandoned and its rows are duplicates.
	Drain time.Duration `yaml:"drain" default:"20s" min:"100ms" max:"10m"`
	// StuckAfter is how long a partition may hold events without delivering one
	// before the group is not ready and the log names the reason. 0 is never.
	StuckAfter time.Duration `yaml:"stuck_after" default:"5m" min:"0s" max:"24h"`
}

// Rejects is the policy for events that can never be a row.
type Rejects struct {
	// Integration is the name of the integration; empty, or default, for the one of a
	// configuration without others. It is no key.
	Integration string `yaml:"-"`
	// Policy is dead_letter (copy the event to a topic), skip (count it only: the
	// event is gone once its topic expires) or stop (end with an error).
	Policy string `yaml:"policy" default:"dead_letter" choices:"dead_letter,skip,stop"`
	// Topic for the dead letters of all source topics; empty is one for each, whose
	// name TopicFor derives.
	Topic string `yaml:"topic" when:"policy=dead_letter"`
	// Create allows a missing dead-letter topic to be created.
	Create bool `yaml:"create" default:"true" when:"policy=dead_letter"`
	// Partitions of a topic so created; 0 is as many as the source has.
	Partitions int `yaml:"partitions" min:"0" max:"10000" when:"policy=dead_letter;create=true"`
	// ReplicationFactor of a topic so created; -1 is the broker's default.
	ReplicationFactor int `yaml:"replication_factor" default:"-1" when:"policy=dead_letter;create=true"`
}

// DefaultIntegration is the name of the integration of a configuration without others.
const DefaultIntegration = "default"

// Name returns the name of the integration.
func (r Rejects) Name() string { return cmp.Or(r.Integration, DefaultIntegration) }

// TopicFor returns the dead-letter topic for events of the source topic: Topic, or the
// name of the source with -dlq and, unless that is default, the name of the integration.
// A result that Kafka refuses as too long, or that another source and integration could
// have too, is shortened and ends with a hash of both names instead.
func (r Rejects) TopicFor(source string) string {
	if r.Topic != "" {
		return r.Topic
	}
	name, suffix := r.Name(), "-dlq"
	if name != DefaultIntegration {
		suffix += "-" + name
	}
	if len(source)+len(suffix) > maxTopicName || strings.Contains("-"+name+"-", "-dlq-") {
		sum := sha256.Sum256([]byte(source + "/" + name)) // no topic has a slash
		suffix += "-" + hex.EncodeToString(sum[:8])
		source = source[:max(min(len(source), maxTopicName-len(suffix)), 0)]
	}
	return source + suffix
}

// Check implements the rules that involve several keys or the form of a name.
func (k *Kafka) Check(c *setting.Check) {
	k.checkBrokers(c)
	for _, t := range k.Topics {
		if rule := topicRule(t); rule != "" && c.OK("kafka.topics") {
			c.FailValue("kafka.topics", t, rule, "write the topic's exact name; patterns are not understood")
		}
	}
	switch {
	case !c.OK("kafka.group"):
	case k.Group == "":
		c.Fail("kafka.group", "must not be empty", "leave it out for zerobus-bridge")
	case k.Group == "event-processor":
		c.Fail("kafka.group", "is the group of Signal's own Event Processor; in it, each would receive only some of the events",
			"choose a group of the bridge's own, such as zerobus-bridge")
	}
	// Brokers apply the rule for topic names to group.instance.id.
	if rule := topicRule(k.InstanceID); k.InstanceID != "" && rule != "" && c.OK("kafka.instance_id") {
		c.Fail("kafka.instance_id", rule, "use the name of the host or pod")
	}
	if c.OK("kafka.session_timeout", "kafka.rebalance_timeout") && k.SessionTimeout > k.RebalanceTimeout {
		c.Fail("kafka.session_timeout", fmt.Sprintf("must not be longer than kafka.rebalance_timeout (%s), or rebalances end before a silent member is noticed",
			setting.DurationText(k.RebalanceTimeout)), "lower it, or raise kafka.rebalance_timeout")
	}
	if c.OK("kafka.fetch_max_bytes", "kafka.fetch_max_partition_bytes") && k.FetchMaxPartitionBytes > k.FetchMaxBytes {
		c.Fail("kafka.fetch_max_partition_bytes", fmt.Sprintf("must not be larger than kafka.fetch_max_bytes (%v)", k.FetchMaxBytes),
			"lower it, or raise kafka.fetch_max_bytes")
	}
	if given, missing := "kafka.tls.cert_file", "kafka.tls.key_file"; c.OK(given, missing) && (k.TLS.CertFile == "") != (k.TLS.KeyFile == "") {
		if k.TLS.CertFile == "" {
			given, missing = missing, given
		}
		c.Fail(given, "needs "+missing+" beside it", "set both for mutual TLS, or neither")
	}
	k.checkLogin(c)
}

func (k *Kafka) checkBrokers(c *setting.Check) {
	const key = "kafka.brokers"
	if c.OK(key) && len(k.Brokers) == 0 {
		c.Fail(key, "must name at least one broker", "write it as host:9092")
	}
	for _, b := range k.Brokers {
		if !c.OK(key) {
			return
		}
		address := b
		if !strings.Contains(b, ":") {
			address += ":9092"
		}
		host, ok := setting.SplitAddress(address, 1)
		if _, rest, hasScheme := strings.Cut(b, "://"); hasScheme {
			c.FailValue(key, b, "must be host:port without a scheme", fmt.Sprintf("write %s; kafka.tls and kafka.sasl say how to connect", rest))
		} else if !ok || host == "" || strings.ContainsAny(host, " /@") {
			c.FailValue(key, b, "must be host:port with a port from 1 to 65535", "write it as host:9092, or [2001:db8::1]:9092 for IPv6")
		}
	}
}

// checkLogin refuses to send without TLS what a thief could use as it is: plain and
// oauthbearer do, scram proves the password without sending it.
func (k *Kafka) checkLogin(c *setting.Check) {
	c.URL("kafka.sasl.oauth.token_url", k.SASL.OAuth.TokenURL)
	if k.SASL.Mechanism == "aws-msk-iam" && !k.TLS.Enabled && c.OK("kafka.sasl.mechanism", "kafka.tls.enabled") {
		c.Fail("kafka.sasl.mechanism", "needs TLS, which is all that MSK's IAM listener speaks",
			"set kafka.tls.enabled to true and use the brokers' port 9098")
	}
	if k.TLS.Enabled || !c.OK("kafka.sasl.mechanism", "kafka.sasl.allow_plaintext", "kafka.tls.enabled", "kafka.brokers") {
		return
	}
	what := map[string]string{"plain": "password", "oauthbearer": "token"}[k.SASL.Mechanism]
	if what == "" || k.SASL.AllowPlaintext {
		return
	}
	for _, b := range k.Brokers {
		host, _, err := net.SplitHostPort(b)
		if err != nil {
			host = b
		}
		if !setting.Loopback(host) && c.OK("kafka.sasl.mechanism") {
			c.Fail("kafka.sasl.mechanism", fmt.Sprintf("would send the %s readable to %s, since kafka.tls.enabled is false", what, b),
				"set kafka.tls.enabled to true, or use scram-sha-512; where the network is trusted, kafka.sasl.allow_plaintext: true accepts it")
		}
	}
}

// maxTopicName is how long Kafka allows the name of a topic to be, in characters.
const maxTopicName = 249

// topicRule returns what Kafka has against a topic name, or ""
// (org.apache.kafka.common.internals.Topic: up to 249 of a-z A-Z 0-9 . _ -).
func topicRule(name string) string {
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	switch {
	case len(name) > maxTopicName:
		return fmt.Sprintf("must not be longer than %d characters", maxTopicName)
	case name == "" || name == "." || name == "..":
		return "must be more than dots"
	case strings.ContainsFunc(name, func(r rune) bool { return !legal(r) }):
		return "must consist of letters, digits, dots, hyphens and underscores"
	}
	return ""
}

// Check implements the rules that involve several keys.
func (d *Delivery) Check(c *setting.Check) {
	if c.OK("delivery.max_bytes", "delivery.max_buffered") && d.MaxBuffered < d.MaxBytes {
		c.Fail("delivery.max_buffered", fmt.Sprintf("must not be smaller than delivery.max_bytes (%v), or no batch could ever be full", d.MaxBytes),
			"raise it, or lower delivery.max_bytes")
	}
	if c.OK("delivery.linger", "delivery.drain") && d.Linger >= d.Drain {
		c.Fail("delivery.linger", fmt.Sprintf("must be shorter than delivery.drain (%s)", setting.DurationText(d.Drain)), "lower it; 0s suits most")
	}
}

// Check implements the rules about names and numbers.
func (r *Rejects) Check(c *setting.Check) {
	if n := r.ReplicationFactor; c.OK("rejects.replication_factor") && n != -1 && (n < 1 || n > 1000) {
		c.Fail("rejects.replication_factor", "must be -1 (the broker's default) or between 1 and 1000", "leave it out, or write 3")
	}
	if rule := topicRule(r.Topic); r.Topic != "" && rule != "" && c.OK("rejects.topic") {
		c.Fail("rejects.topic", rule, "rename it, or leave it out for <topic>-dlq")
	}
}

// CheckTogether compares the sections with each other.
func CheckTogether(c *setting.Check, k *Kafka, d *Delivery, r *Rejects) {
	if c.OK("delivery.drain", "kafka.rebalance_timeout") && d.Drain >= k.RebalanceTimeout {
		c.Fail("delivery.drain", fmt.Sprintf("must be shorter than kafka.rebalance_timeout (%s), or a slow drain gets this member expelled from the group",
			setting.DurationText(k.RebalanceTimeout)), "lower it, or raise kafka.rebalance_timeout")
	}
	for _, source := range k.Topics {
		topic := r.TopicFor(source)
		if r.Policy != PolicyDeadLetter || !c.OK("rejects.topic", "kafka.topics") {
			return
		}
		if slices.Contains(k.Topics, topic) {
			c.FailValue("rejects.topic", topic, "must not be one of kafka.topics, or every reject would be read and rejected again, for ever",
				"name another topic for dead letters, or take it out of kafka.topics")
		}
	}
}
