// Package scale tests a group as wide as large installations run it: 1,000
// partitions over eight members, all of them replaced one after the other
// under load. It asserts what must hold at any speed: nothing is lost,
// and no partition is left behind. `go -C bench run . scale` measures how long it
// takes. Everything is in its tests.
package scale
