package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/datafly/bridge/deploy/charttest"
)

const (
	release   = "bridge"
	installer = "bridge-installer" // of deploy/kubernetes/installer.yaml
	chartDir  = "deploy/helm/bridge"
)

// valueSet is one way to configure the chart: documents that Helm merges.
type valueSet struct {
	name string
	docs []string
}

// valueSets returns those of deploy/charttest and those that the documentation shows.
func valueSets(root string) (sets []valueSet, err error) {
	for _, name := range slices.Sorted(maps.Keys(charttest.Cases)) {
		sets = append(sets, valueSet{"values: " + name, charttest.Cases[name]})
	}
	var pages [2]string
	for i, page := range []string{"docs/deployment.md", "docs/migration.md"} {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			return nil, err
		}
		pages[i] = string(text)
	}
	for i, block := range charttest.Documented(pages[0], pages[1]) {
		sets = append(sets, valueSet{fmt.Sprintf("values %d of the documentation", i+1), []string{charttest.Minimal, block}})
	}
	return sets, nil
}

// prepare creates what an installation finds: the custom resource definitions, a
// namespace that enforces "restricted", the Secret, and the service account that installs.
func (c *cluster) prepare(ctx context.Context) (string, error) {
	files, err := crds(ctx, c.root)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(c.file("client-secret"), []byte("secret"), 0o600); err != nil {
		return "", err
	}
	apply := []string{"apply", "--server-side", "--validate=strict"}
	for _, file := range files {
		apply = append(apply, "--filename="+file)
	}
	for _, args := range [][]string{
		apply,
		{"wait", "--for=condition=Established", "crd", "--all", "--timeout=5m"},
		{"create", "namespace", namespace},
		{"label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"},
		{"create", "priorityclass", "high", "--value=1000"}, // charttest.Cases name both
		{"create", "serviceaccount", "mine"},
		{"create", "secret", "generic", "zerobus", "--from-file=" + c.file("client-secret")},
		{"apply", "--server-side", "--validate=strict", "--filename=deploy/kubernetes/installer.yaml"},
	} {
		if _, err := c.kubectl(ctx, "admin", args...); err != nil {
			return "", err
		}
	}
	token, err := c.kubectl(ctx, "admin", "create", "token", installer, "--duration=24h")
	if err != nil {
		return "", err
	}
	if err := c.kubeconfig(installer, strings.TrimSpace(token)); err != nil {
		return "", err
	}
	kinds, err := c.kubectl(ctx, "admin", "api-resources", "--namespaced", "--verbs=list,delete", "--output=name")
	if err != nil {
		return "", err
	}
	// Events expire; endpoints are deprecated and follow their EndpointSlices.
	c.kinds = slices.DeleteFunc(strings.Fields(kinds), func(kind string) bool {
		return strings.HasPrefix(kind, "events") || kind == "endpoints"
	})
	// The controllers add these to each namespace.
	err = c.until(ctx, "the default service account", func() error {
		if c.before, err = c.names(ctx); err != nil {
			return err
		}
		if !slices.Contains(c.before, "serviceaccount/default") || !slices.Contains(c.before, "configmap/kube-root-ca.crt") {
			return fmt.Errorf("the namespace has %v", c.before)
		}
		return nil
	})
	return fmt.Sprintf("%d custom resource definitions, %d kinds of objects", len(files), len(c.kinds)), err
}

// names returns everything in the namespace but events, as kind/name.
func (c *cluster) names(ctx context.Context) ([]string, error) {
	out, err := c.kubectl(ctx, "admin", "get", strings.Join(c.kinds, ","), "--output=name")
	return strings.Fields(out), err
}

// added returns what is in the namespace now and was not before an installation.
func (c *cluster) added(ctx context.Context) ([]string, error) {
	names, err := c.names(ctx)
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(c.before, name) }), err
}

// clean removes what a failed check leaves.
func (c *cluster) clean(ctx context.Context) error {
	names, err := c.added(ctx)
	if err != nil {
		return err
	}
	if len(names) > 0 { // the garbage collector may be faster
		if _, err := c.kubectl(ctx, "admin", append([]string{"delete", "--ignore-not-found"}, names...)...); err != nil {
			return err
		}
	}
	return c.left(ctx)
}

// left waits until nothing is left but what may be.
func (c *cluster) left(ctx context.Context, may ...string) error {
	return c.until(ctx, "the namespace to be as before the installation", func() error {
		names, err := c.added(ctx)
		if err != nil {
			return err
		}
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(may, name) })
		// These follow their owners.
		if gone := func(name string) bool {
			kind, _, _ := strings.Cut(name, "/")
			return !slices.Contains([]string{"pod", "replicaset.apps", "controllerrevision.apps", "endpointslice.discovery.k8s.io"}, kind)
		}; slices.ContainsFunc(names, gone) {
			return finalError{fmt.Errorf("left in the namespace: %s", strings.Join(names, " "))}
		}
		if len(names) > 0 {
			return fmt.Errorf("left in the namespace: %s", strings.Join(names, " "))
		}
		return nil
	})
}

// lifecycle installs the chart with a value set, upgrades it, rolls it back and removes
// it, as the installer, and checks what the API server has after each step.
func (c *cluster) lifecycle(ctx context.Context, chart string, set valueSet) (string, error) {
	var values []string
	for i, doc := range set.docs {
		file := c.file(fmt.Sprintf("values-%d.yaml", i))
		if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
			return "", err
		}
		values = append(values, "--values="+file)
	}
	helm := func(args ...string) (string, error) { return c.command(ctx, installer, "", c.bin.helm, args...) }

	if _, err := helm(append([]string{"install", release, chart}, values...)...); err != nil {
		return "", err
	}
	if err := c.rolledOut(ctx); err != nil {
		return "", fmt.Errorf("after the installation: %w", err)
	}
	manifest, err := helm("get", "manifest", release)
	if err != nil {
		return "", err
	}
	installed, err := c.stored(ctx, manifest)
	if err != nil {
		return "", err
	}
	members, err := c.inspect(ctx, installed)
	if err != nil {
		return "", err
	}
	if err := c.reapply(ctx, "helm", manifest, installed); err != nil {
		return "", err
	}

	if _, err := helm(append([]string{"upgrade", release, chart}, values...)...); err != nil {
		return "", err
	}
	again, err := c.stored(ctx, manifest)
	if err != nil {
		return "", err
	}
	if err := same("an upgrade with the same values", installed, again, object.unchanged); err != nil {
		return "", err
	}

	const next = "v9.9.9"
	if _, err := helm(append([]string{"upgrade", release, chart, "--wait", "--set=image.digest=,image.tag=" + next}, values...)...); err != nil {
		return "", err
	}
	if err := c.runs(ctx, ":"+next); err != nil {
		return "", fmt.Errorf("after the upgrade: %w", err)
	}
	if _, err := helm("test", release, "--timeout=5m"); err != nil {
		return "", err
	}
	check, err := c.pods(ctx, "app.kubernetes.io/component=check")
	if err != nil {
		return "", err
	}
	if len(check) != 1 {
		return "", fmt.Errorf("helm test ran %d pods, want 1", len(check))
	}
	if err := hardened(check[0], configOf(installed), false); err != nil {
		return "", err
	}

	if _, err := helm("rollback", release, "--wait"); err != nil {
		return "", err
	}
	if err := c.runs(ctx, imageOf(installed)); err != nil {
		return "", fmt.Errorf("after the rollback: %w", err)
	}
	back, err := c.stored(ctx, manifest)
	if err != nil {
		return "", err
	}
	if err := same("the rollback", installed, back, object.content); err != nil {
		return "", err
	}

	if _, err := helm("uninstall", release, "--wait"); err != nil {
		return "", err
	}
	pod := "pod/" + check[0].Metadata.Name // Helm leaves the pods of its tests
	if err := c.left(ctx, pod); err != nil {
		return "", fmt.Errorf("after the removal: %w", err)
	}
	if _, err := c.kubectl(ctx, installer, "delete", pod); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d objects, %d members", len(installed), members), c.left(ctx)
}

// workload is the part of a Deployment or a StatefulSet that a rollout is about.
type workload struct {
	Metadata metadata
	Spec     struct {
		Replicas *int
		Template struct{ Spec podSpec }
	}
	Status struct {
		ObservedGeneration                           int64
		Replicas, UpdatedReplicas, AvailableReplicas int
		Conditions                                   []struct{ Type, Status, Message string }
	}
}

func (c *cluster) workloads(ctx context.Context) (all []workload, err error) {
	for _, kind := range []string{"deployments", "statefulsets"} {
		var list struct{ Items []workload }
		if err := c.api(ctx, http.MethodGet, "/apis/apps/v1/namespaces/"+namespace+"/"+kind, nil, &list); err != nil {
			return nil, err
		}
		all = append(all, list.Items...)
	}
	return all, nil
}

// rolledOut waits until the controllers have replaced all pods. It fails as soon as the
// API server refuses one.
func (c *cluster) rolledOut(ctx context.Context) error {
	return c.until(ctx, "the rollout", func() error {
		all, err := c.workloads(ctx)
		if err != nil {
			return err
		}
		if len(all) != 1 {
			return finalError{fmt.Errorf("got %d Deployments and StatefulSets, want 1", len(all))}
		}
		w, s := all[0], all[0].Status
		for _, condition := range s.Conditions {
			if condition.Type == "ReplicaFailure" && condition.Status == "True" {
				return finalError{errors.New(condition.Message)}
			}
		}
		want := *w.Spec.Replicas
		if s.ObservedGeneration != w.Metadata.Generation || s.Replicas != want || s.UpdatedReplicas != want || s.AvailableReplicas != want {
			return fmt.Errorf("generation %d is observed of %d; of %d pods there are %d, updated %d, available %d",
				s.ObservedGeneration, w.Metadata.Generation, want, s.Replicas, s.UpdatedReplicas, s.AvailableReplicas)
		}
		return nil
	})
}

// runs waits for a rollout after which every member has an image.
func (c *cluster) runs(ctx context.Context, image string) error {
	if err := c.rolledOut(ctx); err != nil {
		return err
	}
	return c.until(ctx, "the old pods to be gone", func() error {
		members, err := c.pods(ctx, "app.kubernetes.io/component=member")
		for _, p := range members {
			if got := p.Spec.Containers[0].Image; !strings.HasSuffix(got, image) {
				err = errors.Join(err, fmt.Errorf("pod %s has the image %s, want %s", p.Metadata.Name, got, image))
			}
		}
		return err
	})
}

// inspect checks what the API server stored, and what the controllers made of it: the
// pods, the addresses behind the Services and the pods that the budget counts.
func (c *cluster) inspect(ctx context.Context, objects map[string]object) (members int, err error) {
	pods, err := c.pods(ctx, "")
	if err != nil {
		return 0, err
	}
	config := configOf(objects)
	for _, p := range pods {
		member := p.Metadata.Labels["app.kubernetes.io/component"] == "member"
		if member {
			members++
		}
		if err := hardened(p, config, member); err != nil {
			return 0, err
		}
	}
	for name, o := range objects {
		kind, name, _ := strings.Cut(name, "/")
		switch kind {
		case "Service":
			var labels []string
			for key, value := range o["spec"].(map[string]any)["selector"].(map[string]any) {
				labels = append(labels, fmt.Sprintf("%s=%s", key, value))
			}
			selected, err := c.pods(ctx, strings.Join(labels, ","))
			if err != nil {
				return 0, err
			}
			if len(selected) != members {
				return 0, fmt.Errorf("service %s selects %d pods, want the %d members", name, len(selected), members)
			}
			err = c.until(ctx, "the addresses of Service "+name, func() error {
				var slices struct {
					Items []struct {
						Endpoints []struct{ Addresses []string }
					}
				}
				path := "/apis/discovery.k8s.io/v1/namespaces/" + namespace + "/endpointslices?labelSelector=kubernetes.io/service-name=" + name
				if err := c.api(ctx, http.MethodGet, path, nil, &slices); err != nil {
					return err
				}
				got := 0
				for _, slice := range slices.Items {
					got += len(slice.Endpoints)
				}
				if got != members {
					return fmt.Errorf("it has the addresses of %d pods, want those of the %d members", got, members)
				}
				return nil
			})
			if err != nil {
				return 0, err
			}
		case "PodDisruptionBudget":
			err := c.until(ctx, "the disruption budget to count the members", func() error {
				var budget struct{ Status struct{ ExpectedPods int } }
				if err := c.api(ctx, http.MethodGet, "/apis/policy/v1/namespaces/"+namespace+"/poddisruptionbudgets/"+name, nil, &budget); err != nil {
					return err
				}
				if got := budget.Status.ExpectedPods; got != members {
					return fmt.Errorf("it counts %d pods, want the %d members", got, members)
				}
				return nil
			})
			if err != nil {
				return 0, err
			}
		}
	}
	return members, nil
}

// object is one that the API server stores.
type object map[string]any

// stored reads the objects of a manifest from the API server, by kind/name.
func (c *cluster) stored(ctx context.Context, manifest string) (map[string]object, error) {
	out, err := c.command(ctx, installer, manifest, c.bin.kubectl, "get", "--filename=-", "--output=json")
	if err != nil {
		return nil, err
	}
	return decode(out)
}

func decode(text string) (map[string]object, error) {
	var list struct {
		Items []struct {
			Kind     string
			Metadata metadata
		}
	}
	var raw struct{ Items []object }
	if err := errors.Join(json.Unmarshal([]byte(text), &list), json.Unmarshal([]byte(text), &raw)); err != nil {
		return nil, fmt.Errorf("reading the objects that kubectl printed: %w", err)
	}
	objects := map[string]object{}
	for i, item := range list.Items {
		objects[item.Kind+"/"+item.Metadata.Name] = raw.Items[i]
	}
	return objects, nil
}

// reapply applies a manifest again in a dry run, with strict validation of its fields,
// and compares what the API server would store with what it stores.
func (c *cluster) reapply(ctx context.Context, manager, manifest string, before map[string]object) error {
	out, err := c.command(ctx, installer, manifest, c.bin.kubectl, "apply", "--server-side", "--field-manager="+manager,
		"--validate=strict", "--dry-run=server", "--filename=-", "--output=json")
	if err != nil {
		return err
	}
	after, err := decode(out)
	if err != nil {
		return err
	}
	return same("a second apply", before, after, object.rendered)
}

// same compares objects in the form that view returns.
func same(what string, before, after map[string]object, view func(object) object) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(before)) {
		for _, d := range differences(name, map[string]any(view(before[name])), map[string]any(view(after[name]))) {
			errs = append(errs, fmt.Errorf("%s changes %s", what, d))
		}
	}
	return errors.Join(errs...)
}

// differences lists the fields in which two JSON values differ.
func differences(path string, a, b any) (all []string) {
	x, xok := a.(map[string]any)
	y, yok := b.(map[string]any)
	if !xok || !yok {
		if !reflect.DeepEqual(a, b) {
			all = append(all, fmt.Sprintf("%s from %v to %v", path, a, b))
		}
		return all
	}
	keys := maps.Clone(x)
	maps.Copy(keys, y)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if strings.HasSuffix(key, "controller-uid") {
			continue // the API server writes it into the pods of a Job
		}
		all = append(all, differences(path+"."+key, x[key], y[key])...)
	}
	return all
}

// unchanged is everything but the status, which controllers write at any time. With the
// status, the version of the object is left out, too.
func (o object) unchanged() object {
	o = maps.Clone(o)
	meta := maps.Clone(o["metadata"].(map[string]any))
	delete(meta, "managedFields")
	if _, ok := o["status"]; ok {
		delete(o, "status")
		delete(meta, "resourceVersion")
	}
	o["metadata"] = meta
	return o
}

// rendered is what the manifest decides: Helm adds annotations of its own.
func (o object) rendered() object {
	o = o.unchanged()
	meta := o["metadata"].(map[string]any)
	delete(meta, "generation") // a changed annotation changes it
	if annotations, ok := meta["annotations"].(map[string]any); ok {
		annotations = maps.Clone(annotations)
		maps.DeleteFunc(annotations, func(key string, _ any) bool { return strings.HasPrefix(key, "meta.helm.sh/") })
		meta["annotations"] = annotations
		if len(annotations) == 0 {
			delete(meta, "annotations")
		}
	}
	return o
}

// content leaves out what every write changes.
func (o object) content() object {
	o = o.rendered()
	o["metadata"] = map[string]any{"labels": o["metadata"].(map[string]any)["labels"]}
	return o
}

// configOf returns config.yaml of the ConfigMap among the objects.
func configOf(objects map[string]object) string {
	for _, o := range objects {
		if data, ok := o["data"].(map[string]any); ok {
			if config, ok := data["config.yaml"].(string); ok {
				return config
			}
		}
	}
	return ""
}

// imageOf returns the image of the members.
func imageOf(objects map[string]object) string {
	for name, o := range objects {
		if strings.HasPrefix(name, "Deployment/") || strings.HasPrefix(name, "StatefulSet/") {
			text, _ := json.Marshal(o) // it was JSON
			var w workload
			_ = json.Unmarshal(text, &w)
			return w.Spec.Template.Spec.Containers[0].Image
		}
	}
	return ""
}
