package main

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parsed(t *testing.T, args ...string) *options {
	t.Helper()
	o, err := parse(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestScheduleFollowsFromTheSeed(t *testing.T) {
	o := parsed(t, "-seed", "7")
	faults := plan(o)
	if !reflect.DeepEqual(faults, plan(parsed(t, "-seed", "7"))) {
		t.Error("the same seed gave another schedule")
	}
	if reflect.DeepEqual(faults, plan(parsed(t, "-seed", "8"))) {
		t.Error("another seed gave the same schedule")
	}
	for seed := range uint64(200) {
		o.seed = seed
		faults := plan(o)
		if by := count(faults); len(faults) < 30 || len(by) < 10 {
			t.Fatalf("seed %d: %d faults of %d kinds in two minutes, want 30 of 10 at least", seed, len(faults), len(by))
		}
		for i, f := range faults {
			if f.At < 0 || f.At+f.Length > o.duration || i > 0 && f.At < faults[i-1].At {
				t.Fatalf("seed %d: fault %d, %+v, is out of order or too long", seed, i, f)
			}
		}
	}
}

func TestEveryKindComesBeforeOneComesAgain(t *testing.T) {
	o := parsed(t, "-seed", "3", "-duration", "10m")
	all := available(o)
	if len(all) < 20 {
		t.Fatalf("%d kinds, want 20 at least", len(all))
	}
	faults := plan(o)
	by, least := count(faults), len(faults)/len(all)
	if least < 2 {
		t.Errorf("%d faults of %d kinds in ten minutes, want each kind twice at least", len(faults), len(all))
	}
	for _, k := range all {
		if n := by[k.name]; n < least || n > least+1 {
			t.Errorf("%s comes %d times in ten minutes, want %d or one more, as all others do", k.name, n, least)
		}
		if k.act == nil || k.about == "" || k.max < k.min {
			t.Errorf("%s is not complete", k.name)
		}
	}
	for _, k := range available(parsed(t, "-transport", "rest")) {
		if k.flags&grpcOnly != 0 {
			t.Errorf("%s affects streams, and there are none with rest", k.name)
		}
	}
	for name := range count(plan(parsed(t, "-focus", "member-kill,sink-cut"))) {
		if name != "member-kill" && name != "sink-cut" {
			t.Errorf("%s was scheduled, and not requested", name)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-help"}, 0, "Examples:"},
		{[]string{"-plan", "-seed", "7"}, 0, "seed 7: 34 faults"},
		{[]string{"-duration", "1s"}, 2, "10s to 24h"},
		{[]string{"-transport", "pigeon"}, 2, "pigeon"},
		{[]string{"-brokers", "2"}, 2, "1 or 3"},
		{[]string{"-focus", "locusts"}, 2, "the kinds are"},
		{[]string{"-mutant", "x"}, 2, "put that first"},
		{[]string{"mutants", "-mutant", "no-such"}, 1, "no-such"},
		{[]string{"mutant"}, 2, `"mutant"`},
	} {
		var out bytes.Buffer
		if code := chaos(context.Background(), tc.args, &out, &out); code != tc.code || !strings.Contains(out.String(), tc.says) {
			t.Errorf("chaos %q: got exit code %d and %q, want %d and %q", tc.args, code, out.String(), tc.code, tc.says)
		}
	}
	o := parsed(t, strings.Fields(parsed(t, "-seed", "5", "-duration", "30s", "-focus", "member-kill").repeat())[5:]...)
	if o.seed != 5 || o.duration != 30*time.Second || len(o.focus) != 1 {
		t.Errorf("the command that repeats a run leads elsewhere: %+v", o)
	}
}

// A mutant that no longer applies proves nothing.
func TestMutantsApply(t *testing.T) {
	all, err := loadMutants()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 17 {
		t.Fatalf("%d mutants, want 17 at least", len(all))
	}
	for _, m := range all {
		cmd := exec.CommandContext(t.Context(), "git", "apply", "--check")
		cmd.Dir, cmd.Stdin = "../..", bytes.NewReader(m.patch)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("mutants/%s.patch does not apply any more; make it again for the present code: %v\n%s", m.name, err, text)
		}
		for _, name := range m.focus {
			if !strings.Contains(kindNames(), name) {
				t.Errorf("mutants/%s.patch focuses on %q, which is no kind of fault", m.name, name)
			}
		}
	}
}
