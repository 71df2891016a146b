package emulator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// Latency is a distribution of waiting times. The zero value is no wait; P50
// alone is that wait every time; both make a log-normal distribution with
// these two quantiles, cut off at ten times P95. The service's documentation
// has spoken of 150 to 200 ms at the median and 500 ms at the 95th percentile
// until a row is durable.
//
// Its text form is that of ParseLatency, in JSON too.
type Latency struct {
	P50, P95 time.Duration
}

// ParseLatency reads "20ms" or "p50=150ms,p95=500ms"; "" is no wait.
func ParseLatency(text string) (Latency, error) {
	var l Latency
	if text == "" {
		return l, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, value, named := strings.Cut(strings.TrimSpace(part), "=")
		dst := &l.P50
		switch {
		case !named && !strings.Contains(text, ","):
			value = name
		case named && name == "p50":
		case named && name == "p95":
			dst = &l.P95
		default:
			return Latency{}, fmt.Errorf("latency %q: write 20ms or p50=150ms,p95=500ms", text)
		}
		d, err := time.ParseDuration(value)
		if err != nil || *dst != 0 {
			return Latency{}, fmt.Errorf("latency %q: write 20ms or p50=150ms,p95=500ms, each once", text)
		}
		*dst = d
	}
	return l, l.validate()
}

func (l Latency) validate() error {
	switch {
	case l.P50 < 0 || l.P95 < 0 || l.P50 > time.Hour || l.P95 > time.Hour:
		return fmt.Errorf("latency %s: want 0 to 1h", l)
	case l.P95 != 0 && (l.P95 < l.P50 || l.P50 == 0):
		return fmt.Errorf("latency %s: p50 must be above 0 and p95 at least as large", l)
	}
	return nil
}

// String is the text that ParseLatency reads.
func (l Latency) String() string {
	if l.P95 == 0 {
		return l.P50.String()
	}
	return "p50=" + l.P50.String() + ",p95=" + l.P95.String()
}

// MarshalText implements encoding.TextMarshaler.
func (l Latency) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Latency) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLatency(string(text))
	return err
}

// z95 is the 95th percentile of the standard normal distribution.
const z95 = 1.6448536269514722

// draw takes one waiting time; normal is a draw from the standard normal
// distribution.
func (l Latency) draw(normal func() float64) time.Duration {
	if l.P95 == 0 || l.P95 == l.P50 {
		return l.P50
	}
	sigma := math.Log(float64(l.P95)/float64(l.P50)) / z95
	d := float64(l.P50) * math.Exp(sigma*normal())
	return time.Duration(min(d, 10*float64(l.P95)))
}

func (l Latency) drawAny() time.Duration { return l.draw(rand.NormFloat64) }
