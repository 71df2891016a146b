package emulator_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/datafly/bridge/zerobus/emulator"
)

func TestOnRowsGetsStoredRowsOnly(t *testing.T) {
	z := startZerobus(t, emulator.Config{AckEvery: 1})
	var got []string
	z.Table(stream).OnRows(func(rows []emulator.Row) {
		for _, r := range rows {
			got = append(got, fmt.Sprint(r.Seq, " ", r.Transport, " ", string(r.JSON)))
		}
	})
	p := z.open(protoCreate(t, stream, pageDescriptor()))
	p.send(protoBatch(0, encode(t, resolve(t, pageDescriptor()), `{"event_name":"x"}`)))
	p.ack(0)
	if r := z.insert(stream, `[{"event_name":"y"},{"event_name":"z"}]`); r.status != 200 {
		t.Errorf("insert: got %d %s", r.status, r.body)
	}
	if r := z.insert(stream, `[{"event_name":"y"},{"no_such_column":1}]`); r.status != 400 {
		t.Errorf("insert of a row that does not fit: got %d %s", r.status, r.body)
	}
	want := []string{`1 grpc {"event_name":"x"}`, `2 rest {"event_name":"y"}`, `3 rest {"event_name":"z"}`}
	if !slices.Equal(got, want) {
		t.Errorf("hook: got %q, want %q", got, want)
	}
	z.Table(stream).OnRows(nil)
	if r := z.insert(stream, `[{"event_name":"y"}]`); r.status != 200 || len(got) != 3 {
		t.Errorf("after the hook was removed: got %d %s and %d rows at the hook, want 3", r.status, r.body, len(got))
	}
}

func TestNoIndexCountsKeptRows(t *testing.T) {
	w := start(t, emulator.Config{MaxRows: 2, NoIndex: true})
	w.bearer()
	for _, id := range []string{"a", "b", "c", "c"} {
		if r := w.ingest(envelope(fmt.Sprintf(`{"message_id":%q}`, id))); r.status != 200 {
			t.Fatalf("ingest: got %d %s", r.status, r.body)
		}
	}
	table := w.Table(stream)
	if got := table.Distinct("message_id"); got != 1 {
		t.Errorf("distinct ids of the two rows kept: got %d, want 1", got)
	}
	if d := table.Duplicates("message_id"); len(d) != 1 || d[0].Value != "c" {
		t.Errorf("duplicates: got %+v, want c alone", d)
	}
	if got := table.Count(); got != 4 {
		t.Errorf("rows: got %d, want 4", got)
	}
}

func TestAgedTokensEndEarly(t *testing.T) {
	w := start(t, emulator.Config{TokenLifetime: time.Hour})
	w.bearer()
	w.AgeTokens(59 * time.Minute)
	if r := w.ingest(envelope()); r.status != 200 {
		t.Errorf("a minute before the token's end: got %d %s, want 200", r.status, r.body)
	}
	w.AgeTokens(time.Minute)
	w.ingest(envelope()).wantError(t, 401, "UNAUTHENTICATED", "expired")
}
