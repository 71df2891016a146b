package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/datafly/bridge/deploy/charttest"
)

// plainManifests applies the manifests for clusters without Helm.
func (c *cluster) plainManifests(ctx context.Context) (string, error) {
	all := ""
	for _, file := range []string{"deploy/kubernetes/bridge.yaml", "deploy/keda-scaledobject.yaml"} {
		text, err := os.ReadFile(filepath.Join(c.root, file))
		if err != nil {
			return "", err
		}
		all += string(text) + "\n---\n"
	}
	const manager = "kubectl"
	if _, err := c.command(ctx, installer, all, c.bin.kubectl, "apply", "--server-side", "--field-manager="+manager, "--validate=strict", "--filename=-"); err != nil {
		return "", err
	}
	if err := c.rolledOut(ctx); err != nil {
		return "", err
	}
	objects, err := c.stored(ctx, all)
	if err != nil {
		return "", err
	}
	const job = "deploy/kubernetes/replay-job.yaml"
	if _, err := c.kubectl(ctx, installer, "create", "--validate=strict", "--filename="+job); err != nil {
		return "", err
	}
	if err := c.replays(ctx); err != nil {
		return "", err
	}
	members, err := c.inspect(ctx, objects)
	if err != nil {
		return "", err
	}
	if err := c.reapply(ctx, manager, all, objects); err != nil {
		return "", err
	}
	if _, err := c.kubectl(ctx, installer, "delete", "--filename="+job); err != nil {
		return "", err
	}
	if _, err := c.command(ctx, installer, all, c.bin.kubectl, "delete", "--filename=-"); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d objects, %d members", len(objects)+1, members), c.left(ctx)
}

// replays waits for the pod of a replay.
func (c *cluster) replays(ctx context.Context) error {
	return c.until(ctx, "the pod of the replay", func() error {
		pods, err := c.pods(ctx, "app.kubernetes.io/component=replay")
		if err == nil && len(pods) != 1 {
			err = fmt.Errorf("got %d pods, want 1", len(pods))
		}
		return err
	})
}

// replay starts a replay beside an installed release, with the commands of
// docs/deployment.md.
func (c *cluster) replay(ctx context.Context) (string, error) {
	if err := os.WriteFile(c.file("values.yaml"), []byte(charttest.Minimal), 0o600); err != nil {
		return "", err
	}
	helm := func(args ...string) (string, error) { return c.command(ctx, installer, "", c.bin.helm, args...) }
	if _, err := helm("install", release, chartDir, "--values="+c.file("values.yaml")); err != nil {
		return "", err
	}
	values, err := helm("get", "values", release, "--output=yaml")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(c.file("installed.yaml"), []byte(values), 0o600); err != nil {
		return "", err
	}
	job, err := helm("template", release, chartDir, "--values="+c.file("installed.yaml"), "--show-only=templates/replay-job.yaml",
		"--set=replay.enabled=true", "--set=replay.group=replay-1",
		"--set=replay.from=2026-11-22T06:00:00Z", "--set=replay.until=2026-11-22T07:00:00Z",
		"--set=replay.set={zerobus.table=datafly.events.stream_replay}")
	if err != nil {
		return "", err
	}
	applied, err := c.command(ctx, installer, job, c.bin.kubectl, "apply", "--filename=-")
	if err != nil {
		return "", err
	}
	if err := errors.Join(c.rolledOut(ctx), c.replays(ctx)); err != nil {
		return "", err
	}
	if _, err := c.command(ctx, installer, job, c.bin.kubectl, "delete", "--filename=-"); err != nil {
		return "", err
	}
	if _, err := helm("uninstall", release); err != nil {
		return "", err
	}
	return strings.TrimSpace(applied), c.left(ctx)
}
