// Package integrations decides which integrations of a deployment run, and
// supervises each of them.
package integrations
