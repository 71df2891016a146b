package store

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafka"
)

// Bounds of reading the audit log: the offsets that are looked at, and the bytes that are
// returned. Each entry has two offsets, with the marker of its transaction.
const (
	auditOffsets = 20_000
	auditBytes   = 64 << 20
	auditTimeout = 10 * time.Second
)

// Audit returns entries of the audit log, the newest first: at most limit of those that
// match, among the newest 10,000. It ends within 10 seconds. The error is a *Problem.
func (s *Store) Audit(ctx context.Context, limit int, match func(*Entry) bool) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, auditTimeout)
	defer cancel()
	entries, err := s.entries(ctx, limit, match)
	if err != nil {
		return nil, s.problemOf(err, kafka.Read)
	}
	return entries, nil
}

// entries reads backwards, in ranges that grow, until there are enough.
func (s *Store) entries(ctx context.Context, limit int, match func(*Entry) bool) (newest []Entry, err error) {
	cl, err := s.connected()
	if err != nil {
		return nil, err
	}
	if topic, err := s.describe(ctx, cl, s.audit); err != nil || !topic.exists {
		return nil, err
	}
	start, err := s.offset(ctx, cl, s.audit, earliest)
	if err != nil {
		return nil, err
	}
	end, err := s.offset(ctx, cl, s.audit, stable)
	if err != nil {
		return nil, err
	}
	start = max(start, end-auditOffsets)
	room := auditBytes
	for size := int64(256); start < end && len(newest) < limit && room > 0; size *= 4 {
		from := max(start, end-size)
		var found []Entry // the oldest first
		var sizes []int
		err := s.readRange(ctx, cl, s.audit, from, end, func(rec *kgo.Record) error {
			var e Entry
			if err := json.Unmarshal(rec.Value, &e); err != nil || e.ID == "" || !match(&e) {
				return nil //nolint:nilerr // it is of another application
			}
			found, sizes = append(found, e), append(sizes, len(rec.Value))
			for room -= len(rec.Value); len(found) > limit-len(newest) || room < 0 && len(found) > 1; {
				room += sizes[0]
				found, sizes = slices.Delete(found, 0, 1), slices.Delete(sizes, 0, 1)
			}
			return nil
		}, func(*kgo.Record, string) {})
		if err != nil {
			return nil, err
		}
		slices.Reverse(found)
		newest, end = append(newest, found...), from
	}
	return newest, nil
}
