package kafka

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

var update = flag.Bool("update", false, "write docs/kafka-errors.md")

// all returns every code the client library knows.
func all() []*kerr.Error {
	known := []*kerr.Error{kerr.UnknownServerError}
	for code := range int16(2000) {
		var answer *kerr.Error
		if errors.As(kerr.ErrorForCode(code), &answer) && answer.Code == code {
			known = append(known, answer)
		}
	}
	return known
}

// A code without an entry would be explained with somebody else's remedy.
func TestEveryCodeIsExplained(t *testing.T) {
	entries := map[int16]int{}
	for i, r := range table {
		entries[r.code.Code]++
		if i > 0 && table[i-1].code.Code >= r.code.Code {
			t.Errorf("%s is out of order", r.code.Message)
		}
		if r.met == "" || r.remedy == "" {
			t.Errorf("%s has no request or no remedy", r.code.Message)
		}
	}
	for _, e := range elsewhere {
		for _, code := range e.codes {
			entries[code.Code]++
		}
	}
	codes := all()
	if len(codes) < 130 {
		t.Fatalf("the client library knows %d codes, want all of them", len(codes))
	}
	for _, code := range codes {
		if n := entries[code.Code]; n != 1 {
			t.Errorf("%s (%d) has %d entries, want one: a remedy in table, or the reason in elsewhere", code.Message, code.Code, n)
		}
	}
	if len(entries) != len(codes) {
		t.Errorf("%d codes have an entry, want %d", len(entries), len(codes))
	}
}

func TestRemediesNameWhatWasAsked(t *testing.T) {
	plain := Access{Brokers: []string{"kafka-0:9092", "kafka-1:9092"}, Principal: "User:bridge", Secured: true}
	asked := Request{Topic: "orders", Group: "zerobus-bridge"}
	const admin = "--bootstrap-server kafka-0:9092,kafka-1:9092 --command-config admin.properties"
	for _, tc := range []struct {
		code   error
		asked  Request
		access Access
		want   string
	}{
		{kerr.TopicAuthorizationFailed, asked, plain, "run: kafka-acls.sh " + admin + " --add --allow-principal User:bridge --operation Read --topic orders"},
		{kerr.TopicAuthorizationFailed, Request{Topic: "orders-dlq", Operation: Write}, plain, "run: kafka-acls.sh " + admin + " --add --allow-principal User:bridge --operation Write --topic orders-dlq"},
		{kerr.GroupAuthorizationFailed, asked, plain, "run: kafka-acls.sh " + admin + " --add --allow-principal User:bridge --operation Read --group zerobus-bridge"},
		{kerr.ClusterAuthorizationFailed, Request{Topic: "orders-dlq", Operation: Write}, plain, "run: kafka-acls.sh " + admin + " --add --allow-principal User:bridge --operation Write --topic orders-dlq; brokers older than Kafka 2.8"},
		{kerr.ClusterAuthorizationFailed, Request{Operation: Create}, plain, "run: kafka-acls.sh " + admin + " --add --allow-principal User:bridge --operation Create --cluster"},
		{kerr.ClusterAuthorizationFailed, asked, plain, "run: kafka-acls.sh " + admin + " --add --allow-principal User:bridge --operation Describe --cluster"},
		{kerr.GroupAuthorizationFailed, Request{}, Access{}, "run: kafka-acls.sh --bootstrap-server <host:port> --add --allow-principal User:<principal> --operation Read --group <group>"},
		{kerr.GroupAuthorizationFailed, Request{Group: "it's ours"}, Access{Brokers: []string{"b:1"}, Principal: "User:CN=bridge,O=Datafly Inc"},
			`run: kafka-acls.sh --bootstrap-server b:1 --add --allow-principal 'User:CN=bridge,O=Datafly Inc' --operation Read --group 'it'\''s ours'`},
		{kerr.TopicAuthorizationFailed, asked, Access{IAM: true}, "allow kafka-cluster:ReadData and kafka-cluster:DescribeTopic on topic orders in the IAM policy"},
		{kerr.TopicAuthorizationFailed, Request{Topic: "orders-dlq", Operation: Create}, Access{IAM: true}, "allow kafka-cluster:CreateTopic on topic orders-dlq"},
		{kerr.GroupAuthorizationFailed, asked, Access{IAM: true}, "allow kafka-cluster:AlterGroup and kafka-cluster:DescribeGroup on group zerobus-bridge"},
		{kerr.ClusterAuthorizationFailed, Request{Operation: Write}, Access{IAM: true}, "allow kafka-cluster:WriteDataIdempotently on the cluster"},
		{kerr.TransactionalIDAuthorizationFailed, Request{TransactionalID: "store"}, plain, "run: kafka-acls.sh " + admin + " --add --allow-principal User:bridge --operation Write --operation Describe --transactional-id store"},
		{kerr.TransactionalIDAuthorizationFailed, Request{TransactionalID: "store"}, Access{IAM: true}, "allow kafka-cluster:AlterTransactionalId and kafka-cluster:DescribeTransactionalId on transactional id store"},
		{kerr.InconsistentGroupProtocol, asked, plain, "give the bridge a group of its own (kafka.group)"},
		{kerr.MessageTooLarge, Request{Topic: "orders-dlq"}, plain, "--entity-name orders-dlq --add-config max.message.bytes="},
		{fmt.Errorf("orders/0: %w", kerr.UnknownTopicOrPartition), asked, plain, "create topic orders"},
		{kerr.InvalidVoterKey, asked, plain, "Apache Kafka does not answer the bridge's requests with it"},
	} {
		got, _, known := remedyFor(tc.code, tc.asked, tc.access)
		if !known || !strings.Contains(got, tc.want) {
			t.Errorf("%v: got %q, want %q", tc.code, got, tc.want)
		}
	}
	if got, _, known := remedyFor(errors.New("dial tcp: refused"), asked, plain); known {
		t.Errorf("an error without an answer is explained: %s", got)
	}
}

// What is permanent ends the start of the bridge: only what waiting cannot change.
func TestPermanentCodes(t *testing.T) {
	permanent := []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.SaslAuthenticationFailed, kerr.IllegalSaslState,
		kerr.UnsupportedSaslMechanism, kerr.InvalidTopicException, kerr.InvalidGroupID, kerr.InvalidSessionTimeout, kerr.UnsupportedVersion, kerr.UnsupportedAssignor,
		kerr.InconsistentGroupProtocol, kerr.PolicyViolation, kerr.InvalidReplicationFactor}
	passing := []error{kerr.CoordinatorNotAvailable, kerr.RebalanceInProgress, kerr.GroupMaxSizeReached, kerr.UnreleasedInstanceID, kerr.FencedInstanceID, kerr.UnknownServerError,
		kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.LeaderNotAvailable, kerr.KafkaStorageError}
	for want, codes := range map[bool][]error{true: permanent, false: passing} {
		for _, code := range codes {
			if _, got, _ := remedyFor(code, Request{}, Access{}); got != want {
				t.Errorf("%v: permanent is %v, want %v", code, got, want)
			}
		}
	}
	// What the protocol states may be tried again, the bridge must not end for.
	for _, r := range table {
		if r.permanent && r.code.Retriable {
			t.Errorf("%s is permanent, and Kafka calls it retriable", r.code.Message)
		}
	}
}

func TestDocsAreCurrent(t *testing.T) {
	const file = "../../docs/kafka-errors.md"
	got := page()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || got != string(want) {
		t.Errorf("docs/kafka-errors.md is stale (%v); go test ./internal/kafka -update rewrites it", err)
	}
}

// page renders docs/kafka-errors.md.
func page() string {
	var b strings.Builder
	b.WriteString(strings.ReplaceAll(`# Kafka errors

Every error code of Kafka that the bridge can be answered with, and what to do about it. The bridge prints the same remedies in its log,
at '/readyz' and in 'bridge check', with its own brokers, topic, group and principal in place of '<...>'. Where no broker answers, the
remedy is about the connection instead.

This page is written by 'go test ./internal/kafka -update', and a test fails when it is stale.

The command for a missing permission names the operation that the request needs: 'Read' for topics and the group, 'Write' and 'Create' for the
dead-letter topic. With 'kafka.sasl.mechanism: aws-msk-iam' it names the actions of an IAM policy instead.

- *Met by* is the request: connect (TLS, SASL), metadata, group (join, heartbeat), fetch, or offsets (look-ups). It may also be commit (and
  reading commits), produce (dead letters), create topic (the dead-letter topic), transaction (the store of integrations), or any of them.
- *Waiting helps*: no means that the error lasts until somebody changes something. During start-up such an error ends 'bridge run' with
  exit code 1; later the bridge is not ready and tries again.

| code | error | met by | waiting helps | remedy |
|---|---|---|---|---|
`, "'", "`"))
	for _, r := range table {
		helps := "yes"
		if r.permanent {
			helps = "no"
		}
		text := Request{}.names(Access{}).Replace(r.remedy)
		for _, command := range []string{"kafka-acls.sh", "kafka-topics.sh", "kafka-configs.sh"} {
			if before, after, found := strings.Cut(text, command); found {
				arguments, rest, _ := strings.Cut(after, ";")
				text = before + "`" + command + arguments + "`"
				if rest != "" {
					text += ";" + rest
				}
			}
		}
		text = strings.ReplaceAll(text, "kafka-consumer-groups.sh --bootstrap-server <host:port> --describe --members --group <group>",
			"`kafka-consumer-groups.sh --bootstrap-server <host:port> --describe --members --group <group>`")
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s | %s |\n", r.code.Code, r.code.Message, r.met, helps, outsideCode(text))
	}
	b.WriteString("\n## Codes that the bridge is not answered with\n\nThey belong to requests that the bridge does not make.\n\n| reason | codes |\n|---|---|\n")
	for _, e := range elsewhere {
		var codes []string
		for _, c := range e.codes {
			codes = append(codes, "`"+c.Message+"`")
		}
		slices.Sort(codes)
		fmt.Fprintf(&b, "| %s | %s |\n", e.why, strings.Join(codes, ", "))
	}
	return b.String()
}

// outsideCode puts placeholders outside code spans into spans of their own, or
// Markdown would take them for HTML.
func outsideCode(text string) string {
	parts := strings.Split(text, "`")
	for i := 0; i < len(parts); i += 2 {
		for _, name := range []string{"<topic>", "<group>", "<host:port>", "<transactional id>"} {
			parts[i] = strings.ReplaceAll(parts[i], name, "§"+name+"§")
		}
	}
	return strings.ReplaceAll(strings.Join(parts, "`"), "§", "`")
}
