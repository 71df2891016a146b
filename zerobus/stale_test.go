package zerobus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/emulator"
)

// A column that rows carry is dropped while a Write is under way. The caller
// then encodes rows without it, and gets the old ones back.
func TestRowsFromBeforeAColumnWasDroppedAreStale(t *testing.T) {
	e, err := emulator.New(emulator.Config{DDL: "CREATE TABLE c.s.t (a STRING, b STRING)"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	c, err := zerobus.New(zerobus.Config{Settings: zerobus.Settings{WorkspaceURL: e.URL(), ClientID: emulator.DefaultClientID,
		ClientSecret: emulator.DefaultClientSecret, Table: "c.s.t"}}, zaptest.NewLogger(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), await.Patience)
	defer cancel()
	both := []zerobus.Column{{Name: "a", Type: "STRING"}, {Name: "b", Type: "STRING"}}
	before := c.SetRowColumns(both)
	old := [][]byte{[]byte(`{"a":"1","b":"2"}`)}
	if err := c.WriteLatest(ctx, old); err != nil {
		t.Fatal(err)
	}

	if err := e.Table("c.s.t").DropColumn("b"); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- c.WriteLatest(ctx, old) }() // waited for below
	for c.State().Name != zerobus.Blocked {
		select {
		case err := <-wrote:
			t.Fatalf("Write ended before the column's absence blocked it: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	c.SetRowColumns(both[:1])
	err = <-wrote
	var stale *zerobus.StaleError
	if !errors.As(err, &stale) || !stale.Stale() {
		t.Fatalf("got %v, want a *StaleError", err)
	}
	if err := c.WriteLatest(ctx, [][]byte{[]byte(`{"a":"1"}`)}); err != nil {
		t.Fatal(err)
	}
	// Rows of an older version come back unsent.
	if _, err := c.Write(ctx, before, old); !errors.As(err, &stale) {
		t.Errorf("got %v for rows of an earlier SetRowColumns, want a *StaleError", err)
	}
	if _, err := c.Probe(ctx, before, old); !errors.As(err, &stale) {
		t.Errorf("got %v for rows of an earlier SetRowColumns, want a *StaleError", err)
	}
	if got := c.State().Name; got != zerobus.Ready {
		t.Errorf("got state %s after rows were encoded again, want %s", got, zerobus.Ready)
	}
	if got := e.Table("c.s.t").Count(); got != 2 {
		t.Errorf("got %d rows, want 2", got)
	}
}
