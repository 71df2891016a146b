package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// binaries are the programs of the test, and the versions that they must report.
type binaries struct {
	etcd, apiserver, controllers, kubectl, helm string
	kubernetes                                  string // v1.36.3
}

// The definitions of the custom resources, from the modules of their projects.
var crdModules = map[string][]string{
	"github.com/kedacore/keda/v2@v2.20.1": {"config/crd/bases/keda.sh_scaledobjects.yaml"},
	"github.com/prometheus-operator/prometheus-operator@v0.94.0": {
		"example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
		"example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
	},
	"sigs.k8s.io/gateway-api@v1.4.0": {"config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"},
}

// build compiles the servers, kubectl and Helm into .cache, once for each version.
func build(ctx context.Context, root string, progress io.Writer) (binaries, string, error) {
	here := filepath.Join(root, "deploy/clustertest")
	servers := filepath.Join(here, "kubernetes")
	versions := map[string]string{"k8s.io/kubernetes": servers, "go.etcd.io/etcd/server/v3": servers, "helm.sh/helm/v4": here}
	for module, dir := range versions {
		out, err := output(ctx, dir, "go", "list", "-m", "-f", "{{.Version}}", module)
		if err != nil {
			return binaries{}, "", err
		}
		versions[module] = strings.TrimSpace(out)
	}
	kubernetes, etcd, helm := versions["k8s.io/kubernetes"], versions["go.etcd.io/etcd/server/v3"], versions["helm.sh/helm/v4"]
	cache := filepath.Join(root, ".cache/clustertest", "kubernetes-"+kubernetes+"-etcd-"+etcd+"-helm-"+helm)
	if _, err := os.Stat(cache); err != nil {
		fmt.Fprintf(progress, "building kube-apiserver %s, etcd %s and helm %s into %s; minutes, once\n", kubernetes, etcd, helm, cache)
		// Renamed when it is whole, so that an interrupted build leaves no cache.
		partial := cache + "-partial"
		if err := os.MkdirAll(partial, 0o755); err != nil {
			return binaries{}, "", fmt.Errorf("making the cache of the servers: %w", err)
		}
		minor := strings.SplitN(kubernetes, ".", 3)[1]
		const version = " -X k8s.io/component-base/version."
		flags := "-s -w" + version + "gitVersion=" + kubernetes + version + "gitMajor=1" + version + "gitMinor=" + minor
		for dir, ldflags := range map[string]string{servers: flags, here: "-s -w"} {
			if _, err := output(ctx, dir, "go", "build", "-trimpath", "-ldflags", ldflags, "-o", partial+"/", "tool"); err != nil {
				return binaries{}, "", err
			}
		}
		if err := os.Rename(partial, cache); err != nil {
			return binaries{}, "", fmt.Errorf("finishing the cache of the servers: %w", err)
		}
	}
	bin := binaries{kubernetes: kubernetes}
	for name, path := range map[string]*string{"server": &bin.etcd, "kube-apiserver": &bin.apiserver, "kube-controller-manager": &bin.controllers, "kubectl": &bin.kubectl, "helm": &bin.helm} {
		*path = filepath.Join(cache, name)
		if _, err := os.Stat(*path); err != nil {
			return binaries{}, "", fmt.Errorf("%w; remove the folder %s to build it again", err, cache)
		}
	}
	return bin, fmt.Sprintf("Kubernetes %s, etcd %s, Helm %s", kubernetes, etcd, helm), nil
}

// crds returns the files with the definitions of the custom resources.
func crds(ctx context.Context, root string) (files []string, err error) {
	for module, names := range crdModules {
		out, err := output(ctx, filepath.Join(root, "deploy/clustertest"), "go", "mod", "download", "-json", module)
		if err != nil {
			return nil, err
		}
		var downloaded struct{ Dir string }
		if err := json.Unmarshal([]byte(out), &downloaded); err != nil {
			return nil, fmt.Errorf("reading what go mod download reports of %s: %w", module, err)
		}
		for _, name := range names {
			files = append(files, filepath.Join(downloaded.Dir, name))
		}
	}
	return files, nil
}

// output runs a command in dir and returns its standard output.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = grace
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()+stdout.String()))
	}
	return stdout.String(), nil
}
