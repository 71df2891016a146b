package store

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/datafly/bridge/internal/plaintext"
	"github.com/datafly/bridge/internal/setting"
)

// Settings are where installed integrations are kept.
type Settings struct {
	// Enabled follows the store. The install API implies it.
	Enabled bool `yaml:"enabled"`
	// Topic holds the integrations, and Topic-audit the audit log. Empty is
	// <deployment>-integrations.
	Topic string `yaml:"topic" when:"enabled=true"`
	// Keys are files of 32 bytes that seal the secrets of installed integrations: the
	// first one seals, all of them open. They are read again for each secret.
	Keys []string `yaml:"keys" unique:"true" when:"enabled=true"`
	// AllowedHosts are host names, or *.domain, that workspaces, endpoints and token
	// endpoints of installed integrations may have besides those of Databricks and the
	// loopback.
	AllowedHosts []string `yaml:"allowed_hosts" unique:"true" when:"enabled=true"`
	// VariantsDir is a folder of blueprints, one per file, that can be chosen at install
	// beside the built-in ones. It is read again for each install.
	VariantsDir string `yaml:"variants_dir" when:"enabled=true"`
}

// KeyBytes is the size of a sealing key.
const KeyBytes = 32

// MakeKey is the command that makes a sealing key.
const MakeKey = "openssl rand -out store.key 32"

// ReadKeys reads the sealing keys. It returns none where no file is named.
func (s Settings) ReadKeys() ([][]byte, error) {
	var keys [][]byte
	for _, file := range s.Keys {
		key, err := readKey(file)
		if err != nil {
			return nil, fmt.Errorf("reading store.keys: %s: %w; make a key with: %s", file, err, MakeKey)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func readKey(file string) ([]byte, error) {
	key, err := plaintext.Read(file, KeyBytes+1)
	if err == nil && len(key) != KeyBytes {
		err = fmt.Errorf("it has %d bytes instead of %d", len(key), KeyBytes)
	}
	return key, err
}

var (
	topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,243}$`) // and -audit, within Kafka's 249
	hostName  = regexp.MustCompile(`^(\*\.)?[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)
)

// Check implements the rules about names and files.
func (s *Settings) Check(c *setting.Check) {
	const topic, keys, hosts = "store.topic", "store.keys", "store.allowed_hosts"
	if t := s.Topic; t != "" && c.OK(topic) && (!topicName.MatchString(t) || strings.Trim(t, ".") == "") {
		c.Fail(topic, "must be at most 243 characters of a-z, A-Z, 0-9, dot, hyphen and underscore", "leave it out for <deployment>-integrations")
	}
	for _, host := range s.AllowedHosts {
		if c.OK(hosts) && !hostName.MatchString(host) {
			c.FailValue(hosts, host, "must be a host name without scheme, port and path", "write it as host.example, or *.example for all hosts of a domain")
		}
	}
	for _, file := range s.Keys {
		if !c.Files || !c.OK(keys) {
			return
		}
		if _, err := readKey(file); err != nil {
			c.FailValue(keys, file, "cannot be used: "+setting.Cause(err), "make a key with: "+MakeKey)
		}
	}
}
