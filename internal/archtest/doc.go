// Package archtest holds the test that keeps the packages of this module apart
// as docs/architecture.md says.
package archtest
