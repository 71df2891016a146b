// Package bridge holds the documents that the program carries along, so that
// `bridge help` shows what docs/ says and nothing has to be said twice.
package bridge

import "embed"

// Documents are the example of the configuration, config.example.yaml, and the
// pages of docs/ that `bridge help` shows, by their path in the repository.
//
//go:embed config.example.yaml docs/blueprint.md docs/metrics.md docs/operations.md docs/terminal.md
var Documents embed.FS
