// Command chaos checks that the bridge loses nothing. It produces numbered events to
// three Apache Kafka brokers, and members of the real binary deliver them to an
// emulated workspace. Faults come by a schedule that a seed decides. At the end it
// compares what arrived with what was produced. docs/reliability.md has the guarantees and how
// to read the audit.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := chaos(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the command line.
type options struct {
	seed      uint64
	duration  time.Duration
	transport string
	protocol  string
	brokers   int
	members   int
	rate      int
	focus     []string // kinds of fault; none: all
	race      bool
	bridge    string
	first     bool // end with the first violation
	plan      bool
	keep      bool
	json      bool

	mutants bool
	mutant  []string // names; none: all
}

// repeat is the command that runs the same schedule.
func (o *options) repeat() string {
	s := fmt.Sprintf("go -C test run ./chaos -seed %d -duration %s -transport %s -protocol %s -brokers %d -members %d -rate %d", o.seed, o.duration, o.transport, o.protocol, o.brokers, o.members, o.rate)
	if len(o.focus) > 0 {
		s += " -focus " + strings.Join(o.focus, ",")
	}
	return s
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{}
	if len(args) > 0 && args[0] == "mutants" {
		o.mutants, args = true, args[1:]
	}
	list := func(into *[]string) func(string) error {
		return func(s string) error { *into = strings.Split(s, ","); return nil }
	}
	var output string
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { usage(f) }
	f.Uint64Var(&o.seed, "seed", 0, "`number` that decides events and schedule; 0 takes one at random and prints it")
	f.DurationVar(&o.duration, "duration", 2*time.Minute, "how long faults are injected, 10s to 24h; start, backlog and audit are added")
	f.StringVar(&o.transport, "transport", "mixed", "workspace, grpc, rest, or `mixed`: members in turn")
	f.StringVar(&o.protocol, "protocol", "classic", "group protocol, classic or `consumer` (KIP-848)")
	f.IntVar(&o.brokers, "brokers", 3, "1 or 3")
	f.IntVar(&o.members, "members", 3, "members of the group, 1 to 8")
	f.IntVar(&o.rate, "rate", 2000, "events a second, 50 to 20000")
	f.Func("focus", "inject only these `kinds` of fault, with commas", list(&o.focus))
	f.BoolVar(&o.race, "race", false, "build the bridge with the race detector")
	f.StringVar(&o.bridge, "bridge", "", "`file` of a bridge that is built already (default: build ./cmd/bridge)")
	f.BoolVar(&o.first, "first", false, "end with the first violation")
	f.BoolVar(&o.plan, "plan", false, "print the schedule and do nothing")
	f.BoolVar(&o.keep, "keep", false, "keep the logs of a run that passes, too")
	f.StringVar(&output, "output", "text", "text or json")
	f.Func("mutant", "with the command mutants: only these `names`, with commas", list(&o.mutant))
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	o.json = output == "json"
	if o.seed == 0 {
		o.seed = uint64(rand.Uint32())
	}
	return o, o.check(f.Args(), output)
}

func (o *options) check(rest []string, output string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q; the only command is mutants, and it comes first", rest[0])
	case o.duration < 10*time.Second || o.duration > 24*time.Hour:
		return fmt.Errorf("-duration is %s; take 10s to 24h", o.duration)
	case !slices.Contains([]string{"workspace", "grpc", "rest", "mixed"}, o.transport):
		return fmt.Errorf("-transport is %q; take workspace, grpc, rest or mixed", o.transport)
	case o.protocol != "classic" && o.protocol != "consumer":
		return fmt.Errorf("-protocol is %q; take classic or consumer", o.protocol)
	case o.brokers != 1 && o.brokers != 3:
		return fmt.Errorf("-brokers is %d; take 1 or 3", o.brokers)
	case o.members < 1 || o.members > 8:
		return fmt.Errorf("-members is %d; take 1 to 8", o.members)
	case o.rate < 50 || o.rate > 20_000:
		return fmt.Errorf("-rate is %d; take 50 to 20000", o.rate)
	case uint64(o.duration.Seconds())*uint64(o.rate) > uint64(recreatedNumbers):
		return errors.New("-duration times -rate is more than one billion events; lower one of them")
	case output != "text" && output != "json":
		return fmt.Errorf("-output is %q; take text or json", output)
	case len(o.mutant) > 0 && !o.mutants:
		return errors.New("-mutant needs the command mutants; put that first")
	}
	for _, name := range o.focus {
		if !slices.ContainsFunc(kinds(), func(k kind) bool { return k.name == name }) {
			return fmt.Errorf("-focus names %q; the kinds are %s", name, kindNames())
		}
	}
	return nil
}

func usage(f *flag.FlagSet) {
	w := f.Output()
	fmt.Fprint(w, `chaos checks that the bridge loses nothing: numbered events through Apache Kafka
and the real binary to an emulated workspace, under faults that a seed decides.
Every member has five integrations, and some faults affect one of them alone.

  go -C test run ./chaos [flags]
  go -C test run ./chaos mutants [flags]     build the bridge with known mistakes; each must be found

It needs Java 17 and Maven. The exit code is 0 when the audit passes, 1 when it
does not or the run was interrupted, 2 when the command line is wrong.

Examples:
  go -C test run ./chaos                                      two minutes, a seed at random
  go -C test run ./chaos -seed 7 -duration 1h                 an hour
  go -C test run ./chaos -seed 7 -plan                        what would happen, and when
  go -C test run ./chaos -focus member-kill,sink-cut -first   only these faults, to the first violation
  go -C test run ./chaos -transport grpc -race                streams, and the race detector in the members
  go -C test run ./chaos mutants -mutant mark-before-write

Kinds of fault:
`)
	printKinds(w)
	fmt.Fprint(w, "\nFlags:\n")
	f.PrintDefaults()
}

// chaos is the command.
func chaos(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "chaos: %v\n", err)
		return 2
	}
	faults := plan(o)
	switch {
	case o.plan:
		printPlan(stdout, o, faults)
	case o.mutants:
		err = tryMutants(ctx, o, stdout, stderr)
	default:
		err = audit(ctx, o, faults, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "chaos: %v\n", err)
		return 1
	}
	return 0
}

var errFailed = errors.New("the audit did not pass, see above")

// audit runs once and prints the report.
func audit(ctx context.Context, o *options, faults []fault, stdout, stderr io.Writer) error {
	fmt.Fprintf(stderr, "chaos: seed %d, %d faults of %d kinds in %s\n", o.seed, len(faults), len(count(faults)), o.duration)
	rep, err := once(ctx, o, faults, stderr)
	if err != nil {
		return err
	}
	if o.json {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(rep)
	} else {
		rep.print(stdout)
	}
	if err == nil && rep.failed() {
		err = errFailed
	}
	return err
}

// once executes a run in a folder of its own, which stays if it is needed.
func once(ctx context.Context, o *options, faults []fault, stderr io.Writer) (*report, error) {
	dir, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the run: %w; check the folder for temporary files", err)
	}
	rep, err := execute(ctx, o, dir, faults, stderr)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, errors.Join(errors.New("interrupted before the first fault"), os.RemoveAll(dir))
	case err != nil:
		return nil, fmt.Errorf("%w; logs are in %s", err, dir)
	case o.keep || rep.failed() && !o.first:
		rep.Dir = dir
		return rep, nil
	}
	return rep, os.RemoveAll(dir)
}
