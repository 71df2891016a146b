package zerobus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/datafly/bridge/zerobus"
)

// table returns Unity Catalog's document of string columns.
func table(names ...string) string {
	var cols []string
	for i, name := range names {
		cols = append(cols, fmt.Sprintf(`{"name":%q,"position":%d,"type_text":"string"}`, name, i))
	}
	return `{"columns":[` + strings.Join(cols, ",") + `]}`
}

// change is one call of Watch's function.
type change struct {
	at    time.Duration
	names string
	err   error
}

// watched reads the columns as start-up does, and collects what Watch reports.
func watched(t *testing.T, b bench, then func([]zerobus.Column, error)) *[]change {
	t.Helper()
	cols, err := b.Columns(t.Context())
	var hidden *zerobus.ColumnsUnreadable
	if err != nil && !errors.As(err, &hidden) {
		t.Fatalf("Columns: %v", err)
	}
	if _, err := b.Encoding(cols); err != nil {
		t.Fatalf("Encoding: %v", err)
	}
	var got []change
	start := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := b.Watch(ctx, func(cols []zerobus.Column, err error) {
			var names []string
			for _, c := range cols {
				names = append(names, c.Name)
			}
			got = append(got, change{time.Since(start), strings.Join(names, " "), err})
			if then != nil {
				then(cols, err)
			}
		}); err != nil {
			t.Errorf("Watch: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return &got
}

func TestWatchReportsChangedColumns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, func(c *zerobus.Config) { c.ColumnsRefresh = 5 * time.Minute })
		b.space.columns = table("a", "b")
		b.SetRowColumns([]zerobus.Column{{Name: "a", Type: "STRING"}})
		var reads atomic.Int64
		b.space.onColumns = func(http.ResponseWriter, *http.Request) bool { reads.Add(1); return false }
		got := watched(t, b, nil)
		after(30 * time.Minute)
		if len(*got) != 0 || reads.Load() < 6 || reads.Load() > 7 {
			t.Errorf("%v was reported after %d readings of the same columns, want nothing after six or so", *got, reads.Load())
		}
		b.space.set(func() { b.space.columns = table("a", "b", "c") })
		after(6 * time.Minute)
		b.space.set(func() { b.space.columns = table("b") })
		after(20 * time.Minute)
		b.space.set(func() { b.space.columns = table("a", "b") })
		after(6 * time.Minute)
		if len(*got) != 3 || (*got)[0].names != "a b c" || (*got)[1].names != "b" || (*got)[2].names != "a b" {
			t.Fatalf("got %v, want each change once", *got)
		}
		var mismatch *zerobus.SchemaError
		if (*got)[0].err != nil || (*got)[2].err != nil || !errors.As((*got)[1].err, &mismatch) {
			t.Errorf("got %v, want an error for the columns that lack one, and no other", *got)
		}
	})
}

func TestWatchOutlivesCatalogThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, func(c *zerobus.Config) { c.ColumnsRefresh = time.Minute })
		var away atomic.Bool
		away.Store(true)
		b.space.onColumns = func(w http.ResponseWriter, _ *http.Request) bool {
			return away.Load() && fail(w, 403, "PERMISSION_DENIED", "no")
		}
		got := watched(t, b, nil)
		after(10 * time.Minute)
		if reported := strings.Count(text(t, b.logs), "cannot be read for the moment"); reported != 1 || len(*got) != 0 {
			t.Errorf("%d lines and %v reported while columns are hidden, want one line and nothing", reported, *got)
		}
		away.Store(false)
		after(2 * time.Minute)
		if len(*got) != 1 || (*got)[0].names != "message_id n" {
			t.Errorf("got %v, want the columns once they can be read", *got)
		}
	})
}

func TestWatchWithoutATimerReportsAfterRefusedRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		b.space.columns = table("a", "b")
		b.SetRowColumns([]zerobus.Column{{Name: "a", Type: "STRING"}})
		got := watched(t, b, nil)
		b.space.set(func() { b.space.columns = table("a", "c") })
		after(24 * time.Hour)
		if len(*got) != 0 {
			t.Errorf("got %v, want nothing: nobody asked", *got)
		}
		b.space.set(func() { b.space.onIngest = answers(400, 400) })
		if err := b.WriteLatest(t.Context(), rows(1)); err == nil {
			t.Errorf("Write of a refused row: nil, want an error")
		}
		synctest.Wait()
		if len(*got) != 1 || (*got)[0].names != "a c" || (*got)[0].err != nil {
			t.Errorf("got %v, want the new columns, which fit", *got)
		}
	})
}

// TestAnAlteredTableUnderGRPC alters the table so that the service opens no
// stream for the old descriptor. Writing blocks, the change is reported, rows get
// their new form, and those of the old one come back to be encoded again, unsent.
func TestAnAlteredTableUnderGRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var altered atomic.Bool
		svc := &service{}
		b := streamed(t, svc, nil)
		b.space.columns = table("a", "b")
		svc.handle = func(_ int, s *served) error {
			if err := s.ask(); err != nil {
				return err
			}
			fields := resolve(t, s.create.GetDescriptorProto()).Fields()
			if altered.Load() && fields.ByName("b") != nil {
				return status.Error(codes.InvalidArgument, "the descriptor has a field the table lacks")
			}
			return errors.Join(s.confirm(), s.take(1), s.signal(nil), s.half())
		}
		got := watched(t, b.bench, func(cols []zerobus.Column, err error) {
			var mismatch *zerobus.SchemaError
			if !errors.As(err, &mismatch) {
				t.Errorf("got %v, want the mismatch", err)
			}
			after := make(chan struct{})
			time.AfterFunc(10*time.Second, func() { close(after) }) // compiling takes its time
			<-after
			if _, err := b.Encoding(cols); err != nil {
				t.Errorf("Encoding: %v", err)
			}
			b.SetRowColumns([]zerobus.Column{{Name: "a", Type: "STRING"}})
		})
		b.SetRowColumns([]zerobus.Column{{Name: "a", Type: "STRING"}, {Name: "b", Type: "STRING"}})
		write(t, b.bench, [][]byte{nil})
		altered.Store(true)
		b.space.set(func() { b.space.columns = table("a") })
		start := time.Now()
		done := inBackground(t.Context(), b.bench, [][]byte{nil})
		after(5 * time.Second)
		if state := b.State(); state.Name != zerobus.Blocked || !strings.Contains(state.Remedy, "ADD COLUMNS (`b` STRING)") {
			t.Errorf("state is %+v, want blocked with the ALTER TABLE line", state)
		}
		var old *zerobus.StaleError
		if err := <-done; !errors.As(err, &old) {
			t.Errorf("Write of rows in the old form: %v, want them back", err)
		}
		write(t, b.bench, [][]byte{nil})
		if got := b.State().Name; got != zerobus.Ready || len(svc.stored()) != 2 {
			t.Errorf("state is %q with %d rows stored, want ready and 2", got, len(svc.stored()))
		}
		if took := time.Since(start); took > 12*time.Second || len(*got) != 1 {
			t.Errorf("rows were taken after %v and %d changes, want soon after the new form is there, and one", took, len(*got))
		}
	})
}
