package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/integrations"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/pipeline"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/reload"
)

// Reload describes where the configuration comes from.
type Reload struct {
	Options config.Options   // what the start loaded, to be loaded again
	Signals <-chan os.Signal // each one reloads
}

// newWatcher returns the watcher of the files of the configuration.
func (a *App) newWatcher(from Reload) *reload.Watcher {
	src := &source{options: from.Options, bounded: a.o.Range != pipeline.Range{}, inForce: a.files}
	return &reload.Watcher{
		Files: src.files, Signals: from.Signals, Log: a.log,
		Failed: func() bool { return a.reloads.now().State == ops.ReloadFailed },
		Changed: func(ctx context.Context, why string) {
			var changed, pending []string
			next, err := src.load()
			if err == nil {
				changed, pending, err = a.reload(ctx, next, why == reload.File || why == reload.Signal)
			}
			switch {
			case ctx.Err() != nil: // the bridge is stopping
			case err != nil:
				a.reloadFailed(why, err, changed)
			default:
				a.reloaded(why, changed, pending)
			}
		},
	}
}

// reload applies next to the process and its integrations. What is refused of an
// integration leaves that one as it is, and the process, and is an error.
func (a *App) reload(ctx context.Context, next *config.Deployment, reread bool) (changed, pending []string, err error) {
	base, taken, waiting := a.base.Load().Follow(next.Base)
	ofIntegration := func(key string) bool { return !config.OfProcess(key) }
	changed, pending = slices.DeleteFunc(taken, ofIntegration), slices.DeleteFunc(waiting, ofIntegration)
	if len(taken) == 0 {
		base = a.base.Load() // what was made of it stays valid
	}
	var wanted []config.Integration
	for _, i := range next.Integrations {
		i.Config = i.Config.WithProcess(base)
		wanted = append(wanted, i)
	}
	files := *next
	files.Base, files.Integrations = next.Base.WithProcess(base), wanted // installed integrations take its other keys over
	if was := a.deployment.Load(); was != nil {
		if _, live, other := was.Base.Follow(files.Base); len(live)+len(other) == 0 {
			files.Base = was.Base // what was built on it stays valid
		}
	}
	a.deployment.Store(&files)
	c, err := a.reconcile(ctx, reread)
	if err != nil {
		return c.Changed, nil, err
	}
	a.base.Store(base)
	if a.o.Level != nil {
		a.o.Level.SetLevel(LogLevel(base.Log))
	}
	return append(changed, c.Changed...), append(pending, c.Pending...), nil
}

// LogLevel returns the level of a validated log section.
func LogLevel(c config.Log) zapcore.Level {
	level := zap.InfoLevel
	_ = level.Set(c.Level) // config accepts the same words
	return level
}

// digest identifies the configuration of files in force, without the secrets.
func (a *App) digest() string {
	sum := sha256.New()
	for _, s := range a.integrations.Status() {
		if a.installed.store != nil && !a.ofFile(s.Name) {
			continue
		}
		var digest string
		settings := settingsOf(s)
		if p := pipelineOf(s); p != nil && s.State == integrations.Running {
			digest = p.BlueprintDigest()
		} else {
			_, digest, _ = pipeline.ReadBlueprint(settings.Mapping)
		}
		text, err := settings.YAML()
		if err != nil {
			return "" // every value of ours can be written
		}
		fmt.Fprintf(sum, "%s %t %s\n%s", s.Name, s.Enabled, digest, text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}

// files returns the files that are named by what is in force.
func (a *App) files() []string {
	d := &config.Deployment{Base: a.base.Load()}
	for _, s := range a.integrations.Status() {
		d.Integrations = append(d.Integrations, config.Integration{Config: settingsOf(s)})
	}
	return filesOf(d)
}

// source loads the configuration.
type source struct {
	options config.Options
	bounded bool            // it is of one integration
	inForce func() []string // the blueprint files in force, and the folder of integrations
	seen    bool            // the file was there once, with something in it
}

func (s *source) file() string {
	if s.options.File == "" {
		return config.DefaultFile
	}
	return s.options.File
}

// load loads the configuration. A start may do without a file. Where there was
// one, a missing or empty file is an accident, or a writer at work.
func (s *source) load() (*config.Deployment, error) {
	o := s.options
	info, err := plaintext.Stat(s.file())
	switch {
	case err == nil && info.Size() > 0:
		s.seen = true
	case s.seen && err == nil:
		return nil, fmt.Errorf("%s is empty; write it again, or restart the bridge to run without it", s.file())
	}
	o.FileRequired = o.FileRequired || s.seen
	return s.read(o)
}

func (s *source) read(o config.Options) (*config.Deployment, error) {
	if !s.bounded {
		return config.LoadDeployment(o)
	}
	c, err := config.Load(o)
	if err != nil {
		return nil, err
	}
	return config.Single(c), nil
}

// files lists the files to follow: the configuration, the folder of integrations, the
// blueprints in force, and those that the configuration names now, whether it is valid
// or not.
func (s *source) files() []string {
	files := []string{s.file()}
	more := s.inForce()
	o := s.options
	o.Partial = true
	if next, err := s.read(o); err == nil {
		more = append(more, filesOf(next)...)
	}
	for _, f := range more {
		if f != "" && !slices.Contains(files, f) {
			files = append(files, f)
		}
	}
	return files
}

// filesOf returns the files that a deployment names: the blueprints, and the folder of
// its integrations. Some may be empty.
func filesOf(d *config.Deployment) (files []string) {
	for _, i := range d.Integrations {
		files = append(files, i.Config.Mapping.Blueprint)
	}
	if dir := d.Base.IntegrationsDir; dir != "" {
		files = append(files, strings.TrimSuffix(dir, "/")+"/")
	}
	return files
}

// reloads keeps the outcome of the last one.
type reloads struct {
	mu     sync.Mutex // guards status
	status ops.ReloadStatus
}

// begin records the configuration of the start.
func (r *reloads) begin(a *App) {
	r.status = ops.ReloadStatus{State: ops.ReloadOK, At: time.Now(), Generation: 1, Hash: a.digest()}
	a.metrics.ConfigLoaded(r.status.At)
}

func (r *reloads) now() ops.ReloadStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.PendingRestart = slices.Clone(s.PendingRestart)
	return s
}

// reloadFailed records, and logs once, why what is on disk is not in force. changed are
// the keys of other integrations that are.
func (a *App) reloadFailed(why string, err error, changed []string) {
	text, hash := firstProblems(err), a.digest()
	r := &a.reloads
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.State == ops.ReloadFailed && r.status.Error == text && why != reload.Signal && len(changed) == 0 {
		return // tried again, with the same outcome
	}
	at := time.Now()
	r.status.State, r.status.Error, r.status.At, r.status.Hash = ops.ReloadFailed, text, at, hash
	if len(changed) > 0 {
		r.status.Generation++
	}
	a.metrics.ConfigReloaded(at, err)
	a.log.Error("the configuration was not reloaded; the one in force stays", zap.String("because", why), zap.String("error", text), zap.Strings("changed", changed))
}

// maxReported bounds the problems of one configuration in a log line and on a page.
const maxReported = 5

// firstProblems returns an error of several lines on one.
func firstProblems(err error) string {
	problems := strings.Split(strings.TrimSpace(err.Error()), "\n")
	if more := len(problems) - maxReported; more > 0 {
		problems = append(problems[:maxReported], fmt.Sprintf("and %d more; bridge check lists them all", more))
	}
	return strings.Join(problems, " | ")
}

// reloaded records and logs what is in force now.
func (a *App) reloaded(why string, changed, pending []string) {
	hash := a.digest()
	r := &a.reloads
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.status
	news := !slices.Equal(was.PendingRestart, pending)
	if was.State == ops.ReloadOK && len(changed) == 0 && !news && why != reload.Signal {
		return // a comment, or a file that was only touched
	}
	at := time.Now()
	r.status = ops.ReloadStatus{State: ops.ReloadOK, At: at, Generation: was.Generation, Hash: hash, PendingRestart: pending}
	if len(changed) > 0 {
		r.status.Generation++
	}
	a.metrics.ConfigReloaded(at, nil)
	a.log.Info("configuration reloaded", zap.String("because", why), zap.Strings("changed", changed),
		zap.Int("generation", r.status.Generation), zap.String("hash", hash))
	if news && len(pending) > 0 {
		a.log.Warn(strings.Join(pending, ", ")+" changed; takes effect after a restart", zap.Strings("keys", pending))
	}
}
