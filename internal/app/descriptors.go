package app

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/config"
	"github.com/datafly/bridge/zerobus"
)

const (
	// ownDescriptors are those the process needs besides its writes: for the brokers
	// with one integration, the ops endpoints, files and the Go runtime.
	ownDescriptors = 64
	// moreDescriptors are those of each further integration, besides one for fetching
	// from each broker: to the group's coordinator and for metadata.
	moreDescriptors = 3
	// fewDescriptors is how many have to be free: connections that are opened at the
	// same moment fail otherwise.
	fewDescriptors = 8
	// descriptorsEvery is the least time between two counts.
	descriptorsEvery = time.Second
	// shortFor is how long a shortage is reported after it was last seen: the number
	// changes with the connections that fail.
	shortFor = 10 * time.Second
)

// descriptorWatch reports when the process runs out of file descriptors.
type descriptorWatch struct {
	count func() (open, limit int, err error) // nil: countDescriptors

	mu     sync.Mutex // guards the fields below
	looked time.Time
	until  time.Time // the shortage is reported
	reason consumer.NotReady
}

// short returns why the member is not ready, or nil. needed is how many descriptors
// it needs in all.
func (d *descriptorWatch) short(now time.Time, needed int) *consumer.NotReady {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Sub(d.looked) >= descriptorsEvery {
		d.looked = now
		count := d.count
		if count == nil {
			count = countDescriptors
		}
		open, limit, err := count()
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			open, err = max(open, limit), nil
		}
		if err == nil && limit > 0 && limit-open < fewDescriptors {
			d.until = now.Add(shortFor)
			d.reason = consumer.NotReady{Code: "too_few_descriptors",
				Text: fmt.Sprintf("%d of %d file descriptors are in use; this member needs about %d", open, limit, max(needed, open+fewDescriptors)),
				Remedy: fmt.Sprintf("raise the limit to %d or more: ulimit -n, LimitNOFILE= in the systemd unit, --ulimit nofile= of docker",
					max(1024, 2*needed, 2*limit))}
		}
	}
	if !now.Before(d.until) {
		return nil
	}
	reason := d.reason
	return &reason
}

// descriptorsOf estimates how many file descriptors an integration needs: each
// partition has one write in flight, on a connection of its own unless they share
// streams.
func descriptorsOf(c *config.Config, partitions int) int {
	if c.Zerobus.Transport == zerobus.TransportGRPC {
		return max(c.Zerobus.Streams, 1)
	}
	return partitions
}
