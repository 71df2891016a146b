package pipeline

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/mapping"
)

// NewMapper returns a mapper for one goroutine. It takes up a schema that has
// changed with the next batch.
func (s *Schema) NewMapper() consumer.Mapper {
	var by *Compiled
	var mapper *mapping.Mapper
	var headers bool
	var in mapping.Record // reused: a mapper keeps nothing of it
	return func(rec *kgo.Record, out *consumer.Batch) {
		if out.Empty() {
			if now := s.current.Load(); now != by {
				by, mapper, headers = now, now.NewMapper(), now.UsesHeaders()
			}
			out.SetSchemaVersion(by.version)
		}
		in.TopicID = out.TopicID()
		fill(&in, rec, headers)
		mapper.Map(&in, out)
		// What it points to may be part of a whole fetch answer, and the
		// partition's next record may be a day away.
		in.Key, in.Value = nil, nil
		if headers {
			clear(in.Headers)
		}
	}
}

// Explain maps a record of a topic with this id and returns the outcome of each of
// its events, with reasons. It is slow, and the result holds event data.
func (c *Compiled) Explain(rec *kgo.Record, topicID [16]byte) []mapping.Explained {
	in := &mapping.Record{TopicID: topicID}
	fill(in, rec, true)
	return c.Mapping.NewMapper().Explain(in)
}

// fill points in to what rec holds.
func fill(in *mapping.Record, rec *kgo.Record, headers bool) {
	in.Topic, in.Partition, in.Offset, in.Timestamp, in.Key, in.Value = rec.Topic, rec.Partition, rec.Offset, rec.Timestamp, rec.Key, rec.Value
	if headers {
		in.Headers = in.Headers[:0]
		for _, h := range rec.Headers {
			in.Headers = append(in.Headers, mapping.Header{Key: h.Key, Value: h.Value})
		}
	}
}

// MapRows returns the encoded rows of a record and their schema version.
func (s *Schema) MapRows(rec *kgo.Record) (rows [][]byte, version int64) {
	var out consumer.Batch
	out.Add(rec, s.NewMapper())
	return out.Rows(), out.SchemaVersion()
}
