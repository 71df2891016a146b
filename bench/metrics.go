package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"
)

// metrics are the sums of a scrape's series by name, and the buckets of its
// histograms.
type metrics struct {
	sums    map[string]float64
	buckets map[string][]bucket // by rising bound
}

// bucket is one cumulative bucket of a histogram.
type bucket struct {
	le    float64 // upper bound, +Inf for the last
	count float64
}

// scrapeWithin is how long a bridge may take to answer, on however busy a machine.
const scrapeWithin = time.Minute

// scrape reads the bridge's /metrics. A bridge that does not answer is ended, and
// its log tells where it stood.
func scrape(ctx context.Context, b *running) (*metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeWithin)
	defer cancel()
	text, err := request(ctx, http.MethodGet, "http://"+b.ops+"/metrics", nil)
	if errors.Is(err, context.DeadlineExceeded) {
		b.dump()
	}
	if err != nil {
		return nil, err
	}
	return parseMetrics(text)
}

// parseMetrics reads the Prometheus text format as far as the bridge uses it.
func parseMetrics(text []byte) (*metrics, error) {
	m := &metrics{sums: map[string]float64{}, buckets: map[string][]bucket{}}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q ends in no number", line)
		}
		name, labels, _ := strings.Cut(line[:at], "{")
		m.sums[name] += value
		if name, ok := strings.CutSuffix(name, "_bucket"); ok {
			_, bound, _ := strings.Cut(labels, `le="`)
			bound, _, _ = strings.Cut(bound, `"`)
			le, err := strconv.ParseFloat(bound, 64)
			if err != nil {
				return nil, fmt.Errorf("metrics: %q has no bound", line)
			}
			m.buckets[name] = append(m.buckets[name], bucket{le, value})
		}
	}
	return m, lines.Err()
}

// since returns the buckets of what was observed after an earlier scrape.
func (m *metrics) since(earlier *metrics, name string) []bucket {
	now, then := m.buckets[name], earlier.buckets[name]
	out := make([]bucket, len(now))
	for i, b := range now {
		out[i] = b
		if i < len(then) {
			out[i].count -= then[i].count
		}
	}
	return out
}

// quantile estimates the q-quantile of a histogram by going straight through
// the bucket it falls in, as Prometheus does; 0 when nothing was observed.
func quantile(buckets []bucket, q float64) float64 {
	if len(buckets) == 0 || buckets[len(buckets)-1].count == 0 {
		return 0
	}
	rank := q * buckets[len(buckets)-1].count
	i := sort.Search(len(buckets)-1, func(i int) bool { return buckets[i].count >= rank })
	low, before := 0.0, 0.0
	if i > 0 {
		low, before = buckets[i-1].le, buckets[i-1].count
	}
	if i == len(buckets)-1 { // beyond the last bound nothing more is known
		return low
	}
	return low + (buckets[i].le-low)*(rank-before)/(buckets[i].count-before)
}
