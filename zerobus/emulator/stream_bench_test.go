package emulator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/datafly/bridge/zerobus/emulator"
	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

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
