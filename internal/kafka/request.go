package kafka

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
)

// Operation is what a principal must be allowed, by the name that kafka-acls.sh
// has for it.
type Operation string

// The operations that the bridge needs.
const (
	Read     Operation = "Read"
	Write    Operation = "Write"
	Create   Operation = "Create"
	Describe Operation = "Describe"
)

// Request says what was asked of a broker, so that a remedy can name it. An
// empty field becomes a placeholder such as <topic>.
type Request struct {
	Topic string
	Group string
	// Operation is the one that the request needs on Topic. Default: Read.
	Operation Operation
}

// Access says how this process reaches the cluster, for the commands in
// remedies.
type Access struct {
	Brokers []string
	// Principal is the name the brokers have for this process, such as
	// User:bridge. Empty: not known.
	Principal string
	// Secured means that tools need a file with TLS or SASL settings, too.
	Secured bool
	// IAM means that an AWS IAM policy grants access, not ACLs.
	IAM bool
}

// names fills the placeholders of a remedy.
func (r Request) names(a Access) *strings.Replacer {
	return strings.NewReplacer(
		"{topic}", cmp.Or(r.Topic, "<topic>"),
		"{group}", cmp.Or(r.Group, "<group>"),
		"{brokers}", cmp.Or(strings.Join(a.Brokers, ","), "<host:port>"),
		"{admin}", a.Admin(),
		"{grant topic}", a.GrantTopic(r.Topic, cmp.Or(r.Operation, Read)),
		"{grant group}", a.GrantGroup(r.Group),
		"{grant cluster}", a.grantCluster(r.Topic, cmp.Or(r.Operation, Read)),
	)
}

// Admin returns the arguments by which Kafka's tools reach the cluster.
func (a Access) Admin() string {
	args := "--bootstrap-server " + cmp.Or(strings.Join(a.Brokers, ","), "<host:port>")
	if a.Secured {
		args += " --command-config admin.properties"
	}
	return args
}

// GrantTopic returns the command that allows an operation on a topic.
func (a Access) GrantTopic(topic string, op Operation) string {
	topic = cmp.Or(topic, "<topic>")
	if a.IAM {
		return a.policy(map[Operation]string{
			Read: "kafka-cluster:ReadData and kafka-cluster:DescribeTopic", Write: "kafka-cluster:WriteData and kafka-cluster:DescribeTopic",
			Create: "kafka-cluster:CreateTopic", Describe: "kafka-cluster:DescribeTopic",
		}[op], "topic "+topic)
	}
	return a.acl(op, "--topic "+shellWord(topic))
}

// GrantGroup returns the command that allows to join a group and to commit for
// it.
func (a Access) GrantGroup(group string) string {
	group = cmp.Or(group, "<group>")
	if a.IAM {
		return a.policy("kafka-cluster:AlterGroup and kafka-cluster:DescribeGroup", "group "+group)
	}
	return a.acl(Read, "--group "+shellWord(group))
}

// grantCluster returns the command for what a broker wants on the cluster where
// the bridge needs op on a topic.
func (a Access) grantCluster(topic string, op Operation) string {
	switch {
	case a.IAM && op == Write:
		return a.policy("kafka-cluster:WriteDataIdempotently", "the cluster")
	case a.IAM:
		return a.policy("kafka-cluster:Connect and kafka-cluster:DescribeCluster", "the cluster")
	case op == Write: // whoever may write to no topic at all gets no producer id
		return a.GrantTopic(topic, Write) + "; brokers older than Kafka 2.8 also want --operation IdempotentWrite --cluster"
	case op == Create:
		return a.acl(Create, "--cluster")
	}
	return a.acl(Describe, "--cluster")
}

func (a Access) acl(op Operation, resource string) string {
	return fmt.Sprintf("run: kafka-acls.sh %s --add --allow-principal %s --operation %s %s", a.Admin(), shellWord(cmp.Or(a.Principal, "User:<principal>")), op, resource)
}

func (a Access) policy(actions, resource string) string {
	return fmt.Sprintf("allow %s on %s in the IAM policy of the bridge's identity", actions, resource)
}

var plainWord = regexp.MustCompile(`^[\w./:@%+,-]+$`)

// shellWord quotes a word that a shell would take apart. A placeholder stays as
// it is: it has to be replaced in any case.
func shellWord(word string) string {
	if plainWord.MatchString(word) || strings.HasSuffix(word, ">") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
