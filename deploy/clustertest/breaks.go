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

// mistake is a change of one file, and what the error about it has to contain.
type mistake struct {
	name     string
	file     string // in the chart, or the installer's manifest
	old, new string
	values   string // on top of charttest.Minimal
	finds    string
}

const role = "installer.yaml"

var mistakes = []mistake{
	{"the pods run as root", "values.yaml", "runAsUser: 65532", "runAsUser: 0", "", "runAsUser=0"},
	{"the pods may run as root", "templates/_helpers.tpl", `"runAsNonRoot" true`, `"runAsNonRoot" false`, "", "runAsNonRoot != true"},
	{"the root filesystem is writable", "templates/_helpers.tpl", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "", "readOnlyRootFilesystem is false"},
	{"the readiness probe is missing", "templates/workload.yaml", "readinessProbe:\n            httpGet: {path: /readyz, port: ops}\n            {{- toYaml .Values.probes.readiness | nindent 12 }}", "", "", "no readiness probe"},
	{"the role lacks disruption budgets", role, "[poddisruptionbudgets]", "[others]", "", "poddisruptionbudgets"},
	{"the role lacks the release's Secrets", role, "[secrets]", "[others]", "", "secrets"},
	{"the role may not update the release's Secrets", role, "[get, list, create, update, delete]", "[get, list, create, delete]", "", "cannot update resource"},
	{"a field of the Deployment is misspelt", "templates/workload.yaml", "minReadySeconds:", "minReadySecond:", "", ".spec.minReadySecond: field not declared"},
	{"a field of the ScaledObject is misspelt", "templates/scaledobject.yaml", "maxReplicaCount:", "maxReplicasCount:", charttest.Everything, ".spec.maxReplicasCount: field not declared"},
	{"a field of the ServiceMonitor is misspelt", "templates/servicemonitor.yaml", "scrapeTimeout:", "scrapeTimeOut:", charttest.Everything, ".spec.endpoints[0].scrapeTimeOut: field not declared"},
	{"a field of the HTTPRoute is misspelt", "templates/admin.yaml", "backendRefs:", "backends:", charttest.Everything, ".spec.rules[0].backends: field not declared"},
	{"the memory limit is below the request", "values.yaml", "memory: 512Mi", "memory: 300Mi", "", "must be less than or equal to memory limit of 300Mi"},
	{"the memory limit is below what the buffer needs", "values.yaml", "memory: 512Mi", "memory: 200Mi", "resources: {requests: {memory: 100Mi}}", "must be at least twice the buffer"},
	{"the chart computes a wrong GOMEMLIMIT", "templates/_helpers.tpl", "value: {{ include \"bridge.goMemLimit\" . }}MiB", "value: 100MiB", "", "GOMEMLIMIT is 100 MiB"},
	{"a constraint has no selector", "templates/workload.yaml", `if kindIs "invalid" $constraint.labelSelector`, "if false", "", "prints a warning"},
	{"the Service selects other pods", "templates/service.yaml", `{{- include "bridge.members" . | nindent 4 }}`, "app: other", "", "service bridge selects 0 pods"},
	{"every rendering differs", "templates/workload.yaml", `{{ include "bridge.config" . | sha256sum }}`, `{{ randAlphaNum 8 | quote }}`, "", "an upgrade with the same values changes Deployment/bridge"},
	{"a ConfigMap stays after the removal", "templates/configmap.yaml", "data:\n  config.yaml", "  annotations: {helm.sh/resource-policy: keep}\ndata:\n  config.yaml", "", "left in the namespace: configmap/bridge"},
	{"the tag is no version", "values.yaml", `tag: ""`, `tag: main`, `image: {tag: latest}`, "image.allowMutableTag=true"},
}

// find makes a mistake in a copy, and returns an error unless the checks find it.
func (c *cluster) find(ctx context.Context, m mistake) (figure string, err error) {
	chart, err := os.MkdirTemp(c.dir, "chart-")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(chart, os.DirFS(filepath.Join(c.root, chartDir))); err != nil {
		return "", fmt.Errorf("copying the chart: %w", err)
	}
	file := filepath.Join(chart, m.file)
	const roleFile = "deploy/kubernetes/" + role
	if m.file == role {
		text, err := os.ReadFile(filepath.Join(c.root, roleFile))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return "", err
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.old); n == 0 {
		return "", fmt.Errorf("%s has no %q any more; change the list of mistakes in breaks.go", m.file, m.old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
		return "", err
	}
	if m.file == role {
		apply := func(file string) error {
			_, err := c.kubectl(ctx, "admin", "apply", "--server-side", "--filename="+file)
			return err
		}
		if err := apply(file); err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, apply(roleFile)) }()
	}
	_, found := c.lifecycle(ctx, chart, valueSet{m.name, []string{charttest.Minimal, m.values}})
	if err := c.clean(ctx); err != nil {
		return "", fmt.Errorf("cleaning up: %w", err)
	}
	if found == nil {
		return "", fmt.Errorf("no check finds it; want an error with %q", m.finds)
	}
	if !strings.Contains(found.Error(), m.finds) {
		return "", fmt.Errorf("want an error with %q, got: %w", m.finds, found)
	}
	return "found: " + m.finds, nil
}
