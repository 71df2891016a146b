package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
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
	advertised string // what clients are told of the first

	cmd    *exec.Cmd // nil while the broker does not run
	paused bool
}

func (n *node) reservePorts() error {
	for _, p := range []*port{&n.client, &n.internal, &n.controller} {
		var err error
		if *p, err = reservePort(); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) releasePorts() {
	for _, p := range []port{n.client, n.internal, n.controller} {
		if p.claim != nil {
			p.release()
		}
	}
}

func (n *node) configFile() string { return filepath.Join(n.dir, "server.properties") }
func (n *node) logFile() string    { return filepath.Join(n.dir, "broker.log") }

// java returns the command that runs a class of Kafka's. Its flags prefer a quick
// start over peak speed and keep the JVM from leaving files behind; those in jvm
// come after them and win.
func (n *node) java(jvm []string, class string, args ...string) *exec.Cmd {
	all := []string{
		"-Xmx384m", "-Xms96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true",
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
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting kafka's storage tool: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !stop() {
		return fmt.Errorf("formatting the storage of broker %d: %w", n.id, context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("formatting the storage of broker %d: %w; the tool said:\n%s", n.id, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

func (n *node) running() bool { return n.cmd != nil }

// died reports whether the process ended by itself.
func (n *node) died() bool { return n.cmd != nil && exited(n.cmd.Process.Pid) }

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
	n.cmd, n.paused = cmd, false
	return nil
}

func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill() // fails only when it is gone already
	_ = n.cmd.Wait()         // "signal: killed" is no news
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
	kill := time.AfterFunc(stopTimeout, func() { _ = n.cmd.Process.Kill() })
	_ = n.cmd.Wait() // a JVM that ends by SIGTERM exits with 143
	kill.Stop()
	n.cmd = nil
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
		return errors.New("it does not run; restart it first")
	}
	return n.cmd.Process.Signal(sig)
}

// tail returns the end of the broker's log, for people.
func (n *node) tail(lines int) string {
	log, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimRight(log, "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}
