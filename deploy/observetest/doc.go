// Package observetest holds the tests of the alert rules and of the dashboard.
// It is a module of its own: Prometheus and its promtool stay out of the
// bridge's.
package observetest
