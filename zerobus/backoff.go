package zerobus

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	backoffBase   = 500 * time.Millisecond
	backoffMax    = 30 * time.Second
	retryAfterMax = 10 * time.Minute // a longer wish is a fault of whoever answered
)

// delay returns how long to wait before the given retry (0 is the first). Full
// jitter, so that many partitions that failed together do not come back
// together: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
// A Retry-After is waited out whole, with the first step's jitter on top.
func delay(retry int, retryAfter time.Duration, jitter func(time.Duration) time.Duration) time.Duration {
	if retryAfter > 0 {
		return retryAfter + jitter(backoffBase)
	}
	limit := backoffMax
	if retry < 10 { // beyond, the shift is far past the maximum
		limit = min(backoffMax, backoffBase<<retry)
	}
	return jitter(limit)
}

// fullJitter returns a random duration from 0 to d.
func fullJitter(d time.Duration) time.Duration { return rand.N(d + 1) }

// retryAfter reads the Retry-After header: seconds or an HTTP date (RFC 9110,
// section 10.2.3). What is missing, past or malformed is 0.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if header == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, retryAfterMax)
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), retryAfterMax)
}

// sleep waits for d, or until ctx ends; it reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
