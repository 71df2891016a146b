package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/buildtest"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

const (
	topic       = "chaos.events"
	deadLetters = topic + "-dlq"
	recreated   = "chaos.recreated" // which is deleted and created again
	group       = "chaos"
	partitions  = 6
	clientID    = "chaos-client"

	session        = 6 * time.Second
	drain          = 4 * time.Second
	requestTimeout = 20 * time.Second // of a member's request to the service
	maxRows        = 400
)

// rig is what the members run against: a cluster, a workspace, and the network
// between.
type rig struct {
	o         *options
	dir       string // logs, configuration, the binary
	cluster   *kafkatest.Cluster
	networks  []*proxy // to the brokers
	real      map[string]string
	workspace *emulator.Emulator
	table     *emulator.Table
	sinks     []*proxy // to the workspace and to the Zerobus endpoint
	secrets   *secrets
	bridge    string // the binary

	cl  *kgo.Client // for administration, past the proxies
	adm *kadm.Client
}

// newRig starts everything but the members.
func newRig(ctx context.Context, o *options, dir string) (r *rig, err error) {
	r = &rig{o: o, dir: dir, real: map[string]string{}, secrets: &secrets{file: filepath.Join(dir, "client-secret")}}
	for _, name := range otherNames() {
		r.secrets.more = append(r.secrets.more, r.otherSecret(name))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.bridge = o.bridge; r.bridge == "" {
		r.bridge = filepath.Join(dir, "bridge")
		flags := []string{"-trimpath"}
		if o.race {
			flags = append(flags, "-race")
		}
		if err = buildtest.Build(ctx, r.bridge, flags...); err != nil {
			return r, err
		}
	}
	if err = r.startSink(); err != nil {
		return r, err
	}
	if err = r.startKafka(ctx); err != nil {
		return r, err
	}
	if r.cl, err = r.client(); err != nil {
		return r, err
	}
	r.adm = kadm.NewClient(r.cl)
	// A day's events must not fill the disk, and members are never an hour behind.
	hour := "3600000"
	for t, settings := range map[string]map[string]*string{topic: {"retention.ms": &hour}, deadLetters: nil} {
		if _, err = r.adm.CreateTopic(ctx, partitions, -1, settings, t); err != nil {
			return r, fmt.Errorf("creating topic %s: %w", t, err)
		}
	}
	if _, err = r.adm.CreateTopic(ctx, recreatedPartitions, -1, nil, recreated); err != nil {
		return r, fmt.Errorf("creating topic %s: %w", recreated, err)
	}
	return r, r.prepareOthers(ctx)
}

func (r *rig) startSink() error {
	secret := r.secrets.fresh()
	if err := r.secrets.write(secret); err != nil {
		return err
	}
	w, err := emulator.New(emulator.Config{
		ClientID: clientID, ClientSecret: secret, DDL: tableDDL, MaxRows: 1, NoIndex: true,
		Latency: emulator.Latency{P50: 15 * time.Millisecond, P95: 40 * time.Millisecond}, StreamMaxAge: 20 * time.Second,
	})
	if err != nil {
		return err
	}
	r.workspace, r.table = w, w.Table(tableName)
	if err := w.Start("127.0.0.1:0"); err != nil {
		return err
	}
	if err := w.StartZerobus("127.0.0.1:0"); err != nil {
		return err
	}
	// Some rows can never be ingested.
	never := unfitName
	for _, endpoint := range []string{emulator.EndpointIngest, emulator.EndpointInsert, emulator.EndpointStream} {
		f := emulator.Fault{Endpoint: endpoint, Effect: emulator.EffectRefuse, Rows: &emulator.RowMatch{Column: "event_name", Equals: &never}}
		if _, err := w.AddFault(f); err != nil {
			return err
		}
	}
	for _, at := range []string{w.URL(), w.ZerobusURL()} {
		u, err := url.Parse(at)
		if err != nil {
			return err
		}
		p, err := newProxy(u.Host)
		if err != nil {
			return err
		}
		r.sinks = append(r.sinks, p)
	}
	return nil
}

func (r *rig) startKafka(ctx context.Context) error {
	var failed error
	c, err := kafkatest.Run(ctx, r.dir, kafkatest.Options{
		Brokers: r.o.brokers,
		Config: map[string]string{
			"group.consumer.session.timeout.ms": fmt.Sprint(session.Milliseconds()),
			"log.segment.bytes":                 "67108864",
		},
		Advertise: func(_ int, addr string) string {
			p, err := newProxy(addr)
			if err != nil {
				failed = err
				return ""
			}
			r.networks = append(r.networks, p)
			r.real[p.addr()] = addr
			return p.addr()
		},
	})
	r.cluster = c
	return errors.Join(err, failed)
}

// client makes a client that reaches the brokers past the proxies: what the test
// knows must not depend on the faults it injects.
func (r *rig) client(opts ...kgo.Opt) (*kgo.Client, error) {
	dialer := &net.Dialer{Timeout: 3 * time.Second}
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(r.cluster.Brokers()...),
		kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
			if addr := r.real[host]; addr != "" {
				host = addr
			}
			return dialer.DialContext(ctx, network, host)
		}),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(5 * time.Second),
		kgo.RequestTimeoutOverhead(5 * time.Second),
		kgo.DisableClientMetrics(),
	}, opts...)...)
}

// config writes the configuration file of a member's process and returns its
// path.
func (r *rig) config(member, transport string) (string, error) {
	var brokers []string
	for _, p := range r.networks {
		brokers = append(brokers, p.addr())
	}
	file, err := r.putBlueprint(member, blueprint(member, 1))
	if err != nil {
		return "", err
	}
	native := ""
	if transport != "workspace" {
		native = fmt.Sprintf("  endpoint: http://%s\n  workspace_id: %q\n", r.sinks[1].addr(), emulator.DefaultWorkspaceID)
	}
	text := fmt.Sprintf(`deployment: %s
integrations_dir: %s
kafka:
  brokers: [%s]
  topics: [%s, %s]
  group: %s
  protocol: %s
  session_timeout: %s
  rebalance_timeout: 10s
zerobus:
  workspace_url: http://%s
  client_id: %s
  client_secret_file: %s
  catalog: datafly
  schema: events
  table: stream
  transport: %s
%s  timeout: %s
  columns_refresh: 3s
mapping:
  blueprint: %s
delivery:
  max_rows: %d
  drain: %s
`, group, r.overlays(), strings.Join(brokers, ", "), topic, recreated, group, r.o.protocol, session, r.sinks[0].addr(), clientID, r.secrets.file, transport, native, requestTimeout, file, maxRows, drain)
	path := filepath.Join(r.dir, member+".yaml")
	return path, replaceFile(path, text)
}

// putBlueprint writes a member's blueprint and returns its path.
func (r *rig) putBlueprint(member, text string) (string, error) {
	path := filepath.Join(r.dir, member+".blueprint.yaml")
	return path, replaceFile(path, text)
}

// replaceFile writes a file, whole or not at all.
func replaceFile(path, text string) error {
	if err := os.WriteFile(path+".next", []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing %s: %w; free some space", path, err)
	}
	return os.Rename(path+".next", path)
}

// close ends everything the rig started. The members must have ended.
func (r *rig) close() error {
	var err error
	if r.cl != nil {
		r.cl.Close()
	}
	for _, p := range append(r.networks, r.sinks...) {
		p.close()
	}
	if r.workspace != nil {
		//nolint:forbidigo // the run's context may have ended; bounded here
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = r.workspace.Close(ctx) // requests that were cut off are nobody's loss any more
	}
	if r.cluster != nil {
		err = r.cluster.Close()
	}
	return err
}

// secrets are the client secrets of a run, which no log may show. It is safe for
// concurrent use.
type secrets struct {
	file string   // which the members read
	more []string // those of the other integrations

	mu  sync.Mutex // guards all
	all [][]byte

	writing sync.Mutex // held while files are written; guards current
	current string     // what is in the files
}

// fresh makes another secret.
func (s *secrets) fresh() string {
	secret := "dose" + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, []byte(secret))
	return secret
}

// write puts a secret where the members read it.
func (s *secrets) write(secret string) (err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.current = secret
	for _, file := range append([]string{s.file}, s.more...) {
		err = errors.Join(err, replaceFile(file, secret))
	}
	return err
}

// spoil puts a wrong secret into one file, until restore or write.
func (s *secrets) spoil(file string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return replaceFile(file, "not-a-secret")
}

func (s *secrets) restore(file string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return replaceFile(file, s.current)
}

// in reports whether a line shows a secret, or a bearer token.
func (s *secrets) in(line []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Contains(line, []byte("Bearer ")) ||
		slices.ContainsFunc(s.all, func(secret []byte) bool { return bytes.Contains(line, secret) })
}
