package config

import (
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Redacted returns the configuration as nested maps for /status: keys as in
// the file, durations and sizes as text, secrets as "[redacted]" when set.
// Nothing in it is shared with c.
func (c *Config) Redacted() map[string]any {
	all := map[string]any{}
	for _, f := range keys {
		at := all
		parts := strings.Split(f.path, ".")
		for _, part := range parts[:len(parts)-1] {
			deeper, ok := at[part].(map[string]any)
			if !ok {
				deeper = map[string]any{}
				at[part] = deeper
			}
			at = deeper
		}
		value := f.of(c).Interface()
		switch v := value.(type) {
		case Secret:
			value = v.String()
		case Size:
			value = v.String()
		case time.Duration:
			value = durationText(v)
		case []string:
			value = append([]string{}, v...)
		}
		at[parts[len(parts)-1]] = value
	}
	return all
}

// YAML returns the configuration as a file in the order of the documentation,
// with secrets redacted.
func (c *Config) YAML() ([]byte, error) { return yaml.Marshal(c) }
