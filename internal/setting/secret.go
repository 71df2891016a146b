package setting

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/datafly/bridge/internal/plaintext"
)

const redacted = "[redacted]"

// maxSecretBytes bounds a secret file, so that a wrong path cannot fill memory.
const maxSecretBytes = 64 << 10

// Secret is text that must not be shown. Every way of printing, logging or
// encoding it yields "[redacted]", or nothing when it is empty; only Reveal
// returns the text. Two places are out of its reach, so keep it out of them:
// unexported struct fields, where fmt calls no methods, and map keys in JSON.
type Secret string

// Reveal returns the text. The caller sees to it that it goes nowhere but to
// the party it authenticates to.
func (s Secret) Reveal() string { return string(s) }

// String returns "[redacted]", or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// Format writes String whatever the verb, so that %x and %d give nothing away.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText is String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON is String as a JSON string.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalYAML is String.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// SecretSource is where a secret comes from: a value, or a file that is read
// again each time. It prints its key and file, never the secret.
type SecretSource struct {
	Key   string // the configuration key, for messages
	Value Secret
	File  string // wins over Value when set
}

// Read returns the secret as it is now, without line breaks around it. It is
// safe for concurrent use and cheap enough to call once a second. A file that
// does not answer fails it after plaintext.Patience. No error holds any part of
// the secret.
func (s SecretSource) Read() (string, error) {
	if s.File == "" {
		if s.Value == "" {
			return "", fmt.Errorf("%s is not set; set it, or %s_file", s.Key, s.Key)
		}
		return s.Value.Reveal(), nil
	}
	secret, err := readSecret(s.File)
	if err != nil {
		return "", fmt.Errorf("reading %s_file: %w; let it name a readable file that holds the secret and nothing else", s.Key, err)
	}
	return secret, nil
}

// Format writes where the secret comes from, whatever the verb.
func (s SecretSource) Format(f fmt.State, _ rune) {
	from := s.File
	if from == "" {
		from = s.Value.String()
	}
	_, _ = fmt.Fprintf(f, "%s from %s", s.Key, from)
}

func readSecret(path string) (string, error) {
	data, err := plaintext.ReadFile(path, maxSecretBytes)
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return "", fmt.Errorf("%s is not text", path)
	}
	secret := plaintext.Secret(string(data))
	if strings.TrimSpace(secret) == "" {
		return "", errors.New(path + " is empty")
	}
	return secret, nil
}
