package oracle

import "testing"

func TestAccountsAreAdded(t *testing.T) {
	fine := Account{Read: 21, Delivered: 1, DeadLettered: 2, Skipped: 3, Filtered: 4, InFlight: 5, Released: 6, Offsets: 6, Records: 1, Lost: 2, SkippedGaps: 3}
	if err := fine.Check(); err != nil {
		t.Errorf("an account that balances: got %v", err)
	}
	for i, broken := range []Account{{Read: 1}, {Delivered: 1}, {Released: 1}, {Unaccounted: 1}, {Offsets: 1}, {Lost: 1}} {
		if broken.Check() == nil {
			t.Errorf("account %d does not balance, and passes", i)
		}
	}
}

func TestViolationsOfOnePartAreNamed(t *testing.T) {
	v := NewViolations()
	v.Of("orders").Add(RuleLost, "event %d", 7)
	v.Add(RuleLost, "event %d", 8)
	if got := v.List(); len(got) != 1 || got[0].Count != 2 || got[0].Examples[0] != "orders: event 7" || got[0].Examples[1] != "event 8" {
		t.Errorf("got %+v, want both, and the first with its name", got)
	}
}

func TestDuplicatesOfATable(t *testing.T) {
	for _, tc := range []struct {
		rows, distinct, duplicates int
		fails                      bool
	}{{100, 100, 0, false}, {103, 100, 3, false}, {99, 99, 0, true}, {101, 99, 0, true}, {101, 101, 0, true}} {
		got, err := Duplicates(100, tc.rows, tc.distinct)
		if (err != nil) != tc.fails || err == nil && got != tc.duplicates {
			t.Errorf("%d rows of %d events: got %d and %v, want %d duplicates, an error: %v", tc.rows, tc.distinct, got, err, tc.duplicates, tc.fails)
		}
	}
}
