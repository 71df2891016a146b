//go:build engines

package compose_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/await"
)

const topic = "datafly-events"

// complete ends the producer, waits until every group has committed the end of the topic,
// and compares the topic with its rows and dead letters.
func (s stack) complete() (string, error) {
	if _, err := s.compose("stop", "producer"); err != nil {
		return "", err
	}
	defer func() { _, _ = s.compose("start", "producer") }() // the next check stops it amid traffic
	published, err := s.address("9092")
	if err != nil {
		return "", err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers("localhost:9092"), kgo.ConsumeTopics(topic, topic+"-dlq"),
		kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			if address != "localhost:9092" {
				return nil, fmt.Errorf("the broker at localhost:9092 names the address %s", address)
			}
			return new(net.Dialer).DialContext(ctx, network, published)
		}))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	err = soon(func() error {
		return committed(s.ctx, adm, "zerobus-bridge", "zerobus-bridge-orders", "zerobus-bridge-retail")
	})
	if err != nil {
		return "", err
	}
	ends, err := adm.ListEndOffsets(s.ctx, topic, topic+"-dlq")
	if err != nil {
		return "", err
	}
	left := 0
	ends.Each(func(o kadm.ListedOffset) { left += int(o.Offset) })
	events, empty, dead := 0, 0, map[string]bool{}
	ctx, cancel := context.WithTimeout(s.ctx, await.Patience)
	defer cancel()
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		if err := errors.Join(fetches.Err0(), ctx.Err()); err != nil {
			return "", fmt.Errorf("reading the topics again, %d records left: %w", left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			left--
			switch {
			case r.Topic != topic:
				dead[consumer.HeaderOf(r, consumer.HeaderPartition)+"/"+consumer.HeaderOf(r, consumer.HeaderOffset)] = true
			case r.Value == nil:
				empty++
				fallthrough
			default:
				events++
			}
		})
	}
	text, err := s.get("8090", "/emulator/tables/datafly.events.stream/distinct?column=message_id")
	var rows struct{ Distinct int }
	if err == nil {
		err = json.Unmarshal([]byte(text), &rows)
	}
	if lost := events - rows.Distinct - len(dead) - empty; err == nil && lost != 0 {
		err = fmt.Errorf("of %d events, %d are neither a row nor a dead letter nor without a value", events, lost)
	}
	return fmt.Sprintf("%d events = %d rows + %d dead letters + %d without a value", events, rows.Distinct, len(dead), empty), err
}

// committed checks that each group has committed the end of each partition.
func committed(ctx context.Context, adm *kadm.Client, groups ...string) error {
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	for _, group := range groups {
		offsets, err := adm.FetchOffsets(ctx, group)
		if err != nil {
			return err
		}
		var behind []string
		ends.Each(func(end kadm.ListedOffset) {
			if at, _ := offsets.Lookup(topic, end.Partition); at.At != end.Offset {
				behind = append(behind, fmt.Sprintf("partition %d at %d of %d", end.Partition, at.At, end.Offset))
			}
		})
		if len(behind) > 0 {
			return fmt.Errorf("group %s has not committed the end: %s", group, strings.Join(behind, ", "))
		}
	}
	return nil
}
