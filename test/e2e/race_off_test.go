//go:build !race

package e2e_test

// raceEnabled says that the tests, and so the program, have the race detector.
const raceEnabled = false
