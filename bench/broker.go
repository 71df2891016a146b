package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/datafly/bridge/internal/kafkatest"
)

// atBroker is what the broker's process says once it serves.
type atBroker struct {
	Addresses []string `json:"addresses"`
}

// brokerConfig has groups of the KIP-848 protocol give a silent member up as
// soon as classic ones do in scale: there the brokers' setting counts, not the
// member's.
var brokerConfig = map[string]string{"group.consumer.session.timeout.ms": strconv.FormatInt(scaleSession.Milliseconds(), 10)}

// playBroker is the role of the in-process Kafka of franz-go, in a process of
// its own so that its processor time is not the bridge's.
func playBroker(ctx context.Context, _ []byte) error {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(brokerConfig))
	if err != nil {
		return fmt.Errorf("starting the in-process kafka: %w", err)
	}
	defer fake.Close()
	if err := tell(atBroker{Addresses: fake.ListenAddrs()}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// startBroker starts the broker that the options name and returns its addresses
// and how to stop it.
func startBroker(ctx context.Context, o *options, dir string) (addresses []string, stop func() error, err error) {
	if o.apache {
		cluster, err := kafkatest.Run(ctx, dir, kafkatest.Options{JVM: []string{"-Xmx1g"}, Config: brokerConfig})
		if err != nil {
			return nil, nil, err
		}
		return cluster.Brokers(), cluster.Close, nil
	}
	c, err := startRole(ctx, dir, "broker", nil)
	if err != nil {
		return nil, nil, err
	}
	var at atBroker
	if err := c.hear(ctx, &at); err != nil {
		return nil, nil, fmt.Errorf("%w; stopping it: %w", err, c.stop())
	}
	return at.Addresses, c.stop, nil
}

// reading is what a consumer needs to know; it travels to the roles as JSON.
type reading struct {
	Brokers []string `json:"brokers"`
	Topic   string   `json:"topic"`
	Group   string   `json:"group"`
	// Warm is how many events pass before the clock starts, All how many
	// there are.
	Warm int `json:"warm"`
	All  int `json:"all"`

	// Where rows go; not for the consumer that only polls.
	Workspace string `json:"workspace,omitempty"`
	CA        string `json:"ca,omitempty"` // PEM; empty without TLS
}

func readingFrom(settings []byte) (r reading, err error) {
	if err := json.Unmarshal(settings, &r); err != nil {
		return r, fmt.Errorf("reading the role's settings: %w", err)
	}
	return r, nil
}
