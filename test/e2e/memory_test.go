package e2e_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/memory"
	"github.com/datafly/bridge/zerobus/emulator"
)

// planned is the published bound for the defaults, in MiB.
func planned(brokers, partitions int) int {
	c := config.Defaults()
	return int(memory.MiB(memory.Plan{
		MaxBuffered: int64(c.Delivery.MaxBuffered), MaxBytes: int64(c.Delivery.MaxBytes), FetchMaxBytes: int64(c.Kafka.FetchMaxBytes),
		Brokers: brokers, Partitions: partitions,
	}.Bound()))
}

// A sink that is away while the topic holds more than memory may.
func TestSinkDownUnderLoad(t *testing.T) {
	const (
		partitions = 12
		pad        = 4 << 10
		events     = 300 << 20 / pad
	)
	// Alone: the collector of a process that other tests keep from the cores runs
	// late, and the peak is then the machine's.
	eachHeavyStage(t, setting{partitions: partitions, workspace: emulator.Config{MaxRows: 1000}}, func(t *testing.T, s *stage) {
		bound := planned(len(s.broker.Addrs()), partitions)
		outage := shortened(t, 2*time.Minute, 15*time.Second)
		s.plain = true // the race detector has a memory of its own
		fault := emulator.Fault{Effect: emulator.EffectStatus, Status: http.StatusServiceUnavailable}
		if !s.broker.Apache() {
			fault = emulator.Fault{Effect: emulator.EffectHang} // so both are seen
		}
		s.p.pad = pad
		s.p.events(events / 2)
		m := s.begin()
		eventually(t, patience, "rows", func() bool { return s.ws.table().Count() > 0 })
		s.faultFirst(-1, fault)
		s.p.events(events - events/2)
		lasts(t, outage, "the bridge lives", func() bool {
			status, _ := m.get("/livez", "")
			return m.running() && status == http.StatusOK
		})
		down := m.peakMiB(t)
		got := m.snapshot()
		if got.BufferedBytes > got.BufferedLimit+8<<20 {
			t.Errorf("got %d bytes buffered, want at most %d and one fetch answer", got.BufferedBytes, got.BufferedLimit)
		}
		s.ws.OnIngest(nil)
		began := time.Now()
		duplicates := s.complete(m)
		t.Logf("%s: peak RSS %d MiB while down, %d MiB in all, of %d; %d events of %d KiB afterwards in %v, %d duplicates",
			fault.Effect, down, m.peakMiB(t), bound, events, pad>>10, time.Since(began).Round(time.Millisecond), duplicates)
		if peak := m.peakMiB(t); peak > bound {
			t.Errorf("got a peak RSS of %d MiB, want at most the published %d", peak, bound)
		}
		if said := memory.MiB(m.snapshot().Memory.Bound); said != int64(bound) {
			t.Errorf("/status has a bound of %d MiB, want %d", said, bound)
		}
		m.terminate(s.drain + time.Second + slack)
	})
}

// Large events, for which a broker's answer may decompress to much more than
// kafka.fetch_max_bytes, and whose rows are as large: many partitions, under the
// memory limit that the Helm chart sets, and a sink that is stalled, is slow,
// and takes everything at once.
func TestLargeEventsUnderALimit(t *testing.T) {
	const (
		partitions = 300
		size       = 9 << 20
		limit      = 512 << 20 // resources.limits.memory of the chart
	)
	for _, tc := range []struct {
		name  string
		codec kgo.CompressionCodec
		// Together they are at least as large as the limit. An event that
		// compresses repeats one character.
		events int
		note   func() string
	}{
		{"compressed", kgo.Lz4Compression(), 120, func() string { return strings.Repeat("x", size) }},
		{"incompressible", kgo.NoCompression(), 60, noise(size)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set := setting{partitions: partitions, workspace: emulator.Config{MaxRows: 4, DDL: notedDDL}, topic: map[string]string{"max.message.bytes": fmt.Sprint(12 << 20)}}
			eachHeavyStage(t, set, func(t *testing.T, s *stage) {
				s.plain, s.cgroup = true, newCgroup(t, limit)
				s.notes(tc.events, tc.codec, tc.note)
				s.faultFirst(-1, emulator.Fault{Effect: emulator.EffectHang})
				m := s.begin("zerobus.timeout=5s", "mapping.blueprint="+file(t, "noted.yaml", notedBlueprint))
				eventually(t, 2*patience, "the buffer is full", func() bool {
					m.alive()
					if status, _ := m.get("/livez", ""); status != http.StatusOK {
						return false
					}
					got := m.snapshot()
					return got.BufferedBytes >= got.BufferedLimit
				})
				lasts(t, 10*time.Second, "the bridge lives", func() bool { m.alive(); return true })
				down, held := m.peakMiB(t), m.snapshot()

				s.ws.OnIngest(func(emulator.IngestRequest) *emulator.Fault {
					return &emulator.Fault{Effect: emulator.EffectLatency, Latency: emulator.Latency{P50: 200 * time.Millisecond}}
				})
				eventually(t, 3*patience, "half of the rows", func() bool { m.alive(); return s.ws.table().Count() >= tc.events/2 })
				slow := m.peakMiB(t)
				s.ws.OnIngest(nil)
				s.complete(m)
				peak, bound := m.peakMiB(t), planned(len(s.broker.Addrs()), partitions)
				t.Logf("peak RSS %d MiB while the sink was stalled, with %d MiB buffered; %d while it was slow; %d in all, of a bound of %d; the group had %d of %d",
					down, held.BufferedBytes>>20, slow, peak, bound, s.cgroup.peakMiB(), limit>>20)
				if most := held.BufferedLimit + (memory.Plan{FetchMaxBytes: 4 << 20}).Fetched() + size; held.BufferedBytes > most+most/8 {
					t.Errorf("got %d bytes buffered, want at most about %d", held.BufferedBytes, most)
				}
				if peak > bound {
					t.Errorf("got a peak RSS of %d MiB, want at most the published %d", peak, bound)
				}
				if n := s.cgroup.kills(); n > 0 {
					t.Errorf("the kernel killed %d processes for want of memory", n)
				}
				if got := m.snapshot().Memory; got.Cgroup != limit || got.Warning != "" {
					t.Errorf("/status: got %+v, want the limit of the group and no warning", got)
				}
				m.terminate(s.drain + time.Second + slack)
			})
		})
	}
}

// A memory limit below what the configuration may need is named before it
// matters, with the keys to lower.
func TestMemoryLimitBelowTheBound(t *testing.T) {
	eachHeavyStage(t, setting{partitions: 12}, func(t *testing.T, s *stage) {
		s.plain, s.cgroup = true, newCgroup(t, 256<<20)
		bound := planned(len(s.broker.Addrs()), 12)
		words := []string{fmt.Sprintf("up to %d MiB", bound), "12 partitions", "256 MiB", "delivery.max_buffered", "kafka.fetch_max_bytes"}
		step := s.check(t, 0, nil)["memory"]
		wants(t, step.Warning, words...)
		if step.Status != "warning" {
			t.Errorf("got status %q of the check, want a warning", step.Status)
		}
		s.p.events(12)
		m := s.beginReady()
		s.complete(m)
		got := m.snapshot().Memory
		wants(t, got.Warning, words...)
		if got.Cgroup != 256<<20 || got.SoftLimit >= got.Cgroup || memory.MiB(got.Bound) != int64(bound) {
			t.Errorf("/status: got %+v, want a soft limit below the 256 MiB of the group, and a bound of %d MiB", got, bound)
		}
		if n := m.logged("the memory limit is below what this member may need"); n != 1 {
			t.Errorf("got %d warnings, want 1", n)
		}
		m.terminate(s.drain + time.Second + slack)

		enough := s.check(t, 0, nil, "delivery.max_buffered=4MiB", "kafka.fetch_max_bytes=1MiB")["memory"]
		if enough.Status != "ok" {
			t.Errorf("with the keys lowered: got %+v, want ok", enough)
		}
	})
}

const (
	notedDDL       = "CREATE TABLE datafly.events.stream (message_id STRING, note STRING);"
	notedBlueprint = `version: 2
global:
  mappings:
    - {source: message_id, target: message_id, type: STRING}
    - {source: properties.note, target: note, type: STRING}
`
)

// noise returns text of n bytes that does not compress, another one each time.
func noise(n int) func() string {
	dice := rand.NewChaCha8([32]byte{1})
	return func() string {
		raw := make([]byte, n/4*3)
		_, _ = dice.Read(raw) // never fails
		return base64.StdEncoding.EncodeToString(raw)
	}
}

// notes appends n large events one by one, each in a batch of its own.
func (s *stage) notes(n int, codec kgo.CompressionCodec, note func() string) {
	s.t.Helper()
	cl := client(s.t, s.broker, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(12<<20))
	for i := range n {
		at := int32(i % len(s.p.next))
		value := strings.Replace(string(event(eventID(at, s.p.next[at]), 0)), `"note":""`, `"note":"`+note()+`"`, 1)
		s.p.next[at]++
		ctx, cancel := within()
		err := cl.ProduceSync(ctx, &kgo.Record{Topic: s.topic, Partition: at, Value: []byte(value)}).FirstErr()
		cancel()
		must(s.t, err)
	}
}

// peakMiB is the largest resident set the child has had, which the kernel
// keeps.
func (m *member) peakMiB(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		t.Skipf("the peak RSS is read from /proc: %v", err)
	}
	for line := range strings.Lines(string(data)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib >> 10
		}
	}
	t.Fatal("no VmHWM in /proc/<pid>/status")
	return 0
}
