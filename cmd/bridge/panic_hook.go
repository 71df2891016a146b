//go:build panichook

package main

import (
	"strings"

	"github.com/datafly/bridge/consumer"
)

// A build for tests: reading a topic whose name ends with "panic" is a bug.
func init() {
	wrapObserver = func(o consumer.Observer) consumer.Observer { return panicking{o} }
}

type panicking struct{ consumer.Observer }

func (p panicking) EventsRead(topic string, partition int32, events, bytes int) {
	if strings.HasSuffix(topic, "panic") {
		panic("a bug in a test")
	}
	p.Observer.EventsRead(topic, partition, events, bytes)
}
