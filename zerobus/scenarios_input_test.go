package zerobus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// TestInputFromTheRealService is what the service and its users are known to
// come up with, before the emulator, where no test nearer to the wire has it.
func TestInputFromTheRealService(t *testing.T) {
	t.Run("tables", tableInput)
	t.Run("sizes", sizeInput)
	t.Run("columns", columnInput)
	t.Run("connections", connectionInput)
}

// tableInput has two clients in one process, each with a table of its own.
func tableInput(t *testing.T) {
	const other = "datafly.events.other"
	ddl := targetDDL + strings.ReplaceAll(targetDDL, target, other)
	scenario(t, "two_in_one_process", func(t *testing.T) {
		one := staged(t, emulator.Config{DDL: ddl}, nil)
		two := client(t, one.em, inMemory{one.em.Handler()}, one.dial, func(c *zerobus.Config) { c.Table = "other" })
		var all []<-chan error
		for i := range 20 {
			all = append(all, inBackground(t.Context(), one.bench, [][]byte{row(i)}), inBackground(t.Context(), two.bench, [][]byte{row(100 + i)}))
		}
		succeed(t, all...)
		for name, from := range map[string]int{target: 0, other: 100} {
			table := one.em.Table(name)
			if table.Count() != 20 || table.Distinct("message_id") != 20 {
				t.Errorf("%s has %d rows, want its own 20", name, table.Count())
			}
			for _, r := range table.Rows(nil) {
				var n int
				if text, _ := r.Value("n"); scan(text, &n) != nil || n < from || n >= from+20 {
					t.Errorf("%s holds row %s of the other", name, text)
				}
			}
		}
		one.minted(t, 2) // tokens are bound to a table
	})
	scenario(t, "one_blocked_the_other_goes_on", func(t *testing.T) {
		one := staged(t, emulator.Config{DDL: ddl}, nil)
		two := client(t, one.em, inMemory{one.em.Handler()}, one.dial, func(c *zerobus.Config) { c.Table = "other" })
		if err := one.em.Revoke(emulator.PrivilegeModify, target); err != nil {
			t.Fatal(err)
		}
		held := one.begin(t.Context(), rows(1))
		write(t, two.bench, rows(3))
		if got := [2]string{one.State().Name, two.State().Name}; got != [2]string{zerobus.Blocked, zerobus.Ready} {
			t.Errorf("states are %q, want blocked and ready", got)
		}
		if err := one.em.Grant(emulator.PrivilegeModify, target); err != nil {
			t.Fatal(err)
		}
		succeed(t, held)
	})
}

func scan(text string, n *int) error {
	_, err := fmt.Sscan(text, n)
	return err
}

// sizeInput are rows and batches over the bounds of a message, on every
// transport: a batch is split, a row is refused alone.
func sizeInput(t *testing.T) {
	for _, transport := range transports {
		scenario(t, transport, func(t *testing.T) {
			s := staged(t, emulator.Config{}, func(c *zerobus.Config) {
				c.Transport = strings.TrimSuffix(transport, "-json")
				if transport == "grpc-json" {
					c.RecordFormat = zerobus.FormatJSON
				}
			})
			l := live{Client: s.Client, em: s.em}
			if err := l.prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			big := func(n, size int) []byte { return l.row(fmt.Sprint(n, "-", strings.Repeat("x", size)), n, false) }
			batch := [][]byte{big(0, 3<<20), big(1, 4<<20), big(2, 10<<20), big(3, 3<<20), big(4, 1<<20), big(5, 10)}
			bad, err := l.deliver(t.Context(), batch)
			if err != nil || !slices.Equal(bad, []int{2}) {
				t.Errorf("deliver: %v, bad rows %v, want [2]", err, bad)
			}
			var got []string
			for _, r := range s.rows() {
				n, _ := r.Value("n")
				got = append(got, n)
			}
			if want := []string{"0", "1", "3", "4", "5"}; !slices.Equal(got, want) {
				t.Errorf("rows %q are stored, want %q", got, want)
			}
			isRefused(t, s.WriteLatest(t.Context(), batch[2:3]), zerobus.RefusedTooLarge)
			s.quiet(t)
		})
	}
}

// columnInput are tables that are wide, odd, or altered.
func columnInput(t *testing.T) {
	scenario(t, "two_thousand", func(t *testing.T) {
		var cols, fields []string
		for i := range 2000 {
			cols = append(cols, fmt.Sprintf("c%d STRING", i))
			fields = append(fields, fmt.Sprintf(`"c%d":"v%d"`, i, i))
		}
		s := staged(t, emulator.Config{DDL: "CREATE TABLE datafly.events.stream (" + strings.Join(cols, ",") + ") USING DELTA;"}, nil)
		text := "{" + strings.Join(fields, ",") + "}"
		write(t, s.bench, [][]byte{encoded(t, s, text)})
		s.opened(t, "PROTO")
		s.same(t, text)
	})
	// Names that would be keywords, or differ by case or underscores only where
	// a generator would fold them.
	scenario(t, "odd_names", func(t *testing.T) {
		s := staged(t, emulator.Config{DDL: "CREATE TABLE datafly.events.stream (`select` STRING, _ STRING, __a STRING, a_b STRING, aB STRING, message STRING, Entry MAP<STRING,STRING>, entry_entry STRING) USING DELTA;"}, nil)
		text := `{"select":"1","_":"2","__a":"3","a_b":"4","aB":"5","message":"6","Entry":{"k":"8"},"entry_entry":"9"}`
		write(t, s.bench, [][]byte{encoded(t, s, text)})
		s.opened(t, "PROTO")
		s.same(t, text)
	})
	for name, c := range map[string][2]string{
		"arrays_in_arrays": {"x ARRAY<ARRAY<INT>>", `{"x":[[1,2],[]]}`},
		"maps_in_arrays":   {"x ARRAY<MAP<STRING,INT>>", `{"x":[{"a":1}]}`},
		"arrays_in_maps":   {"x MAP<STRING,ARRAY<INT>>", `{"x":{"a":[1,2]}}`},
		"maps_in_maps":     {"x MAP<STRING,MAP<STRING,INT>>", `{"x":{"a":{"b":1}}}`},
	} {
		scenario(t, "nested_collections/"+name, func(t *testing.T) {
			s := staged(t, emulator.Config{DDL: "CREATE TABLE datafly.events.stream (" + c[0] + ") USING DELTA;"}, nil)
			l := live{Client: s.Client, em: s.em}
			if err := l.prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			write(t, s.bench, [][]byte{[]byte(c[1])})
			s.opened(t, "JSON")
			s.same(t, c[1])
		})
	}
	for _, format := range []string{zerobus.FormatProtobuf, zerobus.FormatJSON} {
		scenario(t, "altered/"+format+"/added", func(t *testing.T) {
			s, rows := altering(t, format)
			write(t, s.bench, rows("1"))
			if err := s.em.Table(target).AddColumn(emulator.Column{Name: "c", Type: "STRING"}); err != nil {
				t.Fatal(err)
			}
			write(t, s.bench, rows("2")) // the old form still fits
			after(2 * time.Minute)       // until the columns were read again
			write(t, s.bench, rows("3"))
			got := s.rows()
			if text, ok := got[2].Value("c"); len(got) != 3 || !ok || text != "3" {
				t.Errorf("%d rows stored and the last one has c %q, want 3 and the new column", len(got), text)
			}
			s.quiet(t)
		})
		scenario(t, "altered/"+format+"/dropped", func(t *testing.T) {
			s, rows := altering(t, format)
			write(t, s.bench, rows("1"))
			if err := s.em.Table(target).DropColumn("b"); err != nil {
				t.Fatal(err)
			}
			err := s.WriteLatest(t.Context(), rows("2"))
			var stale *zerobus.StaleError
			if !errors.As(err, &stale) {
				t.Fatalf("Write: %v, want rows that are stale: they were made for a column that is gone", err)
			}
			write(t, s.bench, rows("2"))
			if got := s.em.Table(target).Count(); got != 2 {
				t.Errorf("%d rows stored, want 2", got)
			}
			if got := s.State().Name; got != zerobus.Ready {
				t.Errorf("state is %q, want ready", got)
			}
		})
	}
}

// altering is a stage that does what the wiring does when the table changes:
// rows carry every column there is. rows returns one row for the columns that
// rows are encoded for at the time.
func altering(t *testing.T, format string) (s stage, rows func(text string) [][]byte) {
	t.Helper()
	s = staged(t, emulator.Config{DDL: "CREATE TABLE datafly.events.stream (a STRING, b STRING) USING DELTA;"},
		func(c *zerobus.Config) { c.RecordFormat, c.ColumnsRefresh = format, time.Minute })
	type encodedFor struct {
		cols []zerobus.Column
		form zerobus.Encoding
	}
	var now atomic.Pointer[encodedFor]
	setColumns := func(cols []zerobus.Column) {
		form, err := s.Encoding(cols)
		if err != nil || form.Format != format {
			t.Errorf("Encoding = %+v, %v, want %s", form, err, format)
		}
		now.Store(&encodedFor{cols, form})
		s.SetRowColumns(cols)
	}
	cols, err := s.Columns(t.Context())
	if err != nil {
		t.Fatalf("Columns: %v", err)
	}
	setColumns(cols)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = s.Watch(ctx, func(cols []zerobus.Column, _ error) { setColumns(cols) }) // it ends with ctx
	}()
	t.Cleanup(func() { cancel(); <-over })
	synctest.Wait()
	return s, func(text string) [][]byte {
		m := now.Load()
		if format == zerobus.FormatProtobuf {
			return [][]byte{stringsRow(m.form.Numbers, text)}
		}
		var fields []string
		for _, c := range m.cols {
			fields = append(fields, fmt.Sprintf("%q:%q", c.Name, text))
		}
		return [][]byte{[]byte("{" + strings.Join(fields, ",") + "}")}
	}
}

// connectionInput are connections that the service ends, or that die.
func connectionInput(t *testing.T) {
	scenario(t, "goaway", func(t *testing.T) {
		s := staged(t, emulator.Config{StreamMaxAge: 5 * time.Second}, nil)
		s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectGoAway, Count: 1})
		for i := range 20 {
			write(t, s.bench, [][]byte{row(i)})
			after(time.Second)
		}
		s.stored(t, asText(rows(20))...)
		if got := s.em.Stats().Connections; got != 2 {
			t.Errorf("%d connections, want 2: the next stream needed another", got)
		}
		s.quiet(t)
	})
	scenario(t, "half_open", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		write(t, s.bench, rows(1))
		s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectFreeze, Count: 1})
		start := time.Now()
		var all []<-chan error
		for i := range 5 {
			all = append(all, s.begin(t.Context(), [][]byte{row(1 + i)}))
		}
		succeed(t, all...)
		if got := time.Since(start); got < time.Minute || got > 62*time.Second {
			t.Errorf("rows were taken after %v, want soon after the 60 s without an ack", got)
		}
		if got := s.em.Table(target).Distinct("message_id"); got != 6 || s.em.Stats().Connections != 2 {
			t.Errorf("%d rows over %d connections, want 6 over 2", got, s.em.Stats().Connections)
		}
	})
	scenario(t, "lost_ack", func(t *testing.T) {
		s := staged(t, emulator.Config{}, nil)
		s.fault(t, emulator.Fault{Endpoint: emulator.EndpointStream, Effect: emulator.EffectLoseAck, Count: 1})
		write(t, s.bench, rows(2))
		if table := s.em.Table(target); table.Count() != 4 || table.Distinct("message_id") != 2 {
			t.Errorf("%d rows stored, %d distinct, want each twice", table.Count(), table.Distinct("message_id"))
		}
	})
}
