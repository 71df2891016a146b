package main

import (
	"context"
	"fmt"
	"time"
)

const (
	sampleEvery = 400 * time.Millisecond
	// rounds is how often a dead letter that is missing is looked for, each
	// time up to the topic's end of then: behind a new leader the end may lag.
	rounds = 5
)

// watchCommits holds what the group has committed against the ledger, all the
// time, until ctx ends.
func (r *run) watchCommits(ctx context.Context) {
	var missing []place
	tried := 0
	for hold(ctx, sampleEvery) {
		committed, err := r.committed(ctx)
		if err != nil {
			continue // a broker is away: there will be another look
		}
		now := r.ledger.commits(committed[topic], time.Now())
		if missing = r.ledger.overdue(missing); len(missing) == 0 {
			missing, tried = now, 0
		}
		if len(missing) == 0 {
			continue
		}
		ends, err := r.ends(ctx, letters)
		if err != nil || !r.until(ctx, 20*time.Second, func() bool { return r.reader.passed(ends) }) {
			continue
		}
		if missing = r.ledger.overdue(missing); len(missing) == 0 {
			continue
		}
		if tried++; tried >= rounds {
			r.ledger.unlettered(missing)
			missing, tried = nil, 0
		}
	}
}

// committed returns the group's offsets, by topic and partition.
func (r *run) committed(ctx context.Context) (map[string]map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all, err := r.rig.adm.FetchOffsets(ctx, group)
	if err != nil {
		return nil, err
	}
	out := map[string]map[int32]int64{topic: {}, recreated: {}}
	for of, offsets := range out {
		for p, o := range all[of] {
			if o.Err == nil && o.At >= 0 {
				offsets[p] = o.At
			}
		}
	}
	return out, nil
}

// ends returns the ends of a topic's partitions, all of them or none.
func (r *run) ends(ctx context.Context, of string) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all, err := r.rig.adm.ListEndOffsets(ctx, of)
	if err != nil {
		return nil, err
	}
	if err := all.Error(); err != nil {
		return nil, err
	}
	out := map[int32]int64{}
	for p, o := range all[of] {
		out[p] = o.Offset
	}
	return out, nil
}

// until waits for a condition and reports whether it came.
func (r *run) until(ctx context.Context, limit time.Duration, condition func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !condition() {
		if !hold(ctx, 100*time.Millisecond) {
			return condition()
		}
	}
	return true
}

// lag counts the events that are not committed; text is it or what is in the
// way of knowing.
func (r *run) lag(ctx context.Context) (lag int64, text string) {
	committed, err := r.committed(ctx)
	if err != nil {
		return -1, err.Error()
	}
	for _, of := range []string{topic, recreated} {
		ends, err := r.ends(ctx, of)
		if err != nil {
			return -1, err.Error()
		}
		for p, end := range ends {
			lag += max(0, end-committed[of][p])
		}
	}
	return lag, fmt.Sprintf("%d events are not committed", lag)
}
