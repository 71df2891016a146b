package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops/live"
)

// letters looks into the dead-letter topics for the page.
type letters struct{ b *bridge }

// Bounds of what is shown of one letter in a list: of its value in bytes, of
// each of the bridge's headers in characters. Anybody who may write to the topic
// may have written those.
const maxPagedLetter, maxPagedHeader = 8 << 10, 500

func (l letters) newest(ctx context.Context, limit int) ([]*consumer.DeadLetter, error) {
	all, err := l.b.cluster.OpenDeadLetters(ctx)
	if err != nil {
		return nil, err
	}
	return all.Newest(ctx, limit)
}

// Newest implements live.Letters.
func (l letters) Newest(ctx context.Context, limit int, content bool) ([]live.Letter, error) {
	found, err := l.newest(ctx, limit)
	if err != nil {
		return nil, err
	}
	all := make([]live.Letter, 0, len(found))
	for _, f := range found {
		o := f.Original
		index := 0 // where the headers do not tell, the first event's names will do
		if len(f.Events) > 0 {
			index = f.Events[0].First
		}
		who := sketchOf(o.Value, index)
		letter := live.Letter{
			Topic: f.Topic, Partition: f.Partition, Offset: f.Offset, Source: fmt.Sprintf("%s/%d/%d", pageLine(o.Topic, maxPagedHeader), o.Partition, o.Offset),
			Events: pageLine(f.Events.Without(f.Landed).String(), maxPagedHeader), Code: pageLine(f.Code, maxPagedHeader), Column: pageLine(f.Column, maxPagedHeader), Meaning: meanings[f.Code], Reason: pageLine(f.Reason, maxPagedHeader), Attempts: f.Attempts,
			FailedAt: f.FailedAt, Type: who.kind, Name: who.name, MessageID: who.id, Size: len(o.Value),
		}
		if f.Fault != "" {
			letter.Meaning = "the headers of this letter are not whole, so it cannot be redriven as it was"
		}
		if content {
			letter.Value = pageValue(o.Value[:min(len(o.Value), maxPagedLetter)])
		}
		all = append(all, letter)
	}
	return all, nil
}

// Trial implements live.Letters: each letter's record is put together as it was
// and mapped by the rules of now. Nothing is written, so what the table itself
// would refuse is not found.
func (l letters) Trial(ctx context.Context, limit int) (t live.Trial, err error) {
	now := l.b.schema.Current()
	if now == nil {
		return t, errors.New("the blueprint has not been fitted to the table yet; wait until the bridge has started")
	}
	found, err := l.newest(ctx, limit)
	if err != nil {
		return t, err
	}
	mapper, still := now.NewMapper(), map[live.TrialCode]int{}
	for _, f := range found {
		t.Letters++
		if f.Fault != "" {
			t.Faulty++
			continue
		}
		out := &trial{}
		mapper.Map(mappingRecord(f.Original, f.TopicID), out)
		for i, o := range out.ends {
			switch {
			case !f.Events.Has(i) || f.Landed.Has(i):
				continue // it was delivered
			case o.row:
				t.Rows++
			case o.filtered:
				t.Dropped++
			default:
				still[live.TrialCode{Code: o.code, Column: o.column, Meaning: meanings[o.code]}]++
			}
			t.Events++
		}
	}
	for code, n := range still {
		code.Events = n
		t.Still = append(t.Still, code)
	}
	slices.SortFunc(t.Still, func(a, b live.TrialCode) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Column, b.Column))
	})
	return t, nil
}

// trial is a mapping.Out that keeps no row.
type trial struct {
	ends []trialEnd
	buf  []byte
}

type trialEnd struct {
	row, filtered bool
	code, column  string
}

// Buf implements mapping.Out.
func (t *trial) Buf() []byte { return t.buf[:0] }

// Row implements mapping.Out.
func (t *trial) Row(extended []byte) { t.buf, t.ends = extended, append(t.ends, trialEnd{row: true}) }

// Reject implements mapping.Out.
func (t *trial) Reject(code, column, _ string) {
	t.ends = append(t.ends, trialEnd{code: code, column: column})
}

// Filter implements mapping.Out.
func (t *trial) Filter(string) { t.ends = append(t.ends, trialEnd{filtered: true}) }
