// Package scale tests a group as wide as large installations run it: 1,000
// partitions over eight members, all of them replaced one after the other
// under load. It asserts what must hold at any speed, that nothing is lost and
// no partition is left behind; how long it takes is measured by
// go -C bench run . scale. Everything is in its tests.
package scale
