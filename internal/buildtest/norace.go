//go:build !race

package buildtest

// Race reports whether the caller is built with the race detector, so that the
// bridge it builds can be too.
const Race = false
