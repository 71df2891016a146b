package kafka

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Error is a failure to work with the cluster, with its remedy.
type Error struct {
	Op     string // gerund, such as "reading topic events"
	Err    error
	Remedy string
	// Permanent means that waiting does not help: credentials, grants,
	// certificates or settings are wrong.
	Permanent bool
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v; %s", e.Op, e.Err, e.Remedy) }

func (e *Error) Unwrap() error { return e.Err }

// Explain adds the remedy to an error of the client. r is what was requested; the
// zero value where that is not known.
func (c *Connection) Explain(op string, err error, r Request) *Error {
	e := &Error{Op: op, Err: err}
	var token *tokenError
	if errors.As(err, &token) {
		e.Permanent = token.refused
		e.Remedy = "check kafka.sasl.oauth: token_url, client_id, client_secret and scopes"
		return e
	}
	if remedy, permanent, answered := remedyFor(err, r, c.access()); answered {
		e.Remedy, e.Permanent = remedy, permanent
		return e
	}
	// No broker has answered: it is about the connection.
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &cert):
		e.Permanent = true
		e.Remedy = "set kafka.tls.ca_file to the CA that signed the broker's certificate, and kafka.tls.server_name if its name differs"
	case errors.As(err, &record):
		e.Remedy = "the broker does not speak TLS on that port: name its TLS port in kafka.brokers, or set kafka.tls.enabled to false"
	case errors.Is(err, io.EOF):
		e.Remedy = "the broker closed the connection at once: it may be starting, expect TLS (kafka.tls.enabled) or SASL (kafka.sasl.mechanism), or refuse the credentials without a reason"
	default:
		e.Remedy = fmt.Sprintf("check kafka.brokers (%s), that the brokers are up, and that the network allows the connection", strings.Join(c.Brokers, ","))
	}
	return e
}

// remedyFor returns what to do about the error code in err. permanent means that
// the request is refused until somebody changes something. answered is false where
// err holds no code: then no broker has answered.
func remedyFor(err error, r Request, a Access) (remedy string, permanent, answered bool) {
	var answer *kerr.Error
	if !errors.As(err, &answer) {
		return "", false, false
	}
	row, known := byCode[answer.Code]
	if !known {
		row = unexpected
	}
	return r.names(a).Replace(row.remedy), row.permanent, true
}

// row is one error code. In the remedy {topic}, {group}, {id}, {brokers}, {admin}
// and {grant ...} stand for the request; see Request.
type row struct {
	code      *kerr.Error
	met       string // the requests that can be answered with it
	remedy    string
	permanent bool
}

// Requests that the bridge makes, as the table names them.
const (
	anyRequest = "any"
	connect    = "connect"
	metadata   = "metadata"
	join       = "group"
	fetch      = "fetch"
	offsets    = "offsets" // looked up: list, by time, by leader epoch
	commit     = "commit"
	produce    = "produce"
	create     = "create topic"
	transact   = "transaction"
)

// unexpected is for codes that no request of the bridge is answered with by
// Apache Kafka: other brokers and proxies may do so.
var unexpected = row{remedy: "look this code up in the broker's documentation and the broker's log: Apache Kafka does not answer the bridge's requests with it, so check for a proxy or another kind of broker at {brokers}"}

const (
	rejoin     = "wait: the member joins group {group} again; if this recurs, raise kafka.session_timeout, and check that the process is not starved of CPU"
	leaderMove = "wait: the client looks up the new leader; if it lasts, check that every broker advertises an address that the bridge reaches (advertised.listeners)"
	newSession = "wait: the client begins another fetch session; if this recurs, raise max.incremental.fetch.session.cache.slots on the brokers"
	newID      = "wait: the client gets another producer id and writes the dead letters again. If this recurs, check for unclean leader elections and short retention of {topic}"
	recreated  = "wait: a topic that was deleted and created again is read again within a minute; if {topic} was only deleted, create it or correct kafka.topics"
	badSASL    = "check kafka.sasl.mechanism, username and password, or the claims of the oauth token: the broker refused the credentials"
	inSync     = "start the brokers that hold replicas of {topic}, or lower its min.insync.replicas: kafka-topics.sh {admin} --describe --under-min-isr-partitions"
	oneWriter  = "wait: another writer of the store of integrations was faster, and the change is tried again; if this recurs, check that no other application uses transactional id {id}"
	ownID      = "give each member a kafka.instance_id of its own; after a kill the old one is free again within kafka.session_timeout"
)

// table is in the order of the codes. docs/kafka-errors.md is made of it.
var table = []row{
	{kerr.UnknownServerError, anyRequest, "look at the broker's log of this moment: it failed for a reason it does not give; the bridge tries again", false},
	{kerr.OffsetOutOfRange, fetch + ", " + offsets, "raise the retention of {topic} (retention.ms, retention.bytes) if its events expire unread; the bridge resumes at the first event that is left", false},
	{kerr.CorruptMessage, fetch + ", " + produce, "check the disk of the partition's leader, and move the leadership to an intact replica. A dead-letter topic must not be compacted (cleanup.policy=delete)", false},
	{kerr.UnknownTopicOrPartition, metadata + ", " + fetch + ", " + offsets + ", " + commit + ", " + produce, "create topic {topic}, or correct kafka.topics: kafka-topics.sh {admin} --create --topic {topic}; a topic that was deleted and created again is read again within a minute", false},
	{kerr.InvalidFetchSize, fetch, "raise kafka.fetch_max_bytes and kafka.fetch_max_partition_bytes", true},
	{kerr.LeaderNotAvailable, metadata + ", " + fetch + ", " + offsets + ", " + produce, "wait for the election of a leader; if it lasts, start a broker that holds an in-sync replica: kafka-topics.sh {admin} --describe --unavailable-partitions", false},
	{kerr.NotLeaderForPartition, fetch + ", " + offsets + ", " + produce, leaderMove, false},
	{kerr.RequestTimedOut, anyRequest, "check the load and the replication of the brokers, which did not complete a request in time; the bridge tries again", false},
	{kerr.BrokerNotAvailable, metadata + ", " + join, "check that all brokers are up and the cluster has a controller", false},
	{kerr.ReplicaNotAvailable, metadata + ", " + fetch, "start the brokers that hold replicas of {topic}: kafka-topics.sh {admin} --describe --under-replicated-partitions", false},
	{kerr.MessageTooLarge, produce + ", " + commit, "raise max.message.bytes of topic {topic}: kafka-configs.sh {admin} --alter --entity-type topics --entity-name {topic} --add-config max.message.bytes=33554432", true},
	{kerr.OffsetMetadataTooLarge, commit, "raise offset.metadata.max.bytes on the brokers to its default of 4096", true},
	{kerr.NetworkException, anyRequest, "check the network between the bridge and {brokers}: a broker was cut off before it answered", false},
	{kerr.CoordinatorLoadInProgress, join + ", " + commit, "wait: the coordinator of group {group} is reading its offsets after an election", false},
	{kerr.CoordinatorNotAvailable, join + ", " + commit, "wait for a coordinator; if it lasts, check that topic __consumer_offsets has leaders and offsets.topic.replication.factor is at most the number of brokers", false},
	{kerr.NotCoordinator, join + ", " + commit, "wait: the client looks up the new coordinator of group {group}", false},
	{kerr.InvalidTopicException, metadata + ", " + commit + ", " + produce + ", " + create, "correct kafka.topics or rejects.topic: {topic} is no legal name, or an internal topic of Kafka", true},
	{kerr.RecordListTooLarge, produce, "raise segment.bytes of topic {topic} above the size of a dead letter", true},
	{kerr.NotEnoughReplicas, produce + ", " + commit, inSync, false},
	{kerr.NotEnoughReplicasAfterAppend, produce + ", " + commit, inSync, false},
	{kerr.IllegalGeneration, join + ", " + commit, rejoin, false},
	{kerr.InconsistentGroupProtocol, join, "give the bridge a group of its own (kafka.group): group {group} has members of another application or with another assignor, which kafka-consumer-groups.sh {admin} --describe --members --group {group} lists", true},
	{kerr.InvalidGroupID, join + ", " + commit, "set kafka.group to a name that the brokers take: {group} is refused", true},
	{kerr.UnknownMemberID, join + ", " + commit, rejoin, false},
	{kerr.InvalidSessionTimeout, join, "set kafka.session_timeout to a time between group.min.session.timeout.ms and group.max.session.timeout.ms of the brokers", true},
	{kerr.RebalanceInProgress, join + ", " + commit, "wait for the rebalance of group {group} to end. If it recurs, check that members do not restart in turns, and lower delivery.drain", false},
	{kerr.InvalidCommitOffsetSize, commit, "raise max.message.bytes of topic __consumer_offsets, or give the topics to more than one group", true},
	{kerr.TopicAuthorizationFailed, metadata + ", " + fetch + ", " + offsets + ", " + commit + ", " + produce + ", " + create, "{grant topic}", true},
	{kerr.GroupAuthorizationFailed, join + ", " + commit, "{grant group}", true},
	{kerr.ClusterAuthorizationFailed, metadata + ", " + fetch + ", " + produce + ", " + create, "{grant cluster}", true},
	{kerr.InvalidTimestamp, produce, "set the clock of this machine, or raise message.timestamp.after.max.ms of topic {topic}: it refuses the time of the dead letter", false},
	{kerr.UnsupportedSaslMechanism, connect, "set kafka.sasl.mechanism to one the broker has enabled", true},
	{kerr.IllegalSaslState, connect, badSASL, true},
	{kerr.UnsupportedVersion, anyRequest, "set kafka.protocol to classic, since consumer needs brokers of Kafka 4.0 or later; if it is classic, upgrade the brokers at {brokers}", true},
	{kerr.TopicAlreadyExists, create, "look whether topic {topic} is there now: another process has created it", false},
	{kerr.InvalidPartitions, create, "set rejects.partitions to at least 1, or to 0 for as many as the source has", true},
	{kerr.InvalidReplicationFactor, create, "set rejects.replication_factor to at most the number of brokers, or to -1 for the brokers' default", true},
	{kerr.InvalidConfig, create, "create topic {topic} with settings that the cluster takes: kafka-topics.sh {admin} --create --topic {topic}", true},
	{kerr.NotController, create, "wait for the election of a controller", false},
	{kerr.InvalidRequest, anyRequest, "upgrade the bridge or the brokers, whichever is older, and check for a proxy at {brokers}. The broker has the reason in its log", true},
	{kerr.UnsupportedForMessageFormat, fetch + ", " + offsets + ", " + produce, "raise message.format.version of topic {topic}: it stores records in a format older than Kafka 0.11", true},
	{kerr.PolicyViolation, create + ", " + produce, "create topic {topic} as the cluster's create.topic.policy wants it, or set rejects.partitions and rejects.replication_factor to what it allows", true},
	{kerr.OutOfOrderSequenceNumber, produce, newID, false},
	{kerr.DuplicateSequenceNumber, produce, newID, false},
	{kerr.InvalidProducerEpoch, produce, newID, false},
	{kerr.InvalidTxnState, transact, oneWriter, false},
	{kerr.InvalidProducerIDMapping, transact, oneWriter, false},
	{kerr.InvalidTransactionTimeout, transact, "raise transaction.max.timeout.ms on the brokers to at least 10000", true},
	{kerr.ConcurrentTransactions, transact, "wait until the transaction of the writer before is complete; if it lasts, check that topic __transaction_state has leaders", false},
	{kerr.TransactionalIDAuthorizationFailed, transact, "{grant id}", true},
	{kerr.KafkaStorageError, fetch + ", " + offsets + ", " + produce, "check the disks of the partition's leader; its log folder is offline", false},
	{kerr.SaslAuthenticationFailed, connect, badSASL, true},
	{kerr.UnknownProducerID, produce, newID, false},
	{kerr.GroupIDNotFound, join + ", " + commit, "wait until a member has joined; give the bridge a group of its own (kafka.group) if {group} is of another application or another kafka.protocol", false},
	{kerr.FetchSessionIDNotFound, fetch, newSession, false},
	{kerr.InvalidFetchSessionEpoch, fetch, newSession, false},
	{kerr.ListenerNotFound, metadata, "add the listener by which the bridge connects to every broker (listeners, advertised.listeners): the leader of a partition lacks it", false},
	{kerr.FencedLeaderEpoch, fetch + ", " + offsets, leaderMove, false},
	{kerr.UnknownLeaderEpoch, fetch + ", " + offsets, leaderMove, false},
	{kerr.UnsupportedCompressionType, fetch + ", " + produce, "set compression.type of topic {topic} to gzip, snappy or lz4, or upgrade brokers older than Kafka 2.1", true},
	{kerr.OffsetNotAvailable, fetch + ", " + offsets, "wait until the new leader has caught up after its election", false},
	{kerr.MemberIDRequired, join, "wait: the client joins group {group} again with the id it was given", false},
	{kerr.GroupMaxSizeReached, join, "run fewer members, or raise group.max.size (with kafka.protocol consumer: group.consumer.max.size) on the brokers", false},
	{kerr.FencedInstanceID, join + ", " + commit, ownID, false},
	{kerr.InvalidRecord, produce, "make {topic} a plain topic: cleanup.policy=delete, and no validation of schemas by the broker", true},
	{kerr.UnstableOffsetCommit, commit, "give the bridge a group of its own (kafka.group): a transaction of another application holds offsets of group {group}", false},
	{kerr.ThrottlingQuotaExceeded, create, "wait, or raise controller_mutation_rate of the bridge's user", false},
	{kerr.ProducerFenced, transact, oneWriter, false},
	{kerr.PrincipalDeserializationFailure, create, "set the same principal.builder.class on brokers and controllers; it must be able to serialize principals", true},
	{kerr.UnknownTopicID, fetch + ", " + offsets + ", " + commit + ", " + produce, recreated, false},
	{kerr.InconsistentTopicID, fetch, recreated, false},
	{kerr.FetchSessionTopicIDError, fetch, newSession, false},
	{kerr.FencedMemberEpoch, join + ", " + commit, rejoin, false},
	{kerr.UnreleasedInstanceID, join, ownID, false},
	{kerr.UnsupportedAssignor, join, "add the assignors uniform and range to group.consumer.assignors of the brokers, or set kafka.protocol to classic", true},
	{kerr.StaleMemberEpoch, join + ", " + commit, rejoin, false},
	{kerr.TransactionAbortable, transact, oneWriter, false},
	{kerr.RebootstrapRequired, metadata, "check that kafka.brokers ({brokers}) names brokers of one cluster; the client begins there again", false},
}

// elsewhere are the codes that no request of the bridge is answered with, with
// the reason: they belong to requests that the bridge does not make.
var elsewhere = []struct {
	why   string
	codes []*kerr.Error
}{
	{"the bridge always writes with acks=all", []*kerr.Error{kerr.InvalidRequiredAcks}},
	{"the bridge does not describe transactions, nor commit offsets in them", []*kerr.Error{kerr.TransactionCoordinatorFenced, kerr.OperationNotAttempted, kerr.TransactionalIDNotFound}},
	{"brokers and controllers answer each other with it", []*kerr.Error{kerr.StaleControllerEpoch, kerr.StaleBrokerEpoch, kerr.InconsistentVoterSet, kerr.InvalidUpdateVersion, kerr.FeatureUpdateFailed,
		kerr.SnapshotNotFound, kerr.PositionOutOfRange, kerr.DuplicateBrokerRegistration, kerr.BrokerIDNotRegistered, kerr.InconsistentClusterID,
		kerr.IneligibleReplica, kerr.NewLeaderElected, kerr.OffsetMovedToTieredStorage, kerr.UnknownControllerID, kerr.InvalidRegistration,
		kerr.InvalidVoterKey, kerr.DuplicateVoter, kerr.VoterNotFound, kerr.ControllerIDNotRegistered}},
	{"the bridge does not administer the cluster", []*kerr.Error{kerr.InvalidReplicaAssignment, kerr.SecurityDisabled, kerr.LogDirNotFound, kerr.ReassignmentInProgress, kerr.InvalidPrincipalType,
		kerr.TopicDeletionDisabled, kerr.PreferredLeaderNotAvailable, kerr.EligibleLeadersNotAvailable, kerr.ElectionNotNeeded, kerr.NoReassignmentInProgress,
		kerr.ResourceNotFound, kerr.DuplicateResource, kerr.UnacceptableCredential, kerr.MismatchedEndpointType, kerr.UnsupportedEndpointType}},
	{"the bridge deletes no groups and no offsets", []*kerr.Error{kerr.NonEmptyGroup, kerr.GroupSubscribedToTopic, kerr.GroupDeletionFailed}},
	{"the bridge uses no delegation tokens", []*kerr.Error{kerr.DelegationTokenAuthDisabled, kerr.DelegationTokenNotFound, kerr.DelegationTokenOwnerMismatch, kerr.DelegationTokenRequestNotAllowed,
		kerr.DelegationTokenAuthorizationFailed, kerr.DelegationTokenExpired}},
	{"the bridge sends no client metrics", []*kerr.Error{kerr.UnknownSubscriptionID, kerr.TelemetryTooLarge}},
	{"the bridge is no member of a share or streams group", []*kerr.Error{kerr.InvalidRecordState, kerr.ShareSessionNotFound, kerr.InvalidShareSessionEpoch, kerr.FencedStateEpoch, kerr.ShareSessionLimitReached,
		kerr.StreamsInvalidTopology, kerr.StreamsInvalidTopologyEpoch, kerr.StreamsTopologyFenced, kerr.StreamsTopologyDescriptionUpdateFailed}},
	{"the bridge subscribes by name", []*kerr.Error{kerr.InvalidRegularExpression}},
}

var byCode = func() map[int16]row {
	m := make(map[int16]row, len(table))
	for _, r := range table {
		m[r.code.Code] = r
	}
	return m
}()

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

// Request is what a remedy names of a request to a broker. An empty field becomes a placeholder such as <topic>.
type Request struct {
	Topic           string
	Group           string
	TransactionalID string
	// Operation is the one that the request needs on Topic. Default: Read.
	Operation Operation
}

// Access is how this process reaches the cluster, for the commands in
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
		"{id}", cmp.Or(r.TransactionalID, "<transactional id>"),
		"{grant id}", a.GrantTransactions(r.TransactionalID),
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

// GrantTransactions returns the command that allows to write with a transactional id.
func (a Access) GrantTransactions(id string) string {
	id = cmp.Or(id, "<transactional id>")
	if a.IAM {
		return a.policy("kafka-cluster:AlterTransactionalId and kafka-cluster:DescribeTransactionalId", "transactional id "+id)
	}
	return a.acl(Write, "--operation "+string(Describe)+" --transactional-id "+shellWord(id))
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
