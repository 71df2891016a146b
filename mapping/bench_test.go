package mapping_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/datafly/bridge/mapping"
)

// discard is an Out that keeps its buffer and counts.
type discard struct {
	buf                     []byte
	rows, rejects, filtered int
}

func (d *discard) Buf() []byte           { return d.buf[:0] }
func (d *discard) Row(b []byte)          { d.buf = b; d.rows++ }
func (d *discard) Reject(_, _, _ string) { d.rejects++ }
func (d *discard) Filter(_ string)       { d.filtered++ }

// benchEvents makes n different events of about 1,370 bytes, the mean of
// enriched web traffic.
func benchEvents(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"order_completed", "product_viewed", "Product Added", "search", "video_paused"}
	var out [][]byte
	for i := range n {
		out = append(out, fmt.Appendf(nil, `{"type":"track","event":"%s","message_id":"%08x-7a51-4d0e-9c3b-%012x","user_id":"cust-%d",`+
			`"anonymous_id":"%08x-1d2f-4a6e-8f55-%012x","source_id":"src_7Qm2","integration_id":"int_zb01",`+
			`"timestamp":"2026-03-%02dT09:15:%02d.%03dZ","sent_at":"2026-03-04T09:15:27.600Z","received_at":"2026-03-04T09:15:27.731Z",`+
			`"properties":{"order_id":"A-%d","revenue":%d.5,"currency":"GBP","coupon":null,"products":[{"product_id":"MUG-%d","name":"Stoneware mug, 350 ml","quantity":2,"price":32.25,"category":"kitchen"},{"product_id":"TEA-%d","name":"Oolong \"Spring\" 100 g","quantity":1,"price":18.4,"category":"tea"}]},`+
			`"context":{"ip":"198.51.100.%d","user_agent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36","locale":"en-GB","timezone":"Europe/London",`+
			`"page":{"url":"https://www.teashop.example/checkout/thanks?order=%d","path":"/checkout/thanks","referrer":"https://www.teashop.example/checkout","title":"Thank you for your order | Tea shop","search":"?order=%d"},`+
			`"campaign":{"source":"newsletter","medium":"email","name":"spring"},"consent":{"analytics":true,"marketing":false,"functional":true,"advertising":false},`+
			`"library":{"name":"@datafly/collector","version":"2.3.1"},"device":{"type":"desktop","manufacturer":null,"model":null},"geo":{"country":"GB","region":"England","city":"Leeds"}},`+
			`"vendor_ids":{"ga_client_id":"1887766554.%d"}}`,
			names[i%len(names)], r.Uint32(), r.Uint64N(1<<48), r.IntN(1e6), r.Uint32(), r.Uint64N(1<<48), 1+i%28, i%60, i%1000,
			r.IntN(1e6), r.IntN(500), r.IntN(100), r.IntN(100), r.IntN(256), r.IntN(1e6), r.IntN(1e6), r.IntN(1e9)))
	}
	return out
}

func defaultMapper(tb testing.TB) *mapping.Mapper {
	tb.Helper()
	m, err := mapping.Default().Compile(mapping.Options{ClusterID: "bench"})
	if err != nil {
		tb.Fatal(err)
	}
	return m.NewMapper()
}

func BenchmarkMap(b *testing.B) {
	events := benchEvents(1000)
	mapper, out := defaultMapper(b), &discard{}
	rec := mapping.Record{Topic: "t"}
	b.ReportAllocs()
	b.SetBytes(int64(len(events[0])))
	for i := 0; b.Loop(); i++ {
		rec.Value = events[i%len(events)]
		mapper.Map(&rec, out)
	}
	if out.rejects+out.filtered > 0 {
		b.Fatalf("got %d rejects and %d filtered, want rows only", out.rejects, out.filtered)
	}
}

func TestMapAllocatesNothing(t *testing.T) {
	everything := `version: 2
extends: default
global:
  mappings:
    - {source: properties, target: properties, type: VARIANT}
    - {source: properties.n, target: n, type: BIGINT}
    - {source: properties.d, target: d, type: "DECIMAL(10,2)"}
    - {source: properties.f, target: f, type: DOUBLE}
    - {source: properties.list, target: list, type: ARRAY<STRING>}
    - {source: properties.map, target: map, type: "MAP<STRING,STRING>"}
    - {source: properties.plan, target: plan, transform: [trim, lower], value_map: {gold: 2, "*": 0}, type: INT}
    - {source: properties.mail, target: mail, transform: hash_sha256}
    - {source: properties.tags, target: tags, transform: split}
    - {source: properties.counts, target: counts, type: "MAP<BIGINT,INT>"}
    - {source: properties.place, target: place, type: "STRUCT<city_name:STRING,geo:STRUCT<lat:FLOAT,lon:FLOAT>>"}
    - {source: properties.items, target: items, type: "ARRAY<STRUCT<sku:STRING,data:BINARY,ok:BOOLEAN>>"}
    - {source: timestamp, target: day, type: DATE}
    - {source: $kafka.offset, target: kafka_offset, type: BIGINT}
    - {source: $kafka.headers.tenant, target: tenant}
    - {source: $kafka.key, target: kafka_key, type: BINARY}
`
	consent := mapping.Options{Settings: mapping.Settings{RequireConsent: []string{"analytics"}}, ClusterID: "c"}
	all := benchEvents(100)
	for _, tc := range []struct {
		name      string
		blueprint string
		events    [][]byte
	}{
		{"typical", "", all},
		{"all converters", everything, append([][]byte{[]byte(`{"type":"page","event":"Caf\u00e9 Viewed","userId":7,"timestamp":"2026-03-04T10:15:27.482913+01:00",` +
			`"context":{"consent":{"analytics":"granted"},"userAgent":"a \"b\"","ip":{"v4":["1"]}},"properties":{"n":"9007199254740993","d":12.50,"f":1e3,"list":["a\n",1],"map":{"a":"\u00e9"},"plan":" Gold ","mail":"a@b.example","tags":"a,b",` +
			`"counts":{"1":2,"-3":0},"place":{"city_name":"L\u00e9eds","geo":{"lon":-1.5}},"items":[{"sku":"a\"b","data":"aGk=","ok":true},{}]}}`)}, all...)},
		{"batch", everything, [][]byte{append(append([]byte(`{"batch":[`), bytes.Join(all, []byte(","))...), `]}`...)}},
		{"envelope", everything, [][]byte{append(append([]byte(`{"timestamp":"2026-03-04T09:15:27Z","sentAt":1772615727,"consent":{"analytics":true},"context":{"ip":"203.0.113.9","page":{"url":"u"},"consent":{"categoryPreferences":{"analytics":true}}},`+
			`"batch":[{"type":"x","payload":{}},{"context":{"locale":"de"},"payload":{"type":"x"}},{"type":"x","context":{"page":{"title":"t"}}},`), bytes.Join(all, []byte(","))...), `]}`...)}},
		{"wrapped", everything, [][]byte{append(append([]byte(`{"payload":`), all[0]...), '}')}},
		{"mapped already", everything, [][]byte{[]byte(`{"event_name":"x","EVENT_type":"track","event_timestamp":"2026-03-04T09:15:27.482Z","user_id":null,"n":1}`)}},
		{"derived id", everything, [][]byte{[]byte(`{"type":"track","event":"Ärger Gemeldet"}`)}},
		{"filtered", everything, [][]byte{[]byte(`{"type":"track","context":{"consent":{"analytics":false}}}`)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := twinsOf(t, tc.blueprint, consent)
			for format, mapper := range map[string]*mapping.Mapper{"JSON": w.json, "protobuf": w.protobuf} {
				out := &discard{}
				rec := *recordAt(nil)
				run := func() {
					for _, e := range tc.events {
						rec.Value = e
						mapper.Map(&rec, out)
					}
				}
				run()
				if out.rejects > 0 || out.rows+out.filtered == 0 {
					t.Fatalf("%s: got %d rejects, %d rows, %d filtered, want no rejects", format, out.rejects, out.rows, out.filtered)
				}
				if got := testing.AllocsPerRun(20, run); got != 0 {
					t.Errorf("%s: got %v allocations for %d records, want 0", format, got, len(tc.events))
				}
			}
		})
	}
}
