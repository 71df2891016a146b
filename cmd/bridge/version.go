package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/datafly/bridge/internal/terminal"
)

// release is set at link time: -ldflags "-X main.release=v1.2.3".
var release = ""

// version returns the release, else what the toolchain knows of the build.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}

func newVersionCommand() *cobra.Command {
	var output *outputForm
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Example: `  bridge version
  bridge version --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			build := map[string]string{"version": version(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH}
			return output.write(cmd, build, func(b *strings.Builder, _ terminal.Style) {
				fmt.Fprintf(b, "bridge %s %s %s/%s\n", build["version"], build["go"], build["os"], build["arch"])
			})
		},
	}
	output = addOutput(cmd)
	return cmd
}
