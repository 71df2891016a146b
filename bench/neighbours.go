package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

const (
	healthyNeighbours = 15
	silentPath        = "/bench/silent" // takes no row and never refuses one
)

// neighboursResult is how long the healthy integrations of a process take to deliver
// full topics, from the start of the process.
type neighboursResult struct {
	Alone  []time.Duration `json:"alone_ns"`
	Beside []time.Duration `json:"beside_ns"` // beside integrations that cannot deliver
}

// neighbours measures what integrations that cannot deliver cost the others of their
// process: one without a table, one with a wrong secret, one whose sink never answers
// although it has as many events as the others together, and one with events that can
// never become rows.
func neighbours(ctx context.Context, r *rig) (_ any, err error) {
	each := max(r.o.events/healthyNeighbours, 1)
	var topics []string
	defer func() {
		for _, t := range topics {
			err = errors.Join(err, r.drop(ctx, t))
		}
	}()
	fill := func(events int) (string, error) {
		t, err := r.topic(ctx, r.o.partitions, "lz4", events)
		topics = append(topics, t)
		return t, err
	}
	healthy, broken := "integrations:\n", ""
	for i := range healthyNeighbours {
		topic, err := fill(each)
		if err != nil {
			return nil, err
		}
		healthy += fmt.Sprintf("  healthy-%d: {kafka: {topics: [%s]}, zerobus: {table: %s}}\n", i, topic, benchTable)
	}
	for _, b := range []struct {
		name, zerobus string
		events        int
	}{
		{"missing", "table: datafly.events.nowhere", each},
		{"secret", "table: " + benchTable + ", client_secret: wrong", each},
		{"silent", "table: " + benchTable + ", ingest_path: " + silentPath, each * healthyNeighbours},
		{"poison", "table: " + benchTable, 0},
	} {
		topic, err := fill(b.events)
		if err != nil {
			return nil, err
		}
		if b.events == 0 {
			if err := poison(ctx, r.brokers, topic, each); err != nil {
				return nil, err
			}
		}
		broken += fmt.Sprintf("  %s: {kafka: {topics: [%s]}, zerobus: {%s}}\n", b.name, topic, b.zerobus)
	}
	var out neighboursResult
	for i := range r.o.rounds {
		alone, err := r.deliverAll(ctx, healthy, each*healthyNeighbours)
		if err != nil {
			return nil, err
		}
		beside, err := r.deliverAll(ctx, healthy+broken, each*healthyNeighbours)
		if err != nil {
			return nil, err
		}
		r.logf("round %d: %.2f s alone, %.2f s beside four that cannot deliver", i+1, alone.Seconds(), beside.Seconds())
		out.Alone, out.Beside = append(out.Alone, alone), append(out.Beside, beside)
	}
	return out, nil
}

// poison fills a topic with events that are no JSON.
func poison(ctx context.Context, brokers []string, topic string, events int) error {
	l, err := newLoad(brokers, topic, "lz4", 5*time.Millisecond, 0)
	if err != nil {
		return err
	}
	for range events {
		l.send(ctx, &kgo.Record{Value: []byte("{")})
	}
	return l.finish(ctx)
}

// deliverAll starts a process with integrations and returns how long it takes until the
// table has all rows.
func (r *rig) deliverAll(ctx context.Context, integrations string, rows int) (took time.Duration, err error) {
	if err := r.workspace.reset(ctx); err != nil {
		return 0, err
	}
	name := r.name("neighbours") // its groups are new
	began := time.Now()
	b, err := r.launch(ctx, name, delivery{transport: zerobus.TransportWorkspace}, "", "", fmt.Sprintf("deployment: %s\n%s", name, integrations))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	waiting, cancel := b.alive(ctx)
	defer cancel()
	err = r.workspace.wait(waiting, rows)
	return time.Since(began), err
}

// silent answers batches without rows, and no others.
func silent(next http.Handler) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has closed the connection
		}
		if bytes.Contains(body, []byte(`"records":[{`)) {
			<-r.Context().Done()
			return
		}
		inside := r.Clone(r.Context())
		inside.URL.Path, inside.RequestURI = emulator.IngestPath, emulator.IngestPath
		inside.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(rw, inside)
	}
}

func (r neighboursResult) String() string {
	var s strings.Builder
	alone, beside := slices.Clone(r.Alone), slices.Clone(r.Beside)
	a, b := spanOf(alone), spanOf(beside)
	fmt.Fprintf(&s, "%d integrations deliver full topics, p50 / longest of %d rounds: %v alone, %v beside four that cannot deliver; ratio of the medians %.2f\n",
		healthyNeighbours, a.Count, a, b, b.P50.Seconds()/a.P50.Seconds())
	return s.String()
}
