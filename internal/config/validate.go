package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/datafly/bridge/internal/plaintext"
)

// validate holds the merged configuration to its rules and tells every breach.
// Values of the wrong type or outside a closed set were told while they were
// read; a key so told, and any rule that involves it, is passed over.
func (l *loader) validate(c *Config, partial bool) {
	v := &checker{loader: l, c: c, partial: partial}
	v.required()
	v.kafka()
	v.zerobus()
	v.mapping()
	v.delivery()
	v.rejects()
	v.ops()
}

// checker adds problems about keys of one Config.
type checker struct {
	*loader
	c       *Config
	partial bool
}

// fail tells a breach at key, with the value as merged and where it came from.
func (v *checker) fail(key, rule, remedy string) {
	v.failValue(key, byPath[key].text(v.c), rule, remedy)
}

// failValue is fail for one item of a list, or a value shown in part.
func (v *checker) failValue(key, value, rule, remedy string) {
	v.problems = append(v.problems, v.origins[key].problem(key, value, rule, remedy))
	v.spoil(key)
}

// ok reports whether all these keys may be judged.
func (v *checker) ok(paths ...string) bool {
	for _, p := range paths {
		if !v.sound(p) {
			return false
		}
	}
	return true
}

func (v *checker) required() {
	if v.partial {
		return
	}
	for _, f := range keys {
		if hint, needed := required[f.path]; needed && f.of(v.c).Len() == 0 && v.fillable(f.path) {
			v.fail(f.path, "is required", fmt.Sprintf("set it to %s, in the file or as %s", hint, f.env()))
		}
		if f.path == "zerobus.client_secret" && v.c.Zerobus.ClientSecret == "" && v.c.Zerobus.ClientSecretFile == "" &&
			v.ok(f.path, "zerobus.client_secret_file") {
			v.fail(f.path, "is required", fmt.Sprintf("set zerobus.client_secret_file to a file that holds the service principal's OAuth secret, or the secret itself as %s", f.env()))
		}
	}
}

// fillable reports whether an empty key is truly missing: neither told about
// already nor about to be filled from a full table name.
func (v *checker) fillable(path string) bool {
	if path == "zerobus.catalog" || path == "zerobus.schema" {
		return v.ok(path) && !strings.Contains(v.c.Zerobus.Table, ".")
	}
	return v.ok(path)
}

func (v *checker) mapping() {
	v.readable("mapping.blueprint", v.c.Mapping.Blueprint, "the built-in mapping needs no file")
	v.count("mapping.max_events_per_record", v.c.Mapping.MaxEventsPerRecord, 1, 1<<20) // dead letters name events up to there
	seen := map[string]bool{}
	for _, category := range v.c.Mapping.RequireConsent {
		if seen[category] {
			v.failValue("mapping.require_consent", category, "is listed twice", "list each category once")
			break
		}
		seen[category] = true
	}
}

func (v *checker) delivery() {
	d := &v.c.Delivery
	v.count("delivery.max_rows", d.MaxRows, 1, 1_000_000)
	v.size("delivery.max_bytes", d.MaxBytes, KiB, GiB)
	v.size("delivery.max_buffered", d.MaxBuffered, KiB, 1024*GiB)
	v.duration("delivery.linger", d.Linger, 0, time.Minute)
	v.duration("delivery.drain", d.Drain, 100*time.Millisecond, 10*time.Minute)
	v.count("tracing.max_per_second", v.c.Tracing.MaxPerSecond, 1, 10_000)
	v.duration("delivery.stuck_after", d.StuckAfter, 0, 24*time.Hour)
	if v.ok("delivery.max_bytes", "delivery.max_buffered") && d.MaxBuffered < d.MaxBytes {
		v.fail("delivery.max_buffered", fmt.Sprintf("must not be smaller than delivery.max_bytes (%v), or no batch could ever be full", d.MaxBytes),
			"raise it, or lower delivery.max_bytes")
	}
	if v.ok("delivery.max_bytes", "zerobus.max_request_bytes") && d.MaxBytes > v.c.Zerobus.MaxRequestBytes {
		v.fail("delivery.max_bytes", fmt.Sprintf("must not be larger than zerobus.max_request_bytes (%v), or full batches would be refused and halved", v.c.Zerobus.MaxRequestBytes),
			"lower it")
	}
	if v.ok("delivery.drain", "kafka.rebalance_timeout") && d.Drain >= v.c.Kafka.RebalanceTimeout {
		v.fail("delivery.drain", fmt.Sprintf("must be shorter than kafka.rebalance_timeout (%s), or a slow drain gets this member expelled from the group", durationText(v.c.Kafka.RebalanceTimeout)),
			"lower it, or raise kafka.rebalance_timeout")
	}
	if v.ok("delivery.linger", "delivery.drain") && d.Linger >= d.Drain {
		v.fail("delivery.linger", fmt.Sprintf("must be shorter than delivery.drain (%s)", durationText(d.Drain)), "lower it; 0s suits most")
	}
}

func (v *checker) rejects() {
	r := &v.c.Rejects
	v.count("rejects.partitions", r.Partitions, 0, 10_000)
	if v.ok("rejects.replication_factor") && r.ReplicationFactor != -1 && (r.ReplicationFactor < 1 || r.ReplicationFactor > 1000) {
		v.fail("rejects.replication_factor", "must be -1 (the broker's default) or between 1 and 1000", "leave it out, or write 3")
	}
	if !v.ok("rejects.topic", "kafka.topics") {
		return
	}
	if r.Topic != "" {
		if rule := topicRule(r.Topic); rule != "" {
			v.fail("rejects.topic", rule, "rename it, or leave it out for <topic>-dlq")
			return
		}
	}
	if r.Policy != "dead_letter" {
		return
	}
	for _, source := range v.c.Kafka.Topics {
		for _, other := range v.c.Kafka.Topics {
			if r.TopicFor(other) == source {
				v.failValue("rejects.topic", source, "must not be one of kafka.topics, or every reject would be read and rejected again, for ever",
					"name another topic for dead letters, or take it out of kafka.topics")
				return
			}
		}
		if rule := topicRule(r.TopicFor(source)); rule != "" {
			v.failValue("rejects.topic", r.TopicFor(source), rule, "name a shorter topic for dead letters")
			return
		}
	}
}

func (v *checker) ops() {
	if !v.ok("ops.address") {
		return
	}
	_, port, err := net.SplitHostPort(v.c.Ops.Address)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 {
		v.fail("ops.address", "must be host:port with a port from 0 to 65535", "write it as 127.0.0.1:9400, or :9400 for every interface")
	}
	v.liveEvents()
}

// minToken is what a token that guards events has at least, in bytes: guesses
// are slowed down, not made impossible.
const minToken = 16

func (v *checker) liveEvents() {
	o := &v.c.Ops
	token, given := o.TokenSource()
	v.secret(token)
	if !v.ok("ops.address", "ops.live_events", "ops.token", "ops.token_file") {
		return
	}
	if o.LiveEvents == "full" && !given && !o.Loopback() {
		v.fail("ops.live_events", "must not be full without ops.token while ops.address can be reached from other machines",
			"set ops.token_file to a file with a long random text, or ops.live_events to metadata, or ops.address to 127.0.0.1:9400")
	}
	text, err := token.Read()
	if given && !v.partial && err == nil && len(text) < minToken {
		key := token.Key
		if token.File != "" {
			key += "_file"
		}
		v.failValue(key, "", fmt.Sprintf("must be at least %d characters long, or it could be guessed", minToken), "make one with: openssl rand -hex 24")
	}
}

// count, size and duration hold a number between two bounds, both included.
func (v *checker) count(key string, n, least, most int) {
	if v.ok(key) && (n < least || n > most) {
		v.fail(key, fmt.Sprintf("must be between %d and %d", least, most), "choose a number between them")
	}
}

func (v *checker) size(key string, n, least, most Size) {
	if v.ok(key) && (n < least || n > most) {
		v.fail(key, fmt.Sprintf("must be between %v and %v", least, most), "choose a size between them")
	}
}

func (v *checker) duration(key string, d, least, most time.Duration) {
	if v.ok(key) && (d < least || d > most) {
		v.fail(key, fmt.Sprintf("must be between %s and %s", durationText(least), durationText(most)), "choose a duration between them")
	}
}

// readable sees to it that a named file can be opened by this process now.
func (v *checker) readable(key, path, otherwise string) {
	if path == "" || v.partial || !v.ok(key) {
		return
	}
	if err := plaintext.Check(path); err != nil {
		v.fail(key, "cannot be read: "+cause(err), "name a file this user can read; "+otherwise)
	}
}

// secret holds the pair of keys a secret may come by: one of them, and the
// file readable and not empty.
func (v *checker) secret(s SecretSource) {
	file := s.Key + "_file"
	if !v.ok(s.Key, file) {
		return
	}
	if s.Value != "" && s.File != "" {
		v.fail(file, "must not be set together with "+s.Key, "keep one of the two")
		return
	}
	if s.Value != "" && strings.TrimSpace(s.Value.Reveal()) == "" {
		v.fail(s.Key, "is blank", "give the secret, or name the file that holds it in "+file)
		return
	}
	if s.File == "" || v.partial {
		return
	}
	if _, err := readSecret(s.File); err != nil {
		v.fail(file, "cannot be used: "+cause(err), "let it name a readable file that holds the secret and nothing else")
	}
}
