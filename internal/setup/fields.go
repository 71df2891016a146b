package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/setting"
	"github.com/datafly/bridge/zerobus"
)

const secretKey, secretFileKey = "zerobus.client_secret", "zerobus.client_secret_file"

// asked are the six fields, in the order of the integration page.
var asked = []struct {
	key, question string
	given         func(z *zerobus.Settings) bool
}{
	{"zerobus.workspace_url", "Workspace URL", func(z *zerobus.Settings) bool { return z.WorkspaceURL != "" }},
	{"zerobus.client_id", "Client id of the service principal", func(z *zerobus.Settings) bool { return z.ClientID != "" }},
	{secretKey, "Client secret (not shown)", hasCredential},
	{"zerobus.catalog", "Catalog", func(z *zerobus.Settings) bool { return z.Catalog != "" }},
	{"zerobus.schema", "Schema", func(z *zerobus.Settings) bool { return z.Schema != "" }},
	{"zerobus.table", "Table", func(z *zerobus.Settings) bool { return z.Table != "" }},
}

func hasSecret(z *zerobus.Settings) bool { return z.ClientSecret != "" || z.ClientSecretFile != "" }

func hasCredential(z *zerobus.Settings) bool { return hasSecret(z) || z.TokenExchange.TokenFile != "" }

// fields loads the configuration and asks for those of the six fields that it lacks.
func (s *session) fields(ctx context.Context) (*config.Config, error) {
	o := s.Load
	o.Partial = true // Kafka may be configured later; the client requires the six
	cfg, err := config.Load(o)
	if err != nil {
		return nil, &UsageError{err}
	}
	if s.Ask == nil {
		return cfg, nil
	}
	o.Env, o.Sets = slices.Clone(o.Env), slices.Clone(o.Sets)
	for _, f := range asked {
		if f.given(&cfg.Zerobus) {
			continue
		}
		answer, err := s.Ask(ctx, f.question, f.key == secretKey)
		switch {
		case err != nil:
			return nil, err
		case f.key == secretKey:
			o.Env = append(o.Env, setting.EnvName(secretKey)+"="+answer)
		default:
			o.Sets = append(o.Sets, f.key+"="+strings.TrimSpace(answer))
		}
	}
	if cfg, err = config.Load(o); err != nil {
		return nil, &UsageError{err}
	}
	return cfg, nil
}

// States of a configuration file.
const (
	FileMissing = "will be written"
	FileWritten = "written"
	FileSame    = "unchanged"
	FileOther   = "has other values"
)

// ConfigFile is the configuration file of the set-up.
type ConfigFile struct {
	Path       string `json:"path"`
	State      string `json:"state"`
	SecretFile string `json:"secret_file,omitempty"` // beside it, if the secret came from elsewhere

	text        []byte
	secretThere bool  // SecretFile exists and holds the secret
	fits        error // why it may not be written
}

const secretExtension = ".client-secret"

// holdsSecret reports whether a file exists and holds the secret. One that exists and does not
// is an error.
func holdsSecret(name, secret string) (bool, error) {
	const remedy = "remove it if the secret was replaced, or name another file with --write"
	switch was, err := plaintext.ReadFile(name, secretMax); {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("the file of the secret exists and cannot be read: %w; %s", err, remedy)
	case plaintext.Secret(string(was)) != secret:
		return false, fmt.Errorf("%s exists and holds another secret, and nothing is overwritten; %s", name, remedy)
	}
	return true, nil
}

const secretMax = 1 << 16 // bytes

// planFile compares the file that may exist with the configuration. It is left as it is where
// the bridge would read the same from it.
func (s *session) planFile() error {
	f := &s.Config
	f.Path, f.State = s.File, FileMissing
	z := s.cfg.Zerobus
	secret := ""
	if hasSecret(&z) {
		var err error
		if secret, err = z.CredentialSource().Read(); err != nil {
			return err
		}
	}
	_, err := plaintext.Stat(f.Path)
	if err == nil {
		return s.compareFile(secret)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for the configuration file: %w; name another with --write", err)
	}
	if _, err := os.Lstat(f.Path); err == nil {
		f.fits = fmt.Errorf("%s is a link to a file that does not exist, and is not overwritten; remove it, or name another file with --write", f.Path)
	}
	written := *s.cfg
	written.Zerobus.ClientSecret = ""
	if secret != "" {
		beside := z.ClientSecretFile
		if beside == "" {
			if beside = strings.TrimSuffix(f.Path, filepath.Ext(f.Path)) + secretExtension; beside == f.Path {
				beside += secretExtension
			}
		}
		if beside, err = filepath.Abs(beside); err != nil { // bridge run may have another working directory
			return fmt.Errorf("naming the file of the secret: %w", err)
		}
		if written.Zerobus.ClientSecretFile = beside; z.ClientSecretFile == "" {
			f.SecretFile = beside
			f.secretThere, err = holdsSecret(beside, secret)
			f.fits = cmp.Or(f.fits, err)
		}
	}
	text, left, err := written.File()
	if err != nil {
		return err
	}
	b := []byte("# Written by bridge setup. bridge help config explains every key.\n")
	for _, key := range left {
		b = fmt.Appendf(b, "# %s is a secret and is not in this file: set %s, or %s_file here.\n", key, setting.EnvName(key), key)
	}
	if b = append(b, text...); len(s.cfg.Kafka.Topics) == 0 {
		b = append(b, "# Where events come from; bridge run needs both keys:\n# kafka:\n#   brokers: [localhost:9092]\n#   topics: [datafly-events]\n"...)
	}
	f.text = b
	return nil
}

// compareFile reads the file that exists as bridge run would in the same environment.
func (s *session) compareFile(secret string) error {
	f := &s.Config
	f.State = FileOther
	there, err := config.Load(config.Options{File: f.Path, FileRequired: true, Env: s.Load.Env, Integration: s.Load.Integration, Partial: true})
	if err != nil {
		f.fits = fmt.Errorf("%s exists and is not overwritten: %w; or name another file with --write", f.Path, err)
		return nil
	}
	_, live, others := there.Follow(s.cfg)
	differ := slices.DeleteFunc(append(live, others...), func(key string) bool { return key == secretKey || key == secretFileKey })
	if has := hasSecret(&there.Zerobus); has || secret != "" {
		if theirs, err := there.Zerobus.CredentialSource().Read(); err != nil || theirs != secret {
			differ = append(differ, secretKey)
		}
	}
	if len(differ) == 0 {
		f.State = FileSame
		return nil
	}
	slices.Sort(differ)
	f.fits = fmt.Errorf("%s exists with other values of %s, and is not overwritten; change them there, remove the file, or name another with --write", f.Path, strings.Join(differ, ", "))
	return nil
}

// writeFile writes the secret first, so that the configuration never names a file that is
// missing.
func (s *session) writeFile() error {
	f := &s.Config
	if f.fits != nil {
		return &UsageError{f.fits}
	}
	if f.State == FileSame {
		return nil
	}
	if f.SecretFile != "" && !f.secretThere {
		if err := create(f.SecretFile, []byte(s.cfg.Zerobus.ClientSecret.Reveal()+"\n")); err != nil {
			return err
		}
		s.Changed = true
	}
	if err := create(f.Path, f.text); err != nil {
		return err
	}
	s.Changed, f.State = true, FileWritten
	return nil
}

// create writes a file of mode 0600 in one step: it has its whole content or does not exist.
// It replaces nothing, also not what another set-up has written meanwhile.
func create(name string, content []byte) (err error) {
	defer func() {
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%s exists meanwhile and is not overwritten; run the same command again, or name another file with --write", name)
		} else if err != nil {
			err = fmt.Errorf("writing %s: %w; name a file in a folder that you may write to with --write", name, err)
		}
	}()
	tmp, err := os.CreateTemp(filepath.Dir(name), ".bridge-setup-*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(content)
	if err = cmp.Or(err, tmp.Sync()); err != nil {
		_ = tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err = os.Link(tmp.Name(), name); err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// The file system has no hard links.
	if _, err := os.Lstat(name); err == nil {
		return fs.ErrExist
	}
	return os.Rename(tmp.Name(), name)
}
