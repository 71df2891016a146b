package main

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// fault is one entry of a schedule.
type fault struct {
	At     time.Duration // since the first event
	Kind   string        // the name of one of kinds
	Target int           // which member, broker or partition: taken modulo those there are
	Length time.Duration // until it is mended; 0: it is over at once
}

// kind is a way for something to go wrong.
type kind struct {
	name     string
	about    string
	min, max time.Duration // of its length
	losesAck bool          // rows may be kept whose acknowledgement does not arrive
	unready  bool          // a member that starts meanwhile may end with exit code 1, and is started again
	grpc     bool          // of streams only
	act      func(*run, *doing) error
}

// kinds is every way there is, sorted by whom it befalls.
func kinds() []kind {
	const s = time.Second
	return []kind{
		{name: "member-term", about: "SIGTERM to a member; it must end with 0 and is started again", act: (*run).memberTerm},
		{name: "member-kill", about: "kill -9 of a member; it is started again", act: (*run).memberKill},
		{name: "member-stop", about: "SIGSTOP of a member, shorter than its session", min: 1 * s, max: 3 * s, losesAck: true, act: (*run).memberStop},
		{name: "member-freeze", about: "SIGSTOP of a member, longer than its session", min: 9 * s, max: 13 * s, losesAck: true, act: (*run).memberStop},
		{name: "member-join", about: "one more member joins for a while", min: 8 * s, max: 15 * s, act: (*run).memberJoin},
		{name: "member-leave", about: "a member leaves for a while", min: 4 * s, max: 9 * s, act: (*run).memberLeave},
		{name: "restart-all", about: "all members are told to stop at once and started again", act: (*run).restartAll},
		{name: "disk-full", about: "a member is started again whose log goes to a full disk; it writes nothing else", min: 6 * s, max: 12 * s, act: (*run).diskFull},
		{name: "log-stalled", about: "a member is started again whose log nobody reads, at debug level; it delivers, and ends with 0 all the same", min: 5 * s, max: 10 * s, act: (*run).logStalled},
		{name: "idle-connections", about: "strangers hold idle and slow connections to a member's ops endpoints, which must answer probes", min: 4 * s, max: 8 * s, act: (*run).idleConnections},

		{name: "blueprint-changed", about: "a member gets another blueprint, whose rows must appear in the same process", act: (*run).blueprintChanged},
		{name: "blueprint-broken", about: "a member's blueprint is broken for a while, then replaced", min: 1 * s, max: 6 * s, act: (*run).blueprintBroken},

		{name: "broker-kill", about: "kill -9 of a broker, then it is started again", min: 2 * s, max: 6 * s, act: (*run).brokerKill},
		{name: "broker-pause", about: "SIGSTOP of a broker", min: 2 * s, max: 7 * s, act: (*run).brokerPause},
		{name: "coordinator-kill", about: "kill -9 of the broker that coordinates the group", min: 2 * s, max: 6 * s, act: (*run).coordinatorKill},
		{name: "leader-move", about: "partitions get other leaders", act: (*run).leaderMove},
		{name: "partition-add", about: "the topic gets one more partition", act: (*run).partitionAdd},
		{name: "transactions", about: "transactions follow each other in the source topic, and two of three are aborted", min: 3 * s, max: 6 * s, act: (*run).shortTransactions},
		{name: "transaction-open", about: "a transaction in the source topic stays open, then is committed or aborted", min: 3 * s, max: 8 * s, act: (*run).openTransaction},
		{name: "array-records", about: "arrays of many events come between the others: some hold one that is fine, some more than a record may hold", min: 2 * s, max: 6 * s, act: (*run).arrayRecords},
		{name: "records-deleted", about: "members reach no broker, and records that they have and have not delivered are deleted", min: 2 * s, max: 5 * s, act: (*run).recordsDeleted},
		{name: "topic-recreated", about: "a topic is deleted and created again, and gets more events than it had", min: 300 * time.Millisecond, max: 4 * s, act: (*run).topicRecreated},
		{name: "letters-recreated", about: "members reach no broker, and the dead-letter topic is deleted and created again", min: 300 * time.Millisecond, max: 3 * s, act: (*run).lettersRecreated},
		{name: "letters-down", about: "the dead-letter topic takes nothing", min: 2 * s, max: 6 * s, act: (*run).lettersDown},

		{name: "broker-cut", about: "network between members and one broker is cut", min: 2 * s, max: 6 * s, act: (*run).brokerCut},
		{name: "brokers-cut", about: "network between members and all brokers is cut", min: 1 * s, max: 4 * s, act: (*run).brokersCut},
		{name: "broker-hole", about: "packets between members and one broker vanish", min: 2 * s, max: 6 * s, act: (*run).brokerHole},
		{name: "broker-latency", about: "packets between members and brokers are late", min: 3 * s, max: 8 * s, act: (*run).brokerLatency},
		{name: "broker-slow", about: "one broker sends and takes few bytes a second", min: 3 * s, max: 8 * s, act: (*run).brokerSlow},

		{name: "sink-cut", about: "network between members and service is cut", min: 1 * s, max: 5 * s, losesAck: true, act: (*run).sinkCut},
		{name: "sink-hole", about: "packets between members and service vanish", min: 1 * s, max: 5 * s, losesAck: true, act: (*run).sinkHole},
		{name: "sink-latency", about: "packets between members and service are late", min: 3 * s, max: 8 * s, losesAck: true, act: (*run).sinkLatency},
		{name: "sink-slow", about: "the service sends and takes few bytes a second", min: 3 * s, max: 8 * s, losesAck: true, act: (*run).sinkSlow},
		{name: "answer-torn", about: "connections are closed in the middle of the answer", min: 3 * s, max: 6 * s, losesAck: true, act: (*run).answerTorn},

		{name: "sink-401", about: "the service refuses the token of a request, twice", min: 2 * s, max: 5 * s, unready: true, act: sinkStatus(401, 2)},
		{name: "sink-403", about: "the service forbids a request", min: 2 * s, max: 5 * s, unready: true, act: sinkStatus(403, 1)},
		{name: "sink-404", about: "the service does not find the table for a request", min: 2 * s, max: 5 * s, unready: true, act: sinkStatus(404, 1)},
		{name: "sink-408", about: "requests time out at the service", min: 2 * s, max: 5 * s, act: sinkStatus(408, 0)},
		{name: "sink-429", about: "the service asks to come back in a second", min: 2 * s, max: 5 * s, act: sinkStatus(429, 0)},
		{name: "sink-500", about: "the service fails", min: 2 * s, max: 5 * s, act: sinkStatus(500, 0)},
		{name: "sink-503", about: "the service is unavailable", min: 2 * s, max: 5 * s, act: sinkStatus(503, 0)},
		{name: "sink-504-kept", about: "a gateway times out although the rows are kept", min: 2 * s, max: 5 * s, losesAck: true, act: (*run).sinkKept},
		{name: "sink-hang", about: "the service never answers some requests", min: 2 * s, max: 4 * s, act: (*run).sinkHang},
		{name: "sink-closed", about: "the service closes connections without an answer", min: 2 * s, max: 5 * s, act: (*run).sinkClosed},
		{name: "answer-garbled", about: "the service keeps rows and answers with what is no JSON", min: 2 * s, max: 5 * s, losesAck: true, act: (*run).answerGarbled},
		{name: "ack-lost", about: "the service keeps rows and closes the connection", min: 2 * s, max: 5 * s, losesAck: true, act: (*run).ackLost},
		{name: "answer-lies", about: "the service keeps no row and answers what is no confirmation with 2xx", min: 2 * s, max: 5 * s, losesAck: true, act: (*run).answerLies},
		{name: "proxy-4xx", about: "what stands between refuses requests as proxies do, with good rows", min: 2 * s, max: 5 * s, losesAck: true, act: (*run).proxyRefuses},
		{name: "refused-once", about: "the service refuses some good rows once they come alone, and only once", min: 2 * s, max: 5 * s, act: (*run).refusedOnce},
		{name: "tokens-revoked", about: "every token is expired at once", unready: true, act: (*run).tokensRevoked},
		{name: "tokens-down", about: "the token endpoint fails, and every token is expired", min: 2 * s, max: 5 * s, act: (*run).tokensDown},
		{name: "clock-jump", about: "the service's clock jumps ahead by 59 minutes: tokens end early", unready: true, act: (*run).clockJump},
		{name: "secret-rotated", about: "the client secret is changed, in the members' file too", unready: true, act: (*run).secretRotated},
		{name: "schema-drift", about: "a column is dropped from the table and added again", min: 2 * s, max: 4 * s, losesAck: true, unready: true, act: (*run).schemaDrift},

		{name: "stream-close", about: "streams are announced to end, and end", min: 3 * s, max: 6 * s, grpc: true, losesAck: true, act: (*run).streamClose},
		{name: "stream-goaway", about: "connections of streams are asked to go", min: 3 * s, max: 6 * s, grpc: true, act: (*run).streamGoAway},
		{name: "acks-ahead", about: "streams acknowledge messages that were never sent, and end", min: 3 * s, max: 6 * s, grpc: true, losesAck: true, act: (*run).acksAhead},
		{name: "acks-stalled", about: "rows are kept and streams send no acknowledgements", min: 3 * s, max: 6 * s, grpc: true, losesAck: true, act: (*run).acksStalled},
	}
}

// every is the usual time between the beginnings of two faults.
const every = 3500 * time.Millisecond

// available lists the kinds that can befall a run with these options.
func available(o *options) []kind {
	return slices.DeleteFunc(kinds(), func(k kind) bool {
		return k.grpc && o.transport != "grpc" && o.transport != "mixed" ||
			k.name == "disk-full" && !haveFullDisk ||
			len(o.focus) > 0 && !slices.Contains(o.focus, k.name)
	})
}

// plan makes the schedule: kinds are dealt like cards, so that none comes
// again before all have come. It depends on the options alone.
func plan(o *options) []fault {
	dice := rand.New(rand.NewPCG(o.seed, 0x5eed))
	n := int(o.duration / every)
	if o.duration >= time.Minute {
		n = max(n, 30)
	}
	all := available(o)
	if len(all) == 0 {
		return nil
	}
	step := o.duration / time.Duration(n+1)
	var deck []kind
	var faults []fault
	for i := range n {
		if len(deck) == 0 {
			deck = slices.Clone(all)
			dice.Shuffle(len(deck), func(a, b int) { deck[a], deck[b] = deck[b], deck[a] })
		}
		k := deck[0]
		deck = deck[1:]
		f := fault{Kind: k.name, Target: dice.IntN(1 << 16), Length: k.min}
		if k.max > k.min {
			f.Length += time.Duration(dice.Int64N(int64(k.max - k.min))).Round(100 * time.Millisecond)
		}
		f.At = (time.Duration(i)*step + step/2 + time.Duration(dice.Int64N(int64(step)))).Round(100 * time.Millisecond)
		f.At = max(0, min(f.At, o.duration-f.Length)) // all is mended when the time is over
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
		fmt.Fprintf(w, "%8s  %-17s %6s  target %d\n", f.At, f.Kind, f.Length, f.Target)
	}
}

func printKinds(w io.Writer) {
	for _, k := range kinds() {
		fmt.Fprintf(w, "  %-17s %s\n", k.name, k.about)
	}
}

func kindNames() string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return strings.Join(names, ", ")
}
