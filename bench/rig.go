package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// rig is the bench: a broker, a workspace and a bridge to put between them.
type rig struct {
	o       *options
	dir     string // for logs, configuration files and the binary; removed by close
	machine machine

	bridge     string   // the binary
	env        []string // for the bridge, besides what it inherits
	brokers    []string
	stopBroker func() error
	workspace  *workspace
	admin      *kgo.Client

	screen io.Writer
	began  time.Time
	runs   int // numbers groups and topics
}

// wires names what each transport speaks.
var wires = map[string]string{
	zerobus.TransportWorkspace: "HTTP/1.1 (workspace)",
	zerobus.TransportREST:      "HTTP/1.1 (rest)",
	zerobus.TransportGRPC:      "gRPC",
}

func newRig(ctx context.Context, o *options, screen io.Writer) (_ *rig, err error) {
	r := &rig{o: o, screen: screen, began: time.Now(), machine: thisMachine(), bridge: o.bridge}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if _, err := readCPU(0); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "bridge-bench-*"); err != nil {
		return nil, fmt.Errorf("making a folder for this run: %w", err)
	}
	if r.bridge == "" {
		r.say("building the bridge")
		r.bridge = filepath.Join(r.dir, "bridge")
		if err = buildtest.Build(ctx, r.bridge, "-trimpath"); err != nil {
			return nil, err
		}
	}
	r.machine.Revision = revision(ctx, r.bridge)
	r.machine.Broker, r.machine.Wire = "kfake", wires[o.transport]
	if o.apache {
		r.machine.Broker = "Apache Kafka"
	}
	if o.tls {
		r.machine.Wire += " with TLS"
	}
	if r.brokers, r.stopBroker, err = startBroker(ctx, o, r.dir); err != nil {
		return nil, err
	}
	if r.workspace, err = startWorkspace(ctx, r.dir, o.tls, emulator.Latency{}); err != nil {
		return nil, err
	}
	if r.admin, err = kgo.NewClient(kgo.SeedBrokers(r.brokers...)); err != nil {
		return nil, fmt.Errorf("preparing the kafka client: %w", err)
	}
	return r, nil
}

// close stops everything that was started.
func (r *rig) close() error {
	var errs []error
	if r.admin != nil {
		r.admin.Close()
	}
	if r.workspace != nil {
		errs = append(errs, r.workspace.stop())
	}
	if r.stopBroker != nil {
		errs = append(errs, r.stopBroker())
	}
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}

func (r *rig) say(format string, args ...any) {
	fmt.Fprintf(r.screen, "%5.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// name returns a name no other topic or group of this run has.
func (r *rig) name(kind string) string {
	r.runs++
	return fmt.Sprintf("bench-%s-%d", kind, r.runs)
}

// topic makes a topic and fills it with events; drop it when it is done with.
func (r *rig) topic(ctx context.Context, partitions int, codec string, events int) (name string, err error) {
	name = r.name("topic")
	resp, err := kadm.NewClient(r.admin).CreateTopic(ctx, int32(partitions), 1, nil, name)
	if err == nil {
		err = resp.Err
	}
	if err != nil {
		return "", fmt.Errorf("creating topic %s: %w", name, err)
	}
	began := time.Now()
	size, err := fill(ctx, r.brokers, name, codec, events)
	if err != nil {
		return "", err
	}
	if events > 0 {
		r.say("%d events of %d bytes on average in %d partitions, %s, in %.1f s", events, size/int64(events), partitions, codec, time.Since(began).Seconds())
	}
	return name, nil
}

// drop gives the topic's memory back to the broker.
func (r *rig) drop(ctx context.Context, topic string) error {
	resp, err := kadm.NewClient(r.admin).DeleteTopics(context.WithoutCancel(ctx), topic, topic+"-dlq")
	if err == nil {
		err = resp[topic].Err
	}
	if err != nil {
		return fmt.Errorf("deleting topic %s: %w", topic, err)
	}
	return nil
}

// revision reads which commit a binary was built from, or asks git where the
// binary does not say.
func revision(ctx context.Context, file string) string {
	settings := map[string]string{}
	if info, err := buildinfo.ReadFile(file); err == nil {
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
	}
	if rev := settings["vcs.revision"]; rev != "" {
		if settings["vcs.modified"] == "true" {
			return rev[:min(len(rev), 12)] + "-dirty"
		}
		return rev[:min(len(rev), 12)]
	}
	text, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}
