// Package archtest holds the tests of the dependency rules in docs/architecture.md.
package archtest
