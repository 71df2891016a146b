package config

import (
	"cmp"
	"slices"
	"strings"
)

// ofIntegration are the keys that an integration has of its own, beside whole sections.
var ofIntegration = []string{"enabled", "kafka.topics", "kafka.group", "kafka.start", "delivery.max_rows", "delivery.max_bytes"}

// OfProcess reports whether a key belongs to the process: all integrations have the
// same value, and another one takes effect after a restart unless it is live.
func OfProcess(path string) bool {
	section, _, _ := strings.Cut(path, ".")
	return !slices.Contains([]string{"zerobus", "mapping", "rejects"}, section) && !slices.Contains(ofIntegration, path)
}

// WithProcess returns c with the keys of the process as they are in base. Neither is
// changed.
func (c *Config) WithProcess(base *Config) *Config {
	merged := *c
	for _, k := range schema.Keys {
		if OfProcess(k.Path) {
			k.In(&merged).Set(k.In(base))
		}
	}
	return &merged
}

// Single returns the deployment of one integration, for a run that is not of a whole
// deployment.
func Single(c *Config) *Deployment {
	name := cmp.Or(c.Rejects.Integration, DefaultIntegration)
	return &Deployment{Base: c, Integrations: []Integration{{Name: name, Enabled: true, Config: c}}}
}
