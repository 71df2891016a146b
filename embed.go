// Package bridge embeds the documents that `bridge help` shows, so that the
// program and docs/ have the same text.
package bridge

import "embed"

// Documents are the example of the configuration, config.example.yaml, and the
// pages of docs/ that `bridge help` shows, by their path in the repository.
//
//go:embed config.example.yaml docs/blueprint.md docs/metrics.md docs/operations.md docs/terminal.md
var Documents embed.FS
