package emulator_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

// pageRow is a row as the default blueprint makes it of a page event, of about
// 500 bytes of JSON.
const pageRow = `{"event_name":"page_viewed","event_type":"page","message_id":"%08x-7d3f-4c55-9d13-0c5d1a2b3c4d","user_id":"user-1234567","anonymous_id":"5f1d7a84-2f1c-4a53-a11e-79b0c7e2a001","event_timestamp":1760000000000000,"ip_address":"203.0.113.7","user_agent":"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15","locale":"en-GB","timezone":"Europe/London","page_url":"https://shop.example.com/products/42?utm_source=newsletter","page_referrer":"https://www.example.org/","source_id":"src_web_01"}`

// replay is a request body that can be sent again and again; each time its
// message ids are new.
type replay struct {
	body []byte
	ids  []int
	next int
}

func newReplay(rows int) *replay {
	var b strings.Builder
	r := &replay{}
	b.WriteString(`{"table":"` + stream + `","records":[`)
	for i := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		r.ids = append(r.ids, b.Len()+strings.Index(pageRow, "%08x"))
		fmt.Fprintf(&b, pageRow, 0)
	}
	b.WriteString("]}")
	r.body = []byte(b.String())
	return r
}

func (r *replay) fresh() []byte {
	const hex = "0123456789abcdef"
	for _, at := range r.ids {
		n := r.next
		for k := range 8 {
			r.body[at+7-k] = hex[n&15]
			n >>= 4
		}
		r.next++
	}
	return r.body
}

// BenchmarkIngest measures the cost per row of the whole request without a
// network: reading, validating, indexing and storing. MaxRows is what bridge
// emulator takes by default.
func BenchmarkIngest(b *testing.B) {
	const rows = 1000
	e, post := bare(b, emulator.Config{MaxRows: 100_000})
	r := newReplay(rows)
	b.SetBytes(int64(len(r.body)))
	b.ReportAllocs()
	for b.Loop() {
		if got := post(emulator.IngestPath, "application/json", r.fresh()); got.status != 200 {
			b.Fatalf("got %d %s", got.status, got.body)
		}
	}
	perRow(b, rows)
	if got, want := e.Table(stream).Distinct("message_id"), e.Table(stream).Count(); got != want {
		b.Fatalf("distinct: got %d, want %d", got, want)
	}
}

// BenchmarkIngestOverHTTP is the same over a loopback connection, client
// included.
func BenchmarkIngestOverHTTP(b *testing.B) {
	const rows = 1000
	w := start(b, emulator.Config{MaxRows: 100_000})
	r, auth := newReplay(rows), w.bearer()
	b.SetBytes(int64(len(r.body)))
	for b.Loop() {
		req, err := http.NewRequest("POST", w.URL()+emulator.IngestPath, strings.NewReader(string(r.fresh())))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", auth)
		res, err := w.client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
			b.Fatalf("got %d, %v", res.StatusCode, err)
		}
		res.Body.Close()
	}
	perRow(b, rows)
}

func perRow(b *testing.B, rows int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
}

// BenchmarkStream is what BenchmarkIngestOverHTTP is, by gRPC: the cost per
// row of a batch over a loopback connection, client included, four batches in
// flight.
func BenchmarkStream(b *testing.B) {
	const rows, window = 1000, 4
	d := resolve(b, pageDescriptor())
	for _, format := range []string{"protobuf", "json"} {
		b.Run(format, func(b *testing.B) {
			z := startZerobus(b, emulator.Config{MaxRows: 100_000, AckEvery: 1})
			create := jsonCreate(stream)
			if format == "protobuf" {
				create = protoCreate(b, stream, pageDescriptor())
			}
			s := z.open(create)
			const slot = "%08x"
			text := fmt.Sprintf(pageRow, 0)
			id := fmt.Sprintf(slot, 0)
			row := []byte(text)
			if format == "protobuf" {
				row = encode(b, d, text)
			}
			at := strings.Index(string(row), id)
			batch := make([][]byte, rows)
			n, offset, size := 0, int64(0), 0
			message := func() *pb.EphemeralStreamRequest {
				texts := make([]string, 0, rows)
				for i := range batch {
					if batch[i] == nil {
						batch[i] = append([]byte(nil), row...)
						size += len(row)
					}
					copy(batch[i][at:], fmt.Sprintf(slot, n))
					n++
					texts = append(texts, string(batch[i]))
				}
				offset++
				if format == "protobuf" {
					return protoBatch(offset-1, batch...)
				}
				return jsonBatch(offset-1, texts...)
			}
			b.ReportAllocs()
			for b.Loop() {
				s.send(message())
				if offset > window {
					s.ack(offset - 1 - window)
				}
			}
			s.ack(offset - 1)
			b.SetBytes(int64(size))
			perRow(b, rows)
			if got, want := z.Table(stream).Distinct("message_id"), z.Table(stream).Count(); got != want {
				b.Fatalf("distinct: got %d, want %d", got, want)
			}
		})
	}
}
