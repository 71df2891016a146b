package zerobus_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// BenchmarkStreams writes from 16 partitions, one batch of 1,000 rows of some
// 400 bytes each at a time, over more and more shared streams. At the ack
// latency that Databricks publishes (p50 150 ms, p95 500 ms) the latency rules;
// at none the processor does.
func BenchmarkStreams(b *testing.B) {
	for name, latency := range map[string]emulator.Latency{"ack-p50-150ms": {P50: 150 * time.Millisecond, P95: 500 * time.Millisecond}, "ack-at-once": {}} {
		for _, streams := range []int{1, 2, 4, 8} {
			b.Run(fmt.Sprintf("%s/streams-%d", name, streams), func(b *testing.B) {
				l := alive(b, "grpc", emulator.Config{Latency: latency, AckInterval: time.Millisecond, MaxRows: 1}, func(c *zerobus.Config) { c.Streams = streams })
				const partitions, size = 16, 1000
				rows := make([][]byte, size)
				for i := range rows {
					rows[i] = l.row(fmt.Sprintf("%0370d", i), i, false)
				}
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for p := range partitions {
					wg.Go(func() {
						for n := p; n < b.N; n += partitions {
							if err := l.WriteLatest(b.Context(), rows); err != nil {
								b.Errorf("Write: %v", err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)*size/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// BenchmarkPoison writes from 16 partitions, batches of 1,000 rows of which one
// in 10,000 can never be ingested, at an ack latency of 20 ms: what the search
// for bad rows costs everybody.
func BenchmarkPoison(b *testing.B) {
	for _, streams := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("streams-%d", streams), func(b *testing.B) {
			l := alive(b, "grpc", emulator.Config{Latency: emulator.Latency{P50: 20 * time.Millisecond, P95: 40 * time.Millisecond},
				AckInterval: time.Millisecond, MaxRows: 1}, func(c *zerobus.Config) { c.Streams = streams })
			const partitions, size = 16, 1000
			rows := make([][]byte, size)
			for i := range rows {
				rows[i] = l.row(fmt.Sprintf("%0370d", i), i, false)
			}
			damaged := append([][]byte(nil), rows...)
			damaged[777] = l.row("poison", 0, true)
			b.ResetTimer()
			var wg sync.WaitGroup
			for p := range partitions {
				wg.Go(func() {
					for n := p; n < b.N; n += partitions {
						batch := rows
						if n%10 == 7 {
							batch = damaged
						}
						if bad, err := l.deliver(b.Context(), batch); err != nil || len(bad) > 1 {
							b.Errorf("deliver: %v, %d bad rows", err, len(bad))
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)*size/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(l.em.Stats().StreamsOpened)/(float64(b.N)/10), "streams/bad-row")
		})
	}
}
