package zerobus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus"
)

// after waits in the bubble's virtual time.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestAConfigurationFaultBlocksAllWritersAndOneProbes(t *testing.T) {
	for _, tt := range []struct {
		status       int
		code, remedy string
	}{
		{403, "PERMISSION_DENIED", "GRANT SELECT, MODIFY ON TABLE `datafly`.`events`.`stream` TO `" + principal + "`;"},
		{404, "TABLE_DOES_NOT_EXIST", "check the full name catalog.schema.table"},
		{404, "ENDPOINT_NOT_FOUND", "zerobus.transport to auto"},
		{501, "NOT_IMPLEMENTED", "managed Delta table"},
		{401, "UNAUTHENTICATED", "is in the workspace"},
		{302, "", "zerobus.workspace_url"},
		{405, "", "what stands between"},
	} {
		t.Run(fmt.Sprint(tt.status, tt.code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, nil)
				start := time.Now()
				var fixed atomic.Bool
				b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, _ []json.RawMessage) bool {
					w.Header().Set("Location", "https://elsewhere.example/")
					return !fixed.Load() && fail(w, tt.status, tt.code, "no")
				}
				// One writer meets the fault; 299 more come while it is known.
				all := []<-chan error{inBackground(t.Context(), b, rows(2))}
				synctest.Wait()
				for range 299 {
					all = append(all, inBackground(t.Context(), b, rows(2)))
				}
				first := len(b.space.arrivals()) // 2 for a 401, else 1
				after(95 * time.Second)
				if got, want := len(b.space.arrivals()), 4*first; got != want {
					t.Errorf("%d requests in 95 s, want %d: the first and three probes", got, want)
				}
				state := b.State()
				if state.Name != zerobus.Blocked || !state.Since.Equal(start) {
					t.Errorf("state is %q since %v, want blocked since the start", state.Name, state.Since)
				}
				if !strings.Contains(state.Remedy, tt.remedy) {
					t.Errorf("remedy is %q, want it to hold %q", state.Remedy, tt.remedy)
				}
				if !strings.Contains(state.Reason, fmt.Sprint(tt.status)) {
					t.Errorf("reason is %q, want it to name status %d", state.Reason, tt.status)
				}
				fixed.Store(true)
				for _, done := range all {
					if err := <-done; err != nil {
						t.Errorf("Write: %v", err)
					}
				}
				if got, want := time.Since(start), 2*time.Minute; got != want {
					t.Errorf("writing resumed after %v, want at the fourth probe, %v", got, want)
				}
				if got := len(b.space.stored()); got != 600 {
					t.Errorf("%d rows stored, want 600", got)
				}
				reported := text(t, b.logs)
				if begun, ended := strings.Count(reported, "is blocked"), strings.Count(reported, "accepts rows again"); begun != 1 || ended != 1 {
					t.Errorf("%d lines when it began and %d when it ended, want 1 and 1:\n%s", begun, ended, reported)
				}
				if got := b.State().Name; got != zerobus.Ready {
					t.Errorf("state is %q in the end, want ready", got)
				}
			})
		})
	}
}

func TestAFaultOfAllWritersIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		var fixed atomic.Bool
		hold := make(chan struct{})
		b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, _ []json.RawMessage) bool {
			<-hold
			return !fixed.Load() && fail(w, 403, "PERMISSION_DENIED", "no")
		}
		var all []<-chan error
		for range 50 {
			all = append(all, inBackground(t.Context(), b, rows(1)))
		}
		synctest.Wait()
		close(hold)
		synctest.Wait()
		fixed.Store(true)
		for _, done := range all {
			if err := <-done; err != nil {
				t.Errorf("Write: %v", err)
			}
		}
		if got := strings.Count(text(t, b.logs), "is blocked"); got != 1 {
			t.Errorf("%d lines about the block, want 1", got)
		}
	})
}

func TestAnExpiredTokenIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		write(t, b, rows(1))
		b.space.set(func() { clear(b.space.tokens) })
		var all []<-chan error
		for range 100 {
			all = append(all, inBackground(t.Context(), b, rows(1)))
		}
		for _, done := range all {
			if err := <-done; err != nil {
				t.Errorf("Write: %v", err)
			}
		}
		if got := b.space.mints(); got != 2 {
			t.Errorf("%d tokens minted, want 2: one at first, one for all who met the 401", got)
		}
		if reported := text(t, b.logs); reported != "" {
			t.Errorf("an expired token was logged: %s", reported)
		}
	})
}

func TestAReplacedSecretIsTriedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var secret atomic.Value
		secret.Store("wrong-secret-of-old")
		var reads atomic.Int64
		b := virtual(t, func(c *zerobus.Config) {
			c.ReadCredential = func() (string, error) { reads.Add(1); return secret.Load().(string), nil }
		})
		var all []<-chan error
		for range 10 {
			all = append(all, inBackground(t.Context(), b, rows(1)))
			synctest.Wait()
		}
		after(10*time.Second + 100*time.Millisecond)
		if got := b.State(); got.Name != zerobus.Blocked || !strings.Contains(got.Remedy, "generate a new OAuth secret") {
			t.Errorf("state is %+v, want blocked with the advice to generate a secret", got)
		}
		if got := reads.Load(); got > 15 {
			t.Errorf("the secret was read %d times in 10 s, want about once a second however many wait", got)
		}
		secret.Store(secretOne)
		at := time.Now()
		for _, done := range all {
			if err := <-done; err != nil {
				t.Errorf("Write: %v", err)
			}
		}
		if got := time.Since(at); got > time.Second {
			t.Errorf("the new secret was used after %v, want within a second", got)
		}
		if b.obs.failed != 1 || b.obs.mints != 2 {
			t.Errorf("%d mints, %d failed, want 2 and 1", b.obs.mints, b.obs.failed)
		}
	})
}

func TestAnUnreadableSecretBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var there atomic.Bool
		b := virtual(t, func(c *zerobus.Config) {
			c.ReadCredential = func() (string, error) {
				if !there.Load() {
					return "", errors.New("open client.secret: no such file")
				}
				return secretOne, nil
			}
		})
		done := inBackground(t.Context(), b, rows(1))
		synctest.Wait()
		if got := b.State(); got.Name != zerobus.Blocked || !strings.Contains(got.Reason, "no such file") {
			t.Errorf("state is %+v, want blocked naming the file", got)
		}
		there.Store(true)
		if err := <-done; err != nil {
			t.Errorf("Write: %v", err)
		}
	})
}

func TestAWaitingProberThatLeavesIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		var fixed atomic.Bool
		b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, _ []json.RawMessage) bool {
			return !fixed.Load() && fail(w, 403, "PERMISSION_DENIED", "no")
		}
		ctx, cancel := withCancel(t)
		leaver := inBackground(ctx, b, rows(1)) // becomes the prober: it met the fault
		synctest.Wait()
		stayer := inBackground(t.Context(), b, rows(1))
		after(5 * time.Second)
		cancel()
		if err := <-leaver; err == nil {
			t.Errorf("Write of a cancelled caller: nil, want an error")
		}
		fixed.Store(true)
		start := time.Now()
		if err := <-stayer; err != nil {
			t.Errorf("Write: %v", err)
		}
		if got, want := time.Since(start), 25*time.Second; got != want {
			t.Errorf("the probe came after %v, want %v: the time of the next probe stays", got, want)
		}
	})
}

// However many bad rows came before, and however lately the table was found to
// fit: a row that is refused for a dropped column is not given up.
func TestAColumnDroppedAmongBadRowsGivesUpNoGoodRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		b.SetRowColumns(rowColumns)
		var dropped atomic.Bool
		b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, rows []json.RawMessage) bool {
			bad := dropped.Load() || strings.Contains(string(rows[0]), `"bad"`)
			return bad && fail(w, 400, "INVALID_PARAMETER_VALUE", "row 0 is refused")
		}
		bad := [][]byte{[]byte(`{"message_id":"bad","n":1}`)}
		for i := range 30 {
			var no *zerobus.RefusedError
			if err := b.WriteLatest(t.Context(), bad); !errors.As(err, &no) {
				t.Fatalf("bad row %d: got %v, want it refused", i, err)
			}
		}
		whole := b.space.columns
		b.space.set(func() { b.space.columns = `{"columns":[{"name":"message_id","position":0,"type_text":"string"}]}` })
		dropped.Store(true)
		var all []<-chan error
		for range 30 {
			all = append(all, inBackground(t.Context(), b, rows(1)))
		}
		after(2 * time.Second)
		if got := b.State(); got.Name != zerobus.Blocked {
			t.Errorf("state is %+v, want blocked", got)
		}
		b.space.set(func() { b.space.columns = whole })
		dropped.Store(false)
		for i, done := range all {
			if err := <-done; err != nil {
				t.Errorf("good row %d: got %v, want it written once the column is back", i, err)
			}
		}
	})
}

func TestAColumnDroppedInMidRunBlocksAndGivesUpNoRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		b.SetRowColumns(rowColumns)
		write(t, b, rows(1))
		whole := b.space.columns
		var dropped atomic.Bool
		dropped.Store(true)
		var reads atomic.Int64
		b.space.set(func() {
			b.space.columns = `{"columns":[{"name":"message_id","position":0,"type_text":"string"}]}`
			b.space.onColumns = func(http.ResponseWriter, *http.Request) bool { reads.Add(1); return false }
			b.space.onIngest = func(w http.ResponseWriter, _ *http.Request, rows []json.RawMessage) bool {
				return dropped.Load() && fail(w, 400, "INVALID_PARAMETER_VALUE", "unrecognized field name 'n'")
			}
		})
		var all []<-chan error
		for range 100 {
			all = append(all, inBackground(t.Context(), b, rows(1)))
		}
		after(45 * time.Second)
		want := "ALTER TABLE `datafly`.`events`.`stream` ADD COLUMNS (`n` BIGINT);"
		if got := b.State(); got.Name != zerobus.Blocked || !strings.Contains(got.Remedy, want) {
			t.Errorf("state is %+v, want blocked with %s", got, want)
		}
		// Ten at once, since all refusals are of one instant, then shared; and
		// the probes of what is blocked.
		if got := reads.Load(); got > 16 {
			t.Errorf("columns were read %d times for 100 refusals, want at most the ten that may be at once and a few", got)
		}
		b.space.set(func() { b.space.columns = whole })
		dropped.Store(false)
		for _, done := range all {
			if err := <-done; err != nil {
				t.Errorf("Write: %v", err)
			}
		}
		if got := len(b.space.stored()); got != 101 {
			t.Errorf("%d rows stored, want 101", got)
		}
	})
}

func TestRefusalsOfBatchesShareOneReadingOfColumns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		b.SetRowColumns(rowColumns)
		reads := 0
		b.space.onColumns = func(http.ResponseWriter, *http.Request) bool { reads++; return false }
		b.space.onIngest = answers(slices.Repeat([]int{400}, 100)...)
		refuse := func(n, times int) {
			t.Helper()
			for range times {
				var no *zerobus.RefusedError
				if err := b.WriteLatest(t.Context(), rows(n)); !errors.As(err, &no) {
					t.Fatalf("Write: %v, want a refusal", err)
				}
			}
		}
		refuse(8, 10)
		if reads != 1 {
			t.Errorf("%d readings for ten refused batches, want 1", reads)
		}
		began := time.Now()
		refuse(1, 21) // each is final and has a reading of its own, but there are ten a second
		if took := time.Since(began); reads != 22 || took < 2*time.Second || took > 3*time.Second {
			t.Errorf("%d readings after 21 refused rows in %v, want 22 in two seconds or so, one of them before the first repeat", reads, took)
		}
		known := reads
		after(6 * time.Second)
		refuse(8, 1)
		if reads != known+1 {
			t.Errorf("%d readings after 6 s, want %d: the old verdict is stale", reads, known+1)
		}
	})
}

func TestColumnsThatCannotBeReadDoNotDelayARefusal(t *testing.T) {
	for _, status := range []int{403, 404, 500} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, nil)
				b.SetRowColumns(rowColumns)
				b.space.onColumns = func(w http.ResponseWriter, _ *http.Request) bool { return fail(w, status, "X", "no") }
				b.space.onIngest = answers(slices.Repeat([]int{400}, 100)...)
				start := time.Now()
				var no *zerobus.RefusedError
				if err := b.WriteLatest(t.Context(), rows(1)); !errors.As(err, &no) {
					t.Errorf("Write: %v, want a refusal", err)
				}
				if got := time.Since(start); got > 20*time.Second {
					t.Errorf("the refusal took %v, want at most 20s", got)
				}
			})
		})
	}
}
