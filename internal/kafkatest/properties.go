package kafkatest

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// keepAnyDate has brokers take and keep records of any date, so that no test
// depends on the day it runs: by default a broker deletes what is older than
// seven days and refuses what lies more than an hour ahead.
var keepAnyDate = map[string]string{
	"log.retention.ms":                   "-1",
	"log.message.timestamp.after.max.ms": strconv.Itoa(math.MaxInt64),
}

// properties renders a broker's server.properties. The keys are documented at
// https://kafka.apache.org/documentation/#brokerconfigs.
//
// Each broker has three listeners: CLIENT, which alone has TLS and SASL, INTERNAL
// between brokers and CONTROLLER for the metadata quorum.
func properties(n *node, all []*node, o Options, sec Security) string {
	var voters []string
	for _, v := range all {
		voters = append(voters, fmt.Sprintf("%d@%s", v.id, v.controller.addr()))
	}
	replicas := strconv.Itoa(len(all))
	inSync := strconv.Itoa((len(all) + 1) / 2) // 1 of 1, 2 of 3
	p := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        strconv.Itoa(n.id),
		"controller.quorum.voters":       strings.Join(voters, ","),
		"controller.listener.names":      "CONTROLLER",
		"inter.broker.listener.name":     "INTERNAL",
		"listeners":                      fmt.Sprintf("CLIENT://%s,INTERNAL://%s,CONTROLLER://%s", n.client.addr(), n.internal.addr(), n.controller.addr()),
		"advertised.listeners":           fmt.Sprintf("CLIENT://%s,INTERNAL://%s", n.advertised, n.internal.addr()),
		"listener.security.protocol.map": fmt.Sprintf("CLIENT:%s,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT", sec.protocol()),
		"log.dirs":                       filepath.Join(n.dir, "data"),

		// Topics appear when a test makes them, never by a slip of the pen.
		"auto.create.topics.enable":  "false",
		"default.replication.factor": replicas,
		"min.insync.replicas":        inSync,

		// Kafka's own topics: as many copies as there are brokers, few partitions,
		// as each costs the start of the first group time.
		"offsets.topic.replication.factor":                 replicas,
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    inSync,
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            inSync,
		"share.coordinator.state.topic.num.partitions":     "4",

		// Groups form at once, and tests may ask for short sessions.
		"group.initial.rebalance.delay.ms":         "0",
		"group.min.session.timeout.ms":             "100",
		"group.consumer.min.session.timeout.ms":    "100",
		"group.consumer.min.heartbeat.interval.ms": "50",
		"group.consumer.heartbeat.interval.ms":     "500",

		// A killed broker is noticed in three seconds instead of nine.
		"broker.session.timeout.ms":    "3000",
		"broker.heartbeat.interval.ms": "500",

		// Threads and buffers for a small machine.
		"num.network.threads":            "2",
		"num.io.threads":                 "4",
		"background.threads":             "2",
		"log.cleaner.dedupe.buffer.size": "2097152",
		"log.index.size.max.bytes":       "1048576",
	}
	maps.Copy(p, keepAnyDate)
	maps.Copy(p, sec.brokerConfig())
	maps.Copy(p, o.Config)

	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", key, strings.ReplaceAll(p[key], `\`, `\\`))
	}
	return b.String()
}
