package zerobus_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/zerobus"
)

// byRow lets a hook distinguish writers: each writes one row of its own number.
func byRow(rows []json.RawMessage) string {
	var doc struct{ N json.Number }
	if len(rows) != 1 || json.Unmarshal(rows[0], &doc) != nil {
		return ""
	}
	return doc.N.String()
}

func TestAnAckOfARequestFromBeforeDoesNotEndABlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		hold := make(chan struct{})
		var fixed atomic.Bool
		b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, rows []json.RawMessage) bool {
			if byRow(rows) == "1" {
				<-hold
				return false
			}
			return !fixed.Load() && fail(w, 403, "PERMISSION_DENIED", "no")
		}
		early := inBackground(t.Context(), b, [][]byte{row(1)})
		synctest.Wait()
		late := inBackground(t.Context(), b, [][]byte{row(2)})
		synctest.Wait()
		close(hold)
		if err := <-early; err != nil {
			t.Errorf("Write: %v", err)
		}
		if got := b.State().Name; got != zerobus.Blocked {
			t.Errorf("state is %q after an ack of an older request, want blocked", got)
		}
		fixed.Store(true)
		if err := <-late; err != nil {
			t.Errorf("Write: %v", err)
		}
	})
}

func TestAFaultFromBeforeTheFixDoesNotBlockAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, func(c *zerobus.Config) { c.Timeout = 10 * time.Minute })
		hold := make(chan struct{})
		held := false
		var fixed atomic.Bool
		b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, rows []json.RawMessage) bool {
			if byRow(rows) == "1" && !held {
				held = true
				<-hold
				return fail(w, 403, "PERMISSION_DENIED", "no")
			}
			return !fixed.Load() && fail(w, 403, "PERMISSION_DENIED", "no")
		}
		early := inBackground(t.Context(), b, [][]byte{row(1)})
		synctest.Wait()
		late := inBackground(t.Context(), b, [][]byte{row(2)})
		synctest.Wait()
		fixed.Store(true)
		if err := <-late; err != nil {
			t.Errorf("Write: %v", err)
		}
		start := time.Now()
		close(hold)
		if err := <-early; err != nil {
			t.Errorf("Write: %v", err)
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("the older writer resumed after %v, want at once", got)
		}
		if got := strings.Count(text(t, b.logs), "is blocked"); got != 1 {
			t.Errorf("%d blocked phases, want 1", got)
		}
	})
}

func TestAReplacedSecretBringsANewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var secret atomic.Value
		secret.Store(secretOne)
		b := virtual(t, func(c *zerobus.Config) {
			c.ReadCredential = func() (string, error) { return secret.Load().(string), nil }
		})
		b.space.onIngest = func(w http.ResponseWriter, r *http.Request, _ []json.RawMessage) bool {
			return strings.HasSuffix(r.Header.Get("Authorization"), "token-1-of-test") && fail(w, 403, "PERMISSION_DENIED", "no")
		}
		done := inBackground(t.Context(), b, rows(1))
		after(10 * time.Second)
		b.space.set(func() { b.space.secret = secretTwo })
		secret.Store(secretTwo)
		start := time.Now()
		if err := <-done; err != nil {
			t.Errorf("Write: %v", err)
		}
		if got := time.Since(start); got > time.Second {
			t.Errorf("writing resumed %v after the secret was replaced, want within a second and with its token", got)
		}
	})
}

func TestHealthyMeansThatNobodyRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		var up atomic.Bool
		b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, rows []json.RawMessage) bool {
			return byRow(rows) == "1" && !up.Load() && fail(w, 503, "TEMPORARILY_UNAVAILABLE", "later")
		}
		failing := inBackground(t.Context(), b, [][]byte{row(1)})
		synctest.Wait()
		write(t, b, [][]byte{row(2)})
		if got := b.State().Name; got != zerobus.Retrying {
			t.Errorf("state is %q while one writer retries, want retrying", got)
		}
		up.Store(true)
		if err := <-failing; err != nil {
			t.Errorf("Write: %v", err)
		}
		if got := b.State().Name; got != zerobus.Ready {
			t.Errorf("state is %q when nobody retries, want ready", got)
		}
	})
}

func TestAWriterThatGaveUpDoesNotKeepTheStateBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, rows []json.RawMessage) bool {
			return byRow(rows) == "1" && fail(w, 503, "TEMPORARILY_UNAVAILABLE", "later")
		}
		ctx, cancel := withCancel(t)
		failing := inBackground(ctx, b, [][]byte{row(1)})
		synctest.Wait()
		cancel()
		if err := <-failing; err == nil {
			t.Errorf("Write of a cancelled caller: nil, want an error")
		}
		write(t, b, [][]byte{row(2)})
		if got := b.State().Name; got != zerobus.Ready {
			t.Errorf("state is %q after an ack with nobody retrying, want ready", got)
		}
	})
}

func TestAnAnswerToHalfABodyIsNoAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := newWorkspace()
		hasty := 0
		c, err := zerobus.NewOver(config("https://abc.cloud.databricks.com"), zap.NewNop(), nil, roundTrip(func(r *http.Request) (*http.Response, error) {
			if hasty == 0 && strings.HasSuffix(r.URL.Path, "/ingest") {
				hasty++
				if _, err := r.Body.Read(make([]byte, 20)); err != nil {
					t.Errorf("reading the body: %v", err)
				}
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
			}
			return inMemory{space}.RoundTrip(r)
		}))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WriteLatest(t.Context(), rows(3)); err != nil {
			t.Errorf("Write: %v", err)
		}
		if got := len(space.stored()); got != 3 || hasty != 1 {
			t.Errorf("%d rows stored after %d hasty answers, want 3 and 1", got, hasty)
		}
	})
}

// The one attempt that a new secret is given may meet an outage. The secret is
// not new any more then, and must not wait out the pause of a fault that
// that is not fixed.
func TestAProbeThatMeetsAnOutageIsRepeatedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var secret atomic.Value
		secret.Store("wrong-secret-of-old")
		var away atomic.Int64
		b := virtual(t, func(c *zerobus.Config) {
			c.ReadCredential = func() (string, error) { return secret.Load().(string), nil }
		})
		b.space.onToken = func(w http.ResponseWriter, _ *http.Request) bool {
			return away.Add(-1) >= 0 && fail(w, 503, "TEMPORARILY_UNAVAILABLE", "no")
		}
		var all []<-chan error
		for range 10 {
			all = append(all, inBackground(t.Context(), b, rows(1)))
			synctest.Wait()
		}
		after(2100 * time.Millisecond)
		if got := b.State().Name; got != zerobus.Blocked {
			t.Fatalf("state is %q, want blocked", got)
		}
		away.Store(1)
		secret.Store(secretOne)
		at := time.Now()
		for _, done := range all {
			if err := <-done; err != nil {
				t.Errorf("Write: %v", err)
			}
		}
		if got := time.Since(at); got > 10*time.Second {
			t.Errorf("the new secret was used after %v, want soon after the outage", got)
		}
	})
}
