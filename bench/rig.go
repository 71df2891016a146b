package main

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// rig is the bench: a broker, a workspace and a bridge to put between them.
type rig struct {
	o       *options
	dir     string // for logs, configuration files and the binary; removed by close
	machine machine

	bridge     string // the binary
	broker     atBroker
	brokers    []string
	security   kafkatest.Security // of the brokers
	stopBroker func() error
	workspace  *workspace
	admin      *kgo.Client

	screen io.Writer
	began  time.Time
	runs   int // numbers groups and topics
}

// protocols names that of each transport.
var protocols = map[string]string{
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
		r.logf("building the bridge")
		r.bridge = filepath.Join(r.dir, "bridge")
		if err = buildtest.Build(ctx, r.bridge, "-trimpath"); err != nil {
			return nil, err
		}
	}
	r.machine.Revision = revision(ctx, r.bridge)
	r.machine.Broker, r.machine.Protocol = "kfake", protocols[o.transport]
	if o.apache {
		r.machine.Broker = "Apache Kafka"
	}
	if o.tls {
		r.machine.Protocol += " with TLS"
	}
	if r.broker, r.stopBroker, err = startBroker(ctx, o, r.dir); err != nil {
		return nil, err
	}
	r.brokers = r.broker.Addresses
	if r.workspace, err = startWorkspace(ctx, r.dir, emulatorSettings{TLS: o.tls}); err != nil {
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

func (r *rig) logf(format string, args ...any) {
	fmt.Fprintf(r.screen, "%5.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// name returns a name no other topic or group of this run has.
func (r *rig) name(kind string) string {
	r.runs++
	return fmt.Sprintf("bench-%s-%d", kind, r.runs)
}

// topic makes a topic and fills it with events; drop it after its use.
func (r *rig) topic(ctx context.Context, partitions int, codec string, events int) (name string, err error) {
	return r.shaped(ctx, partitions, codec, events, shape{})
}

// shaped makes a topic of events that look different.
func (r *rig) shaped(ctx context.Context, partitions int, codec string, events int, s shape) (name string, err error) {
	name = r.name("topic")
	resp, err := kadm.NewClient(r.admin).CreateTopic(ctx, int32(partitions), 1, nil, name)
	if err == nil {
		err = resp.Err
	}
	if err != nil {
		return "", fmt.Errorf("creating topic %s: %w", name, err)
	}
	began := time.Now()
	size, err := r.fill(ctx, name, codec, events, s)
	if err != nil {
		return "", err
	}
	if events > 0 {
		r.logf("%d events of %d bytes on average in %d partitions, %s, in %.1f s", events, size/int64(events), partitions, codec, time.Since(began).Seconds())
	}
	return name, nil
}

// drop deletes a topic, which the broker keeps in memory.
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

// running is a bridge at work.
type running struct {
	*child
	ops string
}

// startBridge starts the bridge on a topic, in a group of its own.
func (r *rig) startBridge(ctx context.Context, d delivery) (*running, error) {
	group := r.name("group")
	return r.launch(ctx, group, d, fmt.Sprintf("topics: [%s], group: %s", d.topic, group), "table: "+benchTable, "")
}

// launch starts the bridge with these keys of its configuration, and of the sections
// kafka and zerobus.
func (r *rig) launch(ctx context.Context, name string, d delivery, kafka, target, more string) (*running, error) {
	to := cmp.Or(d.to, r.workspace).at
	ops, err := freeAddress()
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`kafka: {brokers: ["%s"], %s}
zerobus: {workspace_url: "%s", client_id: %s, client_secret: %s, `,
		strings.Join(r.brokers, `", "`), kafka, to.URL, emulator.DefaultClientID, emulator.DefaultClientSecret)
	if ca := to.CA; ca != "" {
		file := filepath.Join(r.dir, name+"-ca.pem")
		if err := os.WriteFile(file, []byte(ca), 0o600); err != nil {
			return nil, err
		}
		text += fmt.Sprintf(`ca_file: "%s", `, file)
	}
	text += fmt.Sprintf("%s}\nops: {address: \"%s\"}\nlog: {level: warn}\n%s", target, ops, more)
	file := filepath.Join(r.dir, name+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	args := []string{"run", "--config", file}
	sets := r.o.sets
	if d.unset {
		sets = nil
	}
	for _, s := range slices.Concat(to.reached(d.transport), d.sets, sets) {
		args = append(args, "--set", s)
	}
	c, err := start(ctx, r.dir, "bridge", append(inherited(), d.env...), cmp.Or(d.binary, r.bridge), args...)
	if err != nil {
		return nil, err
	}
	return &running{child: c, ops: ops}, nil
}

// freeAddress finds a port on loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// metrics are one scrape of the bridge.
type metrics struct {
	families map[string]*dto.MetricFamily
}

// bucket is one cumulative bucket of a histogram.
type bucket struct {
	le    float64 // upper bound, +Inf for the last
	count float64
}

// scrapeWithin is how long a bridge may take to answer, on however busy a machine.
const scrapeWithin = time.Minute

// scrape reads the bridge's /metrics. A bridge that does not answer is ended, and its
// log shows its goroutines.
func (b *running) scrape(ctx context.Context) (*metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeWithin)
	defer cancel()
	text, err := request(ctx, http.MethodGet, "http://"+b.ops+"/metrics", nil)
	if errors.Is(err, context.DeadlineExceeded) {
		b.dump()
	}
	if err != nil {
		return nil, err
	}
	return parseMetrics(text)
}

func parseMetrics(text []byte) (*metrics, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	return &metrics{families}, err
}

// sum adds the series of a metric, or the sums or counts of a histogram's.
func (m *metrics) sum(name string) (sum float64) {
	histogram, isSum := strings.CutSuffix(name, "_sum")
	histogram = strings.TrimSuffix(histogram, "_count")
	for _, one := range m.families[name].GetMetric() {
		sum += one.GetCounter().GetValue() + one.GetGauge().GetValue()
	}
	if histogram == name {
		return sum
	}
	for _, one := range m.families[histogram].GetMetric() {
		if isSum {
			sum += one.GetHistogram().GetSampleSum()
		} else {
			sum += float64(one.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// since returns the buckets of what a histogram observed after an earlier scrape.
func (m *metrics) since(earlier *metrics, name string) (out []bucket) {
	for factor, from := range map[float64]*metrics{1: m, -1: earlier} {
		for _, one := range from.families[name].GetMetric() {
			for _, b := range one.GetHistogram().GetBucket() {
				at, known := slices.BinarySearchFunc(out, b.GetUpperBound(), func(b bucket, le float64) int { return cmp.Compare(b.le, le) })
				if !known {
					out = slices.Insert(out, at, bucket{le: b.GetUpperBound()})
				}
				out[at].count += factor * float64(b.GetCumulativeCount())
			}
		}
	}
	return out
}

// quantile estimates the q-quantile of a histogram by linear interpolation
// in its bucket, as Prometheus does; 0 when nothing was observed.
func quantile(buckets []bucket, q float64) float64 {
	if len(buckets) == 0 || buckets[len(buckets)-1].count == 0 {
		return 0
	}
	rank := q * buckets[len(buckets)-1].count
	i := sort.Search(len(buckets)-1, func(i int) bool { return buckets[i].count >= rank })
	low, before := 0.0, 0.0
	if i > 0 {
		low, before = buckets[i-1].le, buckets[i-1].count
	}
	if i == len(buckets)-1 { // beyond the last bound nothing more is known
		return low
	}
	return low + (buckets[i].le-low)*(rank-before)/(buckets[i].count-before)
}
