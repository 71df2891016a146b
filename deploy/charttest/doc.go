// Package charttest holds the tests of the Helm chart and of the plain
// Kubernetes manifests. It is a module of its own: Helm and the Kubernetes
// types stay out of the bridge's.
package charttest
