package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/zerobus"
)

const blueprintKey = "mapping.blueprint"

// reload brings next, and the blueprint it names, into force as far as that
// needs no restart: all of it, or nothing and an error. taken are the keys that
// now have another value, waiting those that would need a restart. It is for
// one caller at a time; fresh is Schema.SetBlueprint's reread.
func (b *bridge) reload(ctx context.Context, next *config.Config, fresh bool) (taken, waiting []string, err error) {
	now, taken, waiting := b.settings.Load().Follow(next)
	plan, text, err := pipeline.ReadBlueprint(now.Mapping.Blueprint)
	if err != nil {
		return nil, nil, err
	}
	if text != b.schema.Digest() {
		if err := b.schema.SetBlueprint(ctx, plan, text, fresh); err != nil {
			return nil, nil, err
		}
		if !slices.Contains(taken, blueprintKey) {
			taken = append(taken, blueprintKey)
		}
	}
	b.settings.Store(now)
	b.level.SetLevel(levelOf(now.Log))
	b.client.SetRateLimit(now.Zerobus.RateLimit)
	return taken, waiting, nil
}

// digest tells configurations in force apart, without the secrets.
func (b *bridge) digest() string {
	text, err := b.settings.Load().YAML()
	if err != nil {
		return "" // no value of ours cannot be written
	}
	sum := sha256.Sum256(append(text, b.schema.Digest()...))
	return hex.EncodeToString(sum[:6])
}

// consumerConfig is the function of that name, with the secrets that are in
// force when they are needed.
func (b *bridge) consumerConfig() consumer.Config {
	c := consumerConfig(b.cfg)
	c.Kafka.SASL.Password, c.Kafka.SASL.OAuth.ClientSecret = b.secrets.password.Get, b.secrets.oauth.Get
	return c
}

// zerobusConfig is to zerobusConfig what consumerConfig is to consumerConfig.
func (b *bridge) zerobusConfig() zerobus.Config {
	c := zerobusConfig(b.cfg)
	c.ClientSecret = b.secrets.client.Get
	return c
}

// secrets are read when they are needed, so that a rotated file is used without a
// restart. While a file hangs, the last secret is used: what delivers does not wait
// for a new one.
type secrets struct{ password, oauth, client plaintext.Kept[string] }

func (b *bridge) keepSecrets() {
	keep := func(k *plaintext.Kept[string], source func(*config.Config) config.SecretSource) {
		k.Read = func() (string, error) { return source(b.settings.Load()).Read() }
		k.Hung = func(err error) { b.log.Warn("a secret cannot be read; the last one is used", zap.Error(err)) }
	}
	keep(&b.secrets.password, func(c *config.Config) config.SecretSource { return c.Kafka.SASL.PasswordSource() })
	keep(&b.secrets.oauth, func(c *config.Config) config.SecretSource { return c.Kafka.SASL.OAuth.ClientSecretSource() })
	keep(&b.secrets.client, func(c *config.Config) config.SecretSource { return c.Zerobus.ClientSecretSource() })
}

// reloads keeps what became of them.
type reloads struct {
	metrics *ops.Metrics

	mu     sync.Mutex // guards status
	status ops.ReloadStatus
}

// begin notes the configuration of the start.
func (r *reloads) begin(m *ops.Metrics, hash string, at time.Time) {
	r.metrics = m
	r.status = ops.ReloadStatus{State: ops.ReloadOK, At: at, Generation: 1, Hash: hash}
	m.ConfigLoaded(at)
}

func (r *reloads) now() ops.ReloadStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.PendingRestart = slices.Clone(s.PendingRestart)
	return s
}

// refused notes, and says once, why what is on disk is not in force.
func (b *bridge) refused(why string, err error) {
	text := inOneLine(err)
	r := &b.reloads
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.State == ops.ReloadFailed && r.status.Error == text && why != bySignal {
		return // tried again, with the same end
	}
	at := time.Now()
	r.status.State, r.status.Error, r.status.At = ops.ReloadFailed, text, at
	r.metrics.ConfigReloaded(at, err)
	b.log.Error("the configuration was not reloaded; the one in force goes on", zap.String("because", why), zap.String("error", text))
}

// maxTold is how many problems of one configuration are told: a log line and a
// page have no room for those of every column.
const maxTold = 5

func inOneLine(err error) string {
	problems := strings.Split(strings.TrimSpace(err.Error()), "\n")
	if more := len(problems) - maxTold; more > 0 {
		problems = append(problems[:maxTold], fmt.Sprintf("and %d more; bridge check tells them all", more))
	}
	return strings.Join(problems, " | ")
}

// reloaded notes, and says, what has come into force.
func (b *bridge) reloaded(why string, taken, waiting []string) {
	hash := b.digest()
	r := &b.reloads
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.status
	news := !slices.Equal(was.PendingRestart, waiting)
	if was.State == ops.ReloadOK && len(taken) == 0 && !news && why != bySignal {
		return // a comment, or a file that was only touched
	}
	at := time.Now()
	r.status = ops.ReloadStatus{State: ops.ReloadOK, At: at, Generation: was.Generation, Hash: hash, PendingRestart: waiting}
	if len(taken) > 0 {
		r.status.Generation++
	}
	r.metrics.ConfigReloaded(at, nil)
	b.log.Info("configuration reloaded", zap.String("because", why), zap.Strings("changed", taken),
		zap.Int("generation", r.status.Generation), zap.String("hash", hash))
	if news && len(waiting) > 0 {
		b.log.Warn(strings.Join(waiting, ", ")+" changed; takes effect after a restart", zap.Strings("keys", waiting))
	}
}

func (r *reloads) failing() bool { return r.now().State == ops.ReloadFailed }
