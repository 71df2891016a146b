package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopTimeout is how long a broker may take over its controlled shutdown.
const stopTimeout = 2 * time.Minute

// A node is one broker: its folder, its ports and, while it runs, its process.
// The cluster's lock guards it.
type node struct {
	id  int
	dir string
	rt  runtime
	jvm []string

	client     port // for clients
	internal   port // between brokers
	controller port
	advertised string // the first one's address for clients

	cmd    *exec.Cmd     // nil while the broker does not run
	ended  chan struct{} // closed when its process has ended
	paused bool
}

func (n *node) ports() []*port { return []*port{&n.client, &n.internal, &n.controller} }

func (n *node) configFile() string { return filepath.Join(n.dir, "server.properties") }
func (n *node) logFile() string    { return filepath.Join(n.dir, "broker.log") }

// java returns the command that runs a class of Kafka's. Its flags prefer a quick
// start to peak speed and prevent files of the JVM; those in jvm override them.
func (n *node) java(jvm []string, class string, args ...string) *exec.Cmd {
	all := []string{
		"-Xmx384m", "-Xms96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true",
		"-Djava.io.tmpdir=" + n.dir, // libraries of codecs are unpacked there, and stay when a broker is killed
		"-Dorg.slf4j.simpleLogger.showDateTime=true",
		"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
		"-Dorg.slf4j.simpleLogger.showThreadName=false",
		"-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn", // the whole configuration, each time
	}
	if n.rt.archive != "" {
		all = append(all, "-XX:SharedArchiveFile="+n.rt.archive)
	}
	all = append(all, jvm...)
	all = append(all, "-cp", filepath.Join(n.rt.jars, "*"), class)
	cmd := exec.Command(n.rt.java, append(all, args...)...) //nolint:noctx // outlives the start; the cluster ends it
	cmd.Dir = n.dir
	cmd.SysProcAttr = childAttr()
	return cmd
}

// format writes the configuration and the first records of the metadata log.
func (n *node) format(ctx context.Context, clusterID, config string, sec Security) error {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return fmt.Errorf("making the folder of broker %d: %w", n.id, err)
	}
	if err := os.WriteFile(n.configFile(), []byte(config), 0o600); err != nil {
		return fmt.Errorf("writing the configuration of broker %d: %w", n.id, err)
	}
	args := []string{"format", "--cluster-id", clusterID, "--config", n.configFile()}
	args = append(args, sec.formatArgs()...)
	var out bytes.Buffer
	cmd := n.java(nil, "kafka.tools.StorageTool", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Start()
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
		if err = cmd.Wait(); !stop() {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("formatting the storage of broker %d: %w; output:\n%s", n.id, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// died reports whether the process has ended without being stopped.
func (n *node) died() bool {
	select {
	case <-n.ended:
		return true
	default:
		return false
	}
}

func (n *node) start() error {
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("opening the log of broker %d: %w", n.id, err)
	}
	defer log.Close() // the process has its own descriptor
	cmd := n.java(n.jvm, "kafka.Kafka", n.configFile())
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting broker %d: %w", n.id, err)
	}
	n.cmd, n.paused, n.ended = cmd, false, make(chan struct{})
	go func() { // kill and stop wait for ended
		defer close(n.ended)
		_ = cmd.Wait() // a JVM that ends by SIGTERM exits with 143
	}()
	return nil
}

func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // fails only if it has ended
	<-n.ended
	n.cmd = nil
}

func (n *node) stop() error {
	if n.cmd == nil {
		return nil
	}
	if n.paused {
		if err := n.resume(); err != nil {
			return err
		}
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping broker %d: %w", n.id, err)
	}
	select {
	case <-n.ended:
	case <-time.After(stopTimeout):
	}
	n.kill()
	return nil
}

func (n *node) pause() error {
	if err := n.signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("pausing broker %d: %w", n.id, err)
	}
	for deadline := time.Now().Add(stopTimeout); !stopped(n.cmd.Process.Pid) && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
	}
	n.paused = true
	return nil
}

func (n *node) resume() error {
	if err := n.signal(syscall.SIGCONT); err != nil {
		return fmt.Errorf("resuming broker %d: %w", n.id, err)
	}
	n.paused = false
	return nil
}

func (n *node) signal(sig syscall.Signal) error {
	if n.cmd == nil {
		return errors.New("the broker does not run; restart it first")
	}
	return n.cmd.Process.Signal(sig)
}

// tail returns the end of the broker's log.
func (n *node) tail(lines int) string {
	log, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimRight(log, "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// The range is below the ephemeral ports of Linux and macOS. So no outgoing
// connection and no listener on port 0 takes a port while its broker is down.
const (
	firstPort = 20000
	lastPort  = 29999
)

// A port is a loopback TCP port this process has reserved among all processes
// that use this package, until it is released or the process ends.
type port struct {
	number int
	// claim holds the UDP port of the same number. TCP and UDP ports are
	// separate, so it marks the port as taken and leaves it usable.
	claim net.PacketConn
}

func (p port) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.number) }

func (p port) release() {
	if p.claim != nil {
		p.claim.Close()
	}
}

// reservePort finds a TCP port nobody listens on and reserves it.
func reservePort() (port, error) {
	var last error
	for range 100 {
		p := port{number: firstPort + mathrand.IntN(lastPort-firstPort+1)}
		claim, err := net.ListenPacket("udp4", p.addr())
		if err != nil {
			last = err
			continue
		}
		free, err := net.Listen("tcp4", p.addr())
		if err != nil {
			claim.Close()
			last = err
			continue
		}
		free.Close()
		p.claim = claim
		return p, nil
	}
	return port{}, fmt.Errorf("reserving a loopback port between %d and %d: %w; free some of them",
		firstPort, lastPort, last)
}

// FreeAddress returns a loopback address for a program that listens on it before the
// test ends. Until then, no broker and no other caller gets it, in this process or
// another.
func FreeAddress(t testing.TB) string {
	t.Helper()
	p, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.release)
	return p.addr()
}

// keepAnyDate makes brokers accept and keep records of any date, so that no test
// depends on the day it runs. By default a broker deletes records older than
// seven days and refuses those more than an hour ahead.
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

		// Topics exist only if a test creates them.
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

		// On a busy machine the controllers may take minutes; by default a broker ends
		// after one.
		"initial.broker.registration.timeout.ms": strconv.FormatInt(startTimeout.Milliseconds(), 10),

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
