//go:build synctests && !race

package consumer_test

const raceEnabled = false
