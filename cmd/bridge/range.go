package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/pipeline"
)

// rangeFlags are --from, --until and --integration of `bridge run`.
type rangeFlags struct{ from, until string }

func (f *rangeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.from, "from", "", "begin here where the group has committed nothing: earliest, an RFC 3339 time, or a time before now (-2h); needs --group")
	cmd.Flags().StringVar(&f.until, "until", "", "end, with exit code 0, when the group has delivered all before this: now, an RFC 3339 time, or a time before now (-1h); needs --group")
}

const (
	fromForms  = kafka.FormEarliest
	untilForms = kafka.FormNow
)

// read returns the range of the flags. cfg was loaded from o.
func (f *rangeFlags) read(cfg *config.Config, o config.Options, now time.Time) (w pipeline.Range, err error) {
	if f.from != "" {
		p, err := kafka.ParsePosition(f.from, fromForms, now)
		if err != nil {
			return w, fmt.Errorf("--from %w", err)
		}
		w.From = &p
	}
	if f.until != "" {
		p, err := kafka.ParsePosition(f.until, untilForms, now)
		if err != nil {
			return w, fmt.Errorf("--until %w", err)
		}
		w.Until = &p
	}
	switch {
	case w.From == nil && cfg.Kafka.Start == "latest":
		return w, errors.New("--until reads nothing while kafka.start is latest; add --from")
	case w.From != nil && w.Until != nil && w.From.Kind == kafka.AtTime && w.Until.Kind == kafka.AtTime && !w.From.Time.Before(w.Until.Time):
		return w, fmt.Errorf("--until %s is not after --from %s; exchange them", w.Until, w.From)
	}
	return w, ownGroup(cfg, o)
}

// ownGroup requires a group of its own for a bounded run: as a member of the live
// group it would take partitions from the deployment, and stop with them.
func ownGroup(cfg *config.Config, o config.Options) error {
	_, given := o.Flags["group"]
	delete(o.Flags, "group")
	var sets []string
	for _, set := range o.Sets {
		if key, _, _ := strings.Cut(set, "="); strings.HasSuffix(strings.TrimSpace(key), "kafka.group") { // of the base or of an integration
			given = true
			continue
		}
		sets = append(sets, set)
	}
	o.Sets, o.Partial = sets, true
	live, err := config.Load(o)
	if err != nil {
		return err
	}
	if !given || live.Kafka.Group == cfg.Kafka.Group {
		return fmt.Errorf("--from and --until need a group of their own; add --group with another name than %s, which is the group of the live deployment", live.Kafka.Group)
	}
	return nil
}

// load reads the configuration and the range of `bridge run`. With a range, it is
// that of one integration.
func (f *rangeFlags) load(cmd *cobra.Command) (*config.Deployment, pipeline.Range, error) {
	o := config.FromFlags(cmd.Flags(), os.Environ())
	if f.from == "" && f.until == "" {
		if o.Integration != "" {
			return nil, pipeline.Range{}, &usageError{errors.New("--integration needs --from or --until, since bridge run runs all integrations; set enabled: false in those that are not to run")}
		}
		d, err := loadDeployment(cmd, "", false)
		return d, pipeline.Range{}, err
	}
	cfg, err := config.Load(o) // it does not read the store
	if err != nil {
		return nil, pipeline.Range{}, &usageError{err}
	}
	w, err := f.read(cfg, o, time.Now())
	if err != nil {
		return nil, w, &usageError{err}
	}
	return config.Single(cfg), w, nil
}
