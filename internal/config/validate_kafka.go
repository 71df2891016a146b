package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

func (v *checker) kafka() {
	k := &v.c.Kafka
	v.brokers()
	v.topics()
	v.group()
	if k.InstanceID != "" && v.ok("kafka.instance_id") {
		// Brokers hold group.instance.id to the rule for topic names.
		if rule := topicRule(k.InstanceID); rule != "" {
			v.fail("kafka.instance_id", rule, "use the name of the host or pod")
		}
	}
	// Brokers accept 6s to 30m unless told otherwise (group.min.session.timeout.ms,
	// group.max.session.timeout.ms); the lower bound here leaves room for those.
	v.duration("kafka.session_timeout", k.SessionTimeout, time.Second, 30*time.Minute)
	v.duration("kafka.rebalance_timeout", k.RebalanceTimeout, time.Second, 30*time.Minute)
	if v.ok("kafka.session_timeout", "kafka.rebalance_timeout") && k.SessionTimeout > k.RebalanceTimeout {
		v.fail("kafka.session_timeout", fmt.Sprintf("must not be longer than kafka.rebalance_timeout (%s), or rebalances end before a silent member is noticed", durationText(k.RebalanceTimeout)),
			"lower it, or raise kafka.rebalance_timeout")
	}
	// franz-go reads at most 100 MiB from a broker at once and refuses a
	// larger fetch size.
	v.size("kafka.fetch_max_bytes", k.FetchMaxBytes, KiB, 100*MiB)
	v.size("kafka.fetch_max_partition_bytes", k.FetchMaxPartitionBytes, KiB, 100*MiB)
	if v.ok("kafka.fetch_max_bytes", "kafka.fetch_max_partition_bytes") && k.FetchMaxPartitionBytes > k.FetchMaxBytes {
		v.fail("kafka.fetch_max_partition_bytes", fmt.Sprintf("must not be larger than kafka.fetch_max_bytes (%v)", k.FetchMaxBytes), "lower it, or raise kafka.fetch_max_bytes")
	}
	v.unused()
	v.tls()
	v.sasl()
}

func (v *checker) brokers() {
	if !v.ok("kafka.brokers") {
		return
	}
	if len(v.c.Kafka.Brokers) == 0 {
		v.fail("kafka.brokers", "must name at least one broker", "write it as host:9092")
		return
	}
	for _, b := range v.c.Kafka.Brokers {
		if _, rest, hasScheme := strings.Cut(b, "://"); hasScheme {
			v.failValue("kafka.brokers", b, "must be host:port without a scheme", fmt.Sprintf("write %s; kafka.tls and kafka.sasl say how to connect", rest))
			return
		}
		host, port, err := net.SplitHostPort(b)
		if err != nil && !strings.Contains(b, ":") {
			host, port, err = b, "9092", nil
		}
		n, bad := strconv.Atoi(port)
		if err != nil || bad != nil || n < 1 || n > 65535 || host == "" || strings.ContainsAny(host, " /@") {
			v.failValue("kafka.brokers", b, "must be host:port with a port from 1 to 65535", "write it as host:9092, or [2001:db8::1]:9092 for IPv6")
			return
		}
	}
}

func (v *checker) topics() {
	if !v.ok("kafka.topics") {
		return
	}
	seen := map[string]bool{}
	for _, t := range v.c.Kafka.Topics {
		rule, remedy := topicRule(t), "write the topic's exact name; patterns are not understood"
		if seen[t] {
			rule, remedy = "is listed twice", "list each topic once"
		}
		if rule != "" {
			v.failValue("kafka.topics", t, rule, remedy)
			return
		}
		seen[t] = true
	}
}

// topicRule returns what Kafka has against a topic name, or ""
// (org.apache.kafka.common.internals.Topic: up to 249 of a-z A-Z 0-9 . _ -).
func topicRule(name string) string {
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	switch {
	case len(name) > 249:
		return "must not be longer than 249 characters"
	case name == "" || name == "." || name == "..":
		return "must be more than dots"
	case strings.ContainsFunc(name, func(r rune) bool { return !legal(r) }):
		return "must consist of letters, digits, dots, hyphens and underscores"
	}
	return ""
}

func (v *checker) group() {
	if !v.ok("kafka.group") {
		return
	}
	switch v.c.Kafka.Group {
	case "":
		v.fail("kafka.group", "must not be empty", "leave it out for zerobus-bridge")
	case "event-processor":
		v.fail("kafka.group", "is the group of Signal's own Event Processor; in it, the two would take each other's events", "choose a group of the bridge's own, such as zerobus-bridge")
	}
}

func (v *checker) tls() {
	t := &v.c.Kafka.TLS
	files := []struct{ key, path string }{
		{"kafka.tls.ca_file", t.CAFile}, {"kafka.tls.cert_file", t.CertFile}, {"kafka.tls.key_file", t.KeyFile},
	}
	if !v.ok("kafka.tls.enabled") {
		return
	}
	if !t.Enabled {
		return
	}
	for _, f := range files {
		v.readable(f.key, f.path, "without it the system's settings apply")
	}
	if (t.CertFile == "") != (t.KeyFile == "") && v.ok("kafka.tls.cert_file", "kafka.tls.key_file") {
		given, missing := "kafka.tls.cert_file", "kafka.tls.key_file"
		if t.CertFile == "" {
			given, missing = missing, given
		}
		v.fail(given, "needs "+missing+" beside it", "set both for mutual TLS, or neither")
	}
}

func (v *checker) sasl() {
	s := &v.c.Kafka.SASL
	v.secret(s.PasswordSource())
	v.secret(s.OAuth.ClientSecretSource())
	if !v.ok("kafka.sasl.mechanism") {
		return
	}
	switch s.Mechanism {
	case "plain", "scram-sha-256", "scram-sha-512":
		v.inClear("password")
		v.needs("kafka.sasl.username")
		v.needs("kafka.sasl.password", "kafka.sasl.password_file")
	case "oauthbearer":
		v.inClear("token")
		v.needs("kafka.sasl.oauth.token_url")
		v.needs("kafka.sasl.oauth.client_id")
		v.needs("kafka.sasl.oauth.client_secret", "kafka.sasl.oauth.client_secret_file")
		v.endpoint("kafka.sasl.oauth.token_url", s.OAuth.TokenURL)
	case "aws-msk-iam":
		if v.ok("kafka.tls.enabled") && !v.c.Kafka.TLS.Enabled {
			v.fail("kafka.sasl.mechanism", "needs TLS, which is all that MSK's IAM listener speaks", "set kafka.tls.enabled to true and use the brokers' port 9098")
		}
	}
}

// inClear refuses to send what a thief could use as it is: plain and
// oauthbearer do, scram proves the password without sending it.
func (v *checker) inClear(what string) {
	k := &v.c.Kafka
	if strings.HasPrefix(k.SASL.Mechanism, "scram") || k.TLS.Enabled || k.SASL.AllowPlaintext ||
		!v.ok("kafka.sasl.mechanism", "kafka.sasl.allow_plaintext", "kafka.tls.enabled", "kafka.brokers") {
		return
	}
	for _, b := range k.Brokers {
		host, _, err := net.SplitHostPort(b)
		if err != nil {
			host = b
		}
		if !loopback(host) {
			v.fail("kafka.sasl.mechanism", fmt.Sprintf("would send the %s readable to %s, since kafka.tls.enabled is false", what, b),
				"set kafka.tls.enabled to true, or use scram-sha-512; where the network is trusted, kafka.sasl.allow_plaintext: true accepts it")
			return
		}
	}
}

// needs sees to it that one of the keys is set, for the SASL mechanism chosen.
func (v *checker) needs(paths ...string) {
	if v.partial || !v.ok(paths...) {
		return
	}
	for _, p := range paths {
		if byPath[p].of(v.c).Len() > 0 {
			return
		}
	}
	v.fail(paths[0], "is required with kafka.sasl.mechanism "+v.c.Kafka.SASL.Mechanism, "set "+strings.Join(paths, " or "))
}
