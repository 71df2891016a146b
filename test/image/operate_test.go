//go:build engines

package image_test

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/test/engine"
	"github.com/datafly/bridge/zerobus/emulator"
)

// stall has the sink never answer a request with rows. The first request of a bridge
// has none: it checks the table.
func (s *stage) stall() {
	s.workspace.OnIngest(func(r emulator.IngestRequest) *emulator.Fault {
		if len(r.Rows) == 0 {
			return nil
		}
		return &emulator.Fault{Effect: emulator.EffectHang}
	})
}

func TestOperation(t *testing.T) {
	r := newRig(t, image(t))
	memory := chartLimit(t)
	engine.Check(t, "memory limit "+memory+", full speed", func() (string, error) { return r.fullSpeed("--memory", memory) })
	engine.Check(t, "memory limit "+memory+", 300 partitions, events of 9 MiB, stalled sink", func() (string, error) { return r.largeEvents("--memory", memory) })
	engine.Check(t, "half a core: delivers, keeps its partitions", func() (string, error) { return r.fullSpeed("--cpus", "0.5") })
	engine.Check(t, "half a core: steady load", func() (string, error) { return r.steadyLoad("--cpus", "0.5") })
	engine.Check(t, "docker stop in the middle of traffic", func() (string, error) { return r.stopped() })
	engine.Check(t, "docker kill in the middle of traffic", func() (string, error) { return r.killed() })
	engine.Check(t, "docker pause for longer than the session", func() (string, error) { return r.paused() })
	engine.Check(t, "health check: starting, healthy, unhealthy, healthy", func() (string, error) { return r.health() })
	engine.Check(t, "secret replaced in a mounted folder", func() (string, error) { return r.secretInFolder() })
	engine.Check(t, "secret overwritten in a mounted file", func() (string, error) { return r.secretInFile(overwrite) })
	engine.Check(t, "configuration replaced in a mounted folder", func() (string, error) { return r.configuration() })
	engine.Check(t, "log driver that stalls", func() (string, error) { return r.stalledLog() })

	engine.Break(t, "memory limit of 96 MiB", "(OOM)", func() (string, error) { return r.largeEvents("--memory", "96m") })
	engine.Break(t, "member that is silent for longer than its session", "evicted", func() (string, error) { return r.silent() })
	engine.Break(t, "docker stop without a grace period", "exit code 137", func() (string, error) { return r.stopped("--time", "0") })
	engine.Break(t, "bridge that begins at the end of the topic", "events are lost", func() (string, error) { return r.fullSpeed("--env", "BRIDGE_KAFKA_START=latest") })
	engine.Break(t, "secret renamed over a mounted file", "the new secret is used", func() (string, error) { return r.secretInFile(os.Rename) })
}

// chartLimit returns the memory limit that the chart sets by default, as docker has it.
func chartLimit(t *testing.T) string {
	root, err := buildtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/helm/bridge/values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		Resources struct{ Limits struct{ Memory string } }
	}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	mib, ok := strings.CutSuffix(values.Resources.Limits.Memory, "Mi")
	if !ok {
		t.Fatalf("resources.limits.memory of the chart is %q, want a number of Mi", values.Resources.Limits.Memory)
	}
	return mib + "m"
}

// fullSpeed delivers a full topic.
func (r *rig) fullSpeed(limit ...string) (string, error) {
	return r.on(4, 0, func(s *stage) (string, error) {
		const events = 400_000
		if err := s.produce(events); err != nil {
			return "", err
		}
		return s.run(limit, func(c *container) (string, error) {
			// The first eighth is left out: it contains the start.
			if err := c.until("the first rows are there", func() bool { return s.delivered() >= events/8 || s.committed() }); err != nil {
				return "", err
			}
			from, began := s.delivered(), time.Now()
			if err := c.find(); err != nil {
				return "", err
			}
			duplicates, err := c.complete()
			if err != nil {
				return "", err
			}
			took := time.Since(began)
			figure := fmt.Sprintf("%d,000 rows/s, acknowledgement p99 %s, %s, 0 lost, %d duplicates", int(float64(events-from)/took.Seconds()/1000), c.p99(), c.peak(), duplicates)
			return figure, errors.Join(c.keptPartitions(), c.ended())
		})
	})
}

// steadyLoad delivers less than the bridge can for a while.
func (r *rig) steadyLoad(limit ...string) (string, error) {
	return r.on(4, 20*time.Millisecond, func(s *stage) (string, error) {
		return s.run(limit, func(c *container) (string, error) {
			if err := c.ready(); err != nil {
				return "", err
			}
			const rate = 5000
			began := time.Now()
			end := s.traffic(rate)
			err := c.until("events of four sessions are rows", func() bool { return time.Since(began) > 4*session && s.delivered() > rate })
			if err := errors.Join(err, end()); err != nil {
				return "", err
			}
			if _, err := c.complete(); err != nil {
				return "", err
			}
			return fmt.Sprintf("%d events/s, acknowledgement p99 %s of which 20 ms are the sink's, 0 lost", rate, c.p99()), errors.Join(c.keptPartitions(), c.ended())
		})
	})
}

// p99 returns that of the acknowledgement times, as Prometheus computes it.
func (c *container) p99() string {
	const name = "bridge_ack_latency_seconds"
	all := c.metric(name+"_bucket", `le="+Inf"`)
	low, below := 0.0, 0.0
	_, body := c.get("/metrics")
	for line := range strings.Lines(body) {
		_, rest, ok := strings.Cut(line, `le="`)
		if !ok || !strings.HasPrefix(line, name+"_bucket{") {
			continue
		}
		le, value, _ := strings.Cut(rest, `"`)
		bound, err := strconv.ParseFloat(le, 64)
		count, err2 := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:len(value)-1], 64)
		if err != nil || err2 != nil {
			continue
		}
		if count >= 0.99*all && !math.IsInf(bound, 1) {
			return fmt.Sprintf("%.0f ms", 1000*(low+(bound-low)*(0.99*all-below)/(count-below)))
		}
		low, below = bound, count
	}
	return "unknown"
}

// keptPartitions returns an error if the group has taken partitions from the bridge.
func (c *container) keptPartitions() error {
	if n := c.metric("bridge_rebalances_total", `kind="lost"`); n > 0 {
		return fmt.Errorf("the bridge was evicted from its group %.0f times", n)
	}
	if n := c.metric("bridge_rebalances_total", `kind="assigned"`); n != 1 {
		return fmt.Errorf("the bridge was assigned partitions %.0f times, want once", n)
	}
	return nil
}

// largeEvents has the buffer fill up while the sink is stalled.
func (r *rig) largeEvents(limit ...string) (string, error) {
	return r.on(300, 0, func(s *stage) (string, error) {
		if err := s.produceLarge(120, 9<<20); err != nil {
			return "", err
		}
		s.stall()
		return s.run(limit, func(c *container) (string, error) {
			err := c.until("the buffer is full", func() bool { got := c.status(); return got.BufferedLimit > 0 && got.BufferedBytes >= got.BufferedLimit })
			if err := errors.Join(err, c.find()); err != nil {
				return "", err
			}
			stalled := c.peak()
			s.workspace.OnIngest(nil)
			if _, err := c.complete(); err != nil {
				return "", err
			}
			return fmt.Sprintf("%s while stalled, %s in all, 0 lost", stalled, c.peak()), c.ended()
		})
	})
}

// inTraffic interrupts a bridge while events are produced and written.
func (r *rig) inTraffic(interrupt func(c *container) (string, error)) (string, error) {
	return r.on(4, 50*time.Millisecond, func(s *stage) (string, error) {
		return s.run(nil, func(c *container) (string, error) {
			if err := c.ready(); err != nil {
				return "", err
			}
			end := s.traffic(10_000)
			err := c.until("rows are written", func() bool { return s.delivered() > 10_000 })
			figure := ""
			if err == nil {
				figure, err = interrupt(c)
			}
			if err := errors.Join(err, end()); err != nil {
				return "", err
			}
			duplicates, err := c.complete()
			return fmt.Sprintf("%s0 of %d lost, %d duplicates", figure, s.produced.Load(), duplicates), err
		})
	})
}

func (r *rig) stopped(args ...string) (string, error) {
	return r.inTraffic(func(c *container) (string, error) {
		took, err := c.stop(args...)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("exit 0 after %.1f s, ", took.Seconds()), c.again()
	})
}

func (r *rig) killed() (string, error) {
	return r.inTraffic(func(c *container) (string, error) {
		if _, err := docker.Docker(r.ctx, "kill", c.id); err != nil {
			return "", err
		}
		return "", c.again()
	})
}

// pause pauses the bridge until the group has evicted it.
func (c *container) pause() error {
	r := c.s.rig
	if _, err := docker.Docker(r.ctx, "pause", c.id); err != nil {
		return err
	}
	gone := await.Within(await.Patience, func() bool {
		groups, err := r.adm.DescribeGroups(r.ctx, c.s.name)
		return err == nil && groups[c.s.name].Err == nil && len(groups[c.s.name].Members) == 0
	})
	if _, err := docker.Docker(r.ctx, "unpause", c.id); err != nil {
		return err
	}
	if !gone {
		return fmt.Errorf("the group has the member still, %v after it was paused", await.Patience)
	}
	return nil
}

func (r *rig) paused() (string, error) {
	return r.inTraffic(func(c *container) (string, error) {
		if err := c.pause(); err != nil {
			return "", err
		}
		return "", c.until("it has its partitions again", func() bool { return c.metric("bridge_rebalances_total", `kind="assigned"`) > 1 })
	})
}

// silent is a bridge that does not keep its partitions.
func (r *rig) silent() (string, error) {
	return r.inTraffic(func(c *container) (string, error) {
		if err := c.pause(); err != nil {
			return "", err
		}
		err := c.until("it knows that it was evicted", func() bool { return c.metric("bridge_rebalances_total", `kind="lost"`) > 0 })
		return "", errors.Join(err, c.keptPartitions())
	})
}

// health follows the image's own health check.
func (r *rig) health() (string, error) {
	const address = "127.0.0.1:9400" // the check of the image asks it
	free := await.Within(await.Patience, func() bool {
		l, err := net.Listen("tcp", address)
		if err == nil {
			l.Close()
		}
		return err == nil
	})
	if !free {
		return "", fmt.Errorf("%s is in use; the health check of the image needs it", address)
	}
	return r.on(1, 0, func(s *stage) (string, error) {
		// Not so long as the image's, so that the test is not either. What it runs is the image's.
		return s.runAt(address, []string{"--health-interval", "1s", "--health-start-period", "1s"}, func(c *container) (string, error) {
			got, err := c.state()
			if err != nil {
				return "", err
			}
			if got.Health == nil {
				return "", errors.New("the image has no health check")
			}
			if got.Health.Status != "starting" {
				return "", fmt.Errorf("the health is %q at the start, want starting", got.Health.Status)
			}
			becomes := func(want string) error {
				err := c.until("the container is "+want, func() bool {
					got, err = c.state()
					return err == nil && got.Health.Status == want
				})
				if err != nil {
					err = fmt.Errorf("%w; its health is %+v", err, got.Health)
				}
				return err
			}
			if err := becomes("healthy"); err != nil {
				return "", err
			}
			if err := errors.Join(s.workspace.Revoke(emulator.PrivilegeModify, table), s.produce(100), becomes("unhealthy")); err != nil {
				return "", err
			}
			why := got.Health.Log[len(got.Health.Log)-1].Output
			if !strings.Contains(why, "sink_blocked") {
				return "", fmt.Errorf("the unhealthy container does not show why: %s", why)
			}
			if err := errors.Join(s.workspace.Grant(emulator.PrivilegeModify, table), becomes("healthy")); err != nil {
				return "", err
			}
			_, err = c.complete()
			return "a revoked grant makes it unhealthy (sink_blocked), 0 lost", err
		})
	})
}

// rotates has the bridge deliver before and after the secret is replaced by replace.
func (s *stage) rotates(replace func(secret string) error, mounts ...string) (string, error) {
	return s.run(mounts, func(c *container) (string, error) {
		if err := errors.Join(c.ready(), s.produce(1000)); err != nil {
			return "", err
		}
		if _, err := c.complete(); err != nil {
			return "", err
		}
		const secret = "the-next-secret"
		if err := replace(secret); err != nil {
			return "", err
		}
		s.workspace.RotateSecret(secret)
		s.workspace.RevokeTokens()
		began := time.Now()
		if err := s.produce(1000); err != nil {
			return "", err
		}
		if err := c.untilWithin(3*session, "the new secret is used", func() bool { return s.delivered() == int(s.produced.Load()) }); err != nil {
			return "", err
		}
		took := time.Since(began)
		duplicates, err := c.complete()
		return fmt.Sprintf("used after %.1f s, no restart, 0 lost, %d duplicates", took.Seconds(), duplicates), errors.Join(err, c.alive())
	})
}

func (r *rig) secretInFolder() (string, error) {
	return r.on(1, 0, func(s *stage) (string, error) {
		return s.rotates(func(secret string) error { return s.mount(map[string]string{"client-secret": secret}) })
	})
}

// secretInFile mounts the file alone. Whoever replaces it must write into it.
func (r *rig) secretInFile(replace func(from, to string) error) (string, error) {
	return r.on(1, 0, func(s *stage) (string, error) {
		file := filepath.Join(r.dir, s.name+"-secret")
		if err := os.WriteFile(file, []byte(emulator.DefaultClientSecret), 0o644); err != nil {
			return "", err
		}
		return s.rotates(func(secret string) error {
			next := file + ".next"
			return errors.Join(os.WriteFile(next, []byte(secret), 0o644), replace(next, file))
		}, "--volume", file+":/run/client-secret:ro", "--env", "BRIDGE_ZEROBUS_CLIENT_SECRET_FILE=/run/client-secret")
	})
}

// overwrite copies the content of a file into another one.
func overwrite(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

// configuration adds an integration to the mounted configuration.
func (r *rig) configuration() (string, error) {
	return r.on(1, 0, func(s *stage) (string, error) {
		return s.run(nil, func(c *container) (string, error) {
			if err := errors.Join(c.ready(), s.produce(1000)); err != nil {
				return "", err
			}
			if _, err := c.complete(); err != nil {
				return "", err
			}
			second := fmt.Sprintf("integrations: {second: {kafka: {topics: [%s], group: %s-second}, zerobus: {table: datafly.events.second}}}\n", s.name, s.name)
			began := time.Now()
			if err := s.mount(map[string]string{"config.yaml": s.files["config.yaml"] + second}); err != nil {
				return "", err
			}
			if err := c.until("the new integration delivers", func() bool { return s.workspace.Table("datafly.events.second").Distinct("message_id") == 1000 }); err != nil {
				return "", err
			}
			return fmt.Sprintf("a new integration delivered %.1f s later, no restart", time.Since(began).Seconds()), errors.Join(c.alive(), c.ended())
		})
	})
}

// stalledLog has nobody read what the bridge writes to its standard error: the process
// that passes it to the engine's log driver is stopped.
func (r *rig) stalledLog() (string, error) {
	return r.on(4, 0, func(s *stage) (string, error) {
		return s.run([]string{"--env", "BRIDGE_LOG_LEVEL=debug"}, func(c *container) (string, error) {
			if err := c.ready(); err != nil {
				return "", err
			}
			shim, err := c.shim()
			if err != nil {
				return "", err
			}
			if err := syscall.Kill(shim, syscall.SIGSTOP); err != nil {
				return "", err
			}
			goOn := func() { _ = syscall.Kill(shim, syscall.SIGCONT) }
			defer goOn()
			end := s.traffic(2000)
			err = c.until("log lines are dropped", func() bool { return c.status().LogDropped > 0 })
			if err := errors.Join(err, end(), s.produce(100_000)); err != nil {
				return "", err
			}
			duplicates, err := c.complete()
			if err != nil {
				return "", err
			}
			dropped := c.status().LogDropped
			goOn()
			took, err := c.stop()
			return fmt.Sprintf("%d log lines dropped and counted, 0 of %d events lost, %d duplicates, exit 0 after %.1f s", dropped, s.produced.Load(), duplicates, took.Seconds()), err
		})
	})
}

// shim returns the process of containerd that holds the output of the container.
func (c *container) shim() (pid int, err error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, line := range lines {
		text, err := os.ReadFile(line)
		if err == nil && strings.Contains(string(text), "containerd-shim") && strings.Contains(string(text), c.id) {
			return strconv.Atoi(filepath.Base(filepath.Dir(line)))
		}
	}
	return 0, errors.New("no process of containerd for the container is in /proc")
}
