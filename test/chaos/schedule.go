package main

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

// fault is one entry of a schedule.
type fault struct {
	At     time.Duration // since the first event
	Kind   string        // the name of one of kinds
	Target int           // which member, broker or partition: taken modulo those there are
	Length time.Duration // 0: it is over at once
}

// action carries out a fault and returns when it has ended.
type action func(*run, fault) error

// kind is a way for something to go wrong.
type kind struct {
	name, about string
	min, max    time.Duration // of its length
	flags       int
	act         action
}

// Flags of kinds.
const (
	losesAck = 1 << iota // rows may be kept whose acknowledgement does not arrive
	grpcOnly             // of streams only
)

const s = time.Second

// kinds returns every kind, sorted by what it affects.
func kinds() []kind {
	return []kind{
		{"member-term", "SIGTERM to a member; it must end with 0 and is started again", 0, 0, 0, memberTerm},
		{"member-kill", "kill -9 of a member; it is started again", 0, 0, 0, memberKill},
		{"member-stop", "SIGSTOP of a member, shorter than its session", 1 * s, 3 * s, losesAck, memberFreeze},
		{"member-freeze", "SIGSTOP of a member, longer than its session", 9 * s, 13 * s, losesAck, memberFreeze},
		{"member-join", "one more member joins for a while", 8 * s, 15 * s, 0, memberJoin},
		{"member-leave", "a member leaves for a while", 4 * s, 9 * s, 0, memberLeave},
		{"restart-all", "all members are stopped at once and started again", 0, 0, 0, restartAll},
		{"disk-full", "a member is started again whose log goes to a full disk", 6 * s, 12 * s, 0, withoutLog(logFull)},
		{"log-stalled", "a member is started again whose log nobody reads, at debug level; it delivers, and ends with 0 all the same",
			5 * s, 10 * s, 0, withoutLog(logStalled)},
		{"idle-connections", "clients hold idle and slow connections to a member's ops endpoints, which must answer probes",
			4 * s, 8 * s, 0, idleConnections},

		{"blueprint-changed", "a member gets another blueprint, whose rows must appear in the same process", 0, 0, 0, blueprintChanged},
		{"blueprint-broken", "a member's blueprint is broken for a while, then replaced", 1 * s, 6 * s, 0, blueprintBroken},

		{"broker-kill", "kill -9 of a broker, then it is started again", 2 * s, 6 * s, 0, brokerKill},
		{"broker-pause", "SIGSTOP of a broker", 2 * s, 7 * s, 0, brokerPause},
		{"coordinator-kill", "kill -9 of the broker that coordinates the group", 2 * s, 6 * s, 0, coordinatorKill},
		{"leader-move", "partitions get other leaders", 0, 0, 0, leaderMove},
		{"partition-add", "the topic gets one more partition", 0, 0, 0, partitionAdd},
		{"transactions", "transactions follow each other in the source topic, and two of three are aborted",
			3 * s, 6 * s, 0, shortTransactions},
		{"transaction-open", "a transaction in the source topic stays open, then is committed or aborted", 3 * s, 8 * s, 0, openTransaction},
		{"array-records", "arrays of many events come between the others: some hold one that is fine, some more than a record may hold",
			2 * s, 6 * s, 0, arrayRecords},
		{"records-deleted", "members reach no broker, and records that they have and have not delivered are deleted",
			2 * s, 5 * s, 0, recordsDeleted},
		{"topic-recreated", "a topic is deleted and created again, and gets more events than it had",
			300 * time.Millisecond, 4 * s, 0, topicRecreated},
		{"dlq-recreated", "members reach no broker, and the dead-letter topic is deleted and created again",
			300 * time.Millisecond, 3 * s, 0, dlqRecreated},
		{"dlq-unavailable", "the dead-letter topic refuses every record", 2 * s, 6 * s, 0, dlqUnavailable},

		{"broker-cut", "network between members and one broker is cut", 2 * s, 6 * s, 0, network(weather{cut: true}, oneBroker)},
		{"brokers-cut", "network between members and all brokers is cut", 1 * s, 4 * s, 0, network(weather{cut: true}, allBrokers)},
		{"broker-hole", "packets between members and one broker vanish", 2 * s, 6 * s, 0, network(weather{hole: true}, oneBroker)},
		{"broker-latency", "packets between members and brokers are late",
			3 * s, 8 * s, 0, network(weather{latency: 250 * time.Millisecond}, allBrokers)},
		{"broker-slow", "one broker sends and takes few bytes a second", 3 * s, 8 * s, 0, network(weather{rate: 64 << 10}, oneBroker)},

		{"sink-cut", "network between members and service is cut", 1 * s, 5 * s, losesAck, network(weather{cut: true}, sinks)},
		{"sink-hole", "packets between members and service vanish", 1 * s, 5 * s, losesAck, network(weather{hole: true}, sinks)},
		{"sink-latency", "packets between members and service are late",
			3 * s, 8 * s, losesAck, network(weather{latency: 400 * time.Millisecond}, sinks)},
		{"sink-slow", "the service sends and takes few bytes a second", 3 * s, 8 * s, losesAck, network(weather{rate: 256 << 10}, sinks)},
		{"answer-torn", "connections are closed in the middle of the answer", 3 * s, 6 * s, losesAck, network(weather{tear: true}, sinks)},

		{"sink-401", "the service refuses the token of a request, twice", 2 * s, 5 * s, 0, sinkStatus(401, 2)},
		{"sink-403", "the service forbids a request", 2 * s, 5 * s, 0, sinkStatus(403, 1)},
		{"sink-404", "the service does not find the table for a request", 2 * s, 5 * s, 0, sinkStatus(404, 1)},
		{"sink-408", "requests time out at the service", 2 * s, 5 * s, 0, sinkStatus(408, 0)},
		{"sink-429", "the service asks for a retry in a second", 2 * s, 5 * s, 0, sinkStatus(429, 0)},
		{"sink-500", "the service fails", 2 * s, 5 * s, 0, sinkStatus(500, 0)},
		{"sink-503", "the service is unavailable", 2 * s, 5 * s, 0, sinkStatus(503, 0)},
		{"sink-504-kept", "a gateway times out although the rows are kept",
			2 * s, 5 * s, losesAck, scripted(emulator.Fault{Effect: emulator.EffectStatus, Status: 504, Keep: true, Probability: 0.3})},
		{"sink-hang", "the service never answers some requests",
			2 * s, 4 * s, 0, scripted(emulator.Fault{Effect: emulator.EffectHang, Count: 2})},
		{"sink-closed", "the service closes connections without an answer",
			2 * s, 5 * s, 0, scripted(emulator.Fault{Effect: emulator.EffectCut, Probability: 0.4})},
		{"answer-garbled", "the service keeps rows and answers with invalid JSON", 2 * s, 5 * s, losesAck, answerGarbled},
		{"ack-lost", "the service keeps rows and closes the connection",
			2 * s, 5 * s, losesAck, scripted(emulator.Fault{Effect: emulator.EffectLoseAck, Probability: 0.3})},
		{"answer-lies", "the service keeps no row and answers with a 2xx that confirms none", 2 * s, 5 * s, losesAck, answerLies},
		{"proxy-4xx", "a proxy refuses requests with good rows", 2 * s, 5 * s, losesAck, proxyRefuses},
		{"refused-once", "the service refuses some good rows, each alone only once", 2 * s, 5 * s, 0, refusedOnce},
		{"tokens-revoked", "every token is expired at once", 0, 0, 0, tokensRevoked},
		{"tokens-down", "the token endpoint fails, and every token is expired", 2 * s, 5 * s, 0, tokensDown},
		{"clock-jump", "the service's clock jumps ahead by 59 minutes: tokens end early", 0, 0, 0, clockJump},
		{"secret-rotated", "the client secret is changed, in the members' file too", 0, 0, 0, secretRotated},
		{"schema-changed", "a column is dropped from the table and added again", 2 * s, 4 * s, losesAck, schemaChanged},

		{"integration-hang", "the service never answers for the table of one integration; the others must deliver",
			3 * s, 6 * s, 0, failing(emulator.Fault{Effect: emulator.EffectHang})},
		{"integration-503", "the service is unavailable for the table of one integration; the others must deliver",
			3 * s, 6 * s, 0, failing(emulator.Fault{Effect: emulator.EffectStatus, Status: 503})},
		{"integration-refused", "the table of one integration is missing, or the grant for it; the others must deliver",
			3 * s, 6 * s, 0, failing(emulator.Fault{Effect: emulator.EffectStatus, Status: 403}, emulator.EndpointCreate, emulator.EndpointColumns)},
		{"integration-secret", "one integration has a wrong client secret, and every token is expired; the others must deliver",
			3 * s, 6 * s, 0, integrationSecret},
		{"integration-poison", "one integration gets arrays that are no events; the others must deliver", 3 * s, 6 * s, 0, integrationPoison},
		{"integration-changed", "one integration is removed from all members and comes again, or gets another table; the others must deliver",
			2 * s, 4 * s, 0, integrationChanged},

		{"stream-close", "streams are announced to end, and end",
			3 * s, 6 * s, losesAck | grpcOnly, scripted(emulator.Fault{Effect: emulator.EffectCloseSignal, Window: &closeWindow, Probability: 0.02}, emulator.EndpointStream)},
		{"stream-goaway", "connections of streams are asked to go",
			3 * s, 6 * s, grpcOnly, scripted(emulator.Fault{Effect: emulator.EffectGoAway, Probability: 0.05}, emulator.EndpointStream)},
		{"acks-ahead", "streams acknowledge messages that were never sent, and end", 3 * s, 6 * s, losesAck | grpcOnly, acksAhead},
		{"acks-stalled", "rows are kept and streams send no acknowledgements",
			3 * s, 6 * s, losesAck | grpcOnly, scripted(emulator.Fault{Effect: emulator.EffectStallAcks, Latency: emulator.Latency{P50: 2 * s}, Count: 3}, emulator.EndpointStream)},
	}
}

// every is the usual time between the beginnings of two faults.
const every = 3500 * time.Millisecond

// available lists the kinds that are possible in a run with these options.
func available(o *options) []kind {
	return slices.DeleteFunc(kinds(), func(k kind) bool {
		return k.flags&grpcOnly != 0 && o.transport != "grpc" && o.transport != "mixed" ||
			k.name == "disk-full" && !haveFullDisk ||
			len(o.focus) > 0 && !slices.Contains(o.focus, k.name)
	})
}

// plan makes the schedule: kinds are sampled without replacement, so that none comes
// again before all have come. It depends on the options alone.
func plan(o *options) []fault {
	random := rand.New(rand.NewPCG(o.seed, 0x5eed))
	n := int(o.duration / every)
	if o.duration >= time.Minute {
		n = max(n, 30)
	}
	all := available(o)
	if len(all) == 0 {
		return nil
	}
	step := o.duration / time.Duration(n+1)
	var left []kind
	var faults []fault
	for i := range n {
		if len(left) == 0 {
			left = slices.Clone(all)
			random.Shuffle(len(left), func(a, b int) { left[a], left[b] = left[b], left[a] })
		}
		k := left[0]
		left = left[1:]
		f := fault{Kind: k.name, Target: random.IntN(1 << 16), Length: k.min}
		if k.max > k.min {
			f.Length += time.Duration(random.Int64N(int64(k.max - k.min))).Round(100 * time.Millisecond)
		}
		f.At = (time.Duration(i)*step + step/2 + time.Duration(random.Int64N(int64(step)))).Round(100 * time.Millisecond)
		f.At = max(0, min(f.At, o.duration-f.Length)) // all have ended when the time is over
		faults = append(faults, f)
	}
	slices.SortStableFunc(faults, func(a, b fault) int { return cmp.Compare(a.At, b.At) })
	return faults
}

// count returns how many faults there are of each kind.
func count(faults []fault) map[string]int {
	by := map[string]int{}
	for _, f := range faults {
		by[f.Kind]++
	}
	return by
}

func printPlan(w io.Writer, o *options, faults []fault) {
	fmt.Fprintf(w, "seed %d: %d faults of %d kinds in %s\n", o.seed, len(faults), len(count(faults)), o.duration)
	for _, f := range faults {
		fmt.Fprintf(w, "%8s  %-19s %6s  target %d\n", f.At, f.Kind, f.Length, f.Target)
	}
}

func printKinds(w io.Writer) {
	for _, k := range kinds() {
		fmt.Fprintf(w, "  %-19s %s\n", k.name, k.about)
	}
}

func kindNames() string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return strings.Join(names, ", ")
}
