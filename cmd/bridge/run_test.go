package main

import (
	"context"
	"io"
	"log"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/datafly/bridge/internal/app"
	"github.com/datafly/bridge/internal/config"
)

// net/http writes bytes of answers that nothing asked for to the standard
// logger. They may be anything, so they are for debugging only.
func TestStandardLoggerIsForDebugging(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bridge.yaml")
	const text = `kafka: {brokers: ["127.0.0.1:1"], topics: [a], group: live}
zerobus: {workspace_url: "http://127.0.0.1:1", client_id: x, client_secret: y, catalog: c, schema: s, table: t}
ops: {address: "127.0.0.1:0"}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	config.AddFlags(flags)
	if err := flags.Parse([]string{"--config", file}); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(config.FromFlags(flags, nil))
	if err != nil {
		t.Fatal(err)
	}
	core, logged := observer.New(zap.DebugLevel)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = serve(ctx, app.Options{Deployment: config.Single(cfg), Log: zap.New(core)}, func(*app.App) {
		_, _ = io.WriteString(log.Writer(), "Unsolicited response starting with \"user 7\"\n")
		cancel()
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := logged.FilterMessageSnippet("user 7").All()
	if len(lines) != 1 || lines[0].Level != zapcore.DebugLevel {
		t.Errorf("got %v, want one line at debug", lines)
	}
}
