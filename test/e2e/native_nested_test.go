package e2e_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/zerobus/emulator"
)

const nestedDDL = `CREATE TABLE datafly.events.stream (
  message_id STRING NOT NULL,
  geo STRUCT<country: STRING, at: STRUCT<lat: DOUBLE, lon: DOUBLE>>,
  labels MAP<STRING,STRING>,
  items ARRAY<STRUCT<sku: STRING NOT NULL, n: INT, options: MAP<STRING,STRUCT<v: STRING>>>>,
  stock MAP<STRING,STRUCT<n: INT, seen: TIMESTAMP>>
) USING DELTA;`

const nestedBlueprint = `version: 2
global:
  mappings:
    - {source: message_id, target: message_id, type: "STRING"}
    - {source: properties.geo, target: geo, type: "STRUCT<country: STRING, at: STRUCT<lat: DOUBLE, lon: DOUBLE>>"}
    - {source: properties.labels, target: labels, type: "MAP<STRING,STRING>"}
    - {source: properties.items, target: items, type: "ARRAY<STRUCT<sku: STRING NOT NULL, n: INT, options: MAP<STRING,STRUCT<v: STRING>>>>"}
    - {source: properties.stock, target: stock, type: "MAP<STRING,STRUCT<n: INT, seen: TIMESTAMP>>"}
`

// A table with STRUCT, MAP and ARRAY<STRUCT> is delivered to as protobuf: the
// descriptor of its rows is one that a strict service takes, in the 1:1 form,
// too.
func TestNativeNestedColumnsAsProtobuf(t *testing.T) {
	set := setting{partitions: 3, workspace: emulator.Config{DDL: nestedDDL, Schema: emulator.SchemaExact}}
	eachStage(t, set, func(t *testing.T, s *stage) {
		s.native("grpc", "record_format: protobuf")
		const events = 300
		records, want := make([]*kgo.Record, events), map[string]string{}
		for i := range records {
			partition := int32(i % len(s.p.next))
			id := eventID(partition, s.p.next[partition])
			s.p.next[partition]++
			records[i] = &kgo.Record{Topic: s.topic, Partition: partition, Value: fmt.Appendf(nil, `{"type":"track","event":"Order","message_id":%q,"properties":{`+
				`"geo":{"country":"NL","at":{"lat":52.5,"lon":%d}},"labels":{"n":"%d"},`+
				`"items":[{"sku":"a-%d","n":%d,"options":{"size":{"v":"L"}}},{"sku":"b"}],"stock":{"shop":{"n":%d,"seen":"2025-10-09T08:53:20Z"}}}}`, id, i, i, i, i, i)}
			want[id] = fmt.Sprintf(`{"message_id":%q,"geo":{"country":"NL","at":{"lat":52.5,"lon":%d}},"labels":{"n":"%d"},`+
				`"items":[{"sku":"a-%d","n":%d,"options":{"size":{"v":"L"}}},{"sku":"b"}],"stock":{"shop":{"n":%d,"seen":1760000000000000}}}`, id, i, i, i, i, i)
		}
		ctx, cancel := within()
		defer cancel()
		must(t, s.produce(ctx, records))
		m := s.beginReady("mapping.blueprint=" + file(t, "blueprint.yaml", nestedBlueprint))
		s.complete(m)
		for _, row := range s.ws.table().Rows(nil) {
			id, _ := row.Value("message_id")
			if got := string(row.JSON); got != want[id] {
				t.Fatalf("row %s: got\n%s\nwant\n%s", id, got, want[id])
			}
			if row.Transport != emulator.TransportGRPC {
				t.Fatalf("row %s: came by %s, want gRPC", id, row.Transport)
			}
		}
		s.undisturbed(t, m)
	})
}

func (s *stage) produce(ctx context.Context, records []*kgo.Record) error {
	return s.p.cl.ProduceSync(ctx, records...).FirstErr()
}
