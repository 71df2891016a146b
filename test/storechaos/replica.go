package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/integrations/store"
	"github.com/datafly/bridge/internal/kafka"
)

// replicaEnv makes the process a replica: its number, seed, writers, topic and brokers.
const replicaEnv = "STORECHAOS_REPLICA"

// slugs is how many names the writers compete for.
const slugs = 8

// line is what a replica prints: a change that begins or ends, or a state.
type line struct {
	Request  string        `json:"request,omitempty"`
	Outcome  string        `json:"outcome"`
	ID       string        `json:"id,omitempty"`
	Revision int64         `json:"revision,omitempty"`
	Took     time.Duration `json:"took,omitempty"`
	Error    string        `json:"error,omitempty"`
	State    []version     `json:"state,omitempty"`
	Problem  string        `json:"problem,omitempty"`
}

// Outcomes of a line.
const (
	begins       = "begins"
	acknowledged = "acknowledged"
	refused      = "refused"     // by decide: nothing was written
	unavailable  = "unavailable" // nothing was written
	unknown      = "unknown"
	stateChanged = "state"
	idle         = "idle" // no further changes
	finalState   = "final"
)

// version is one record of a state.
type version struct {
	Slug     string `json:"slug"`
	ID       string `json:"id"`
	Revision int64  `json:"revision"`
	Request  string `json:"request"` // that wrote it
}

func versions(s store.State) []version {
	all := make([]version, 0, len(s.Records))
	for _, r := range s.Records {
		all = append(all, version{r.Slug, r.ID, r.Revision, r.Meta.RequestID})
	}
	return all
}

// replicaMain runs a replica if the environment describes one. A line of its input ends its
// changes, and the end of the input ends it.
func replicaMain(all context.Context, out io.Writer) bool {
	parts := strings.Fields(os.Getenv(replicaEnv))
	if len(parts) != 5 {
		return false
	}
	seed, _ := strconv.ParseUint(parts[1], 10, 64)
	writers, _ := strconv.Atoi(parts[2])
	r := &replica{name: parts[0], out: json.NewEncoder(out), store: store.New(store.Options{
		Topic: parts[3], Log: zap.NewNop(), Connection: kafka.Connection{Brokers: strings.Split(parts[4], ","), ClientID: "storechaos-" + parts[0]},
	})}
	ctx, stop := context.WithCancel(all)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() { r.write(ctx, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	following, leave := context.WithCancel(all)
	var run sync.WaitGroup
	run.Go(func() {
		r.store.Run(following, func(s store.State) {
			problem := ""
			if s.Problem != nil {
				problem = s.Problem.Code
			}
			r.print(line{Outcome: stateChanged, State: versions(s), Problem: problem})
		})
	})
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n') // a line, or the end of the parent
	stop()
	wg.Wait()
	r.print(line{Outcome: idle})
	_, _ = io.Copy(io.Discard, in)
	reading, cancel := context.WithTimeout(all, time.Minute)
	state, err := r.store.Read(reading)
	cancel()
	last := line{Outcome: finalState, State: versions(state)}
	if err != nil {
		last.Error = err.Error()
	}
	r.print(last)
	leave()
	run.Wait()
	r.store.Close()
	return true
}

type replica struct {
	name  string
	store *store.Store

	mu  sync.Mutex
	out *json.Encoder
	n   int
}

func (r *replica) print(l line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.out.Encode(l) // whoever reads it may be gone
}

var errRefused = errors.New("refused")

// write makes changes until ctx ends.
func (r *replica) write(ctx context.Context, random *rand.Rand) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(random.Int64N(int64(time.Second)))):
		}
		r.mu.Lock()
		r.n++
		request := fmt.Sprintf("%s-%d-%d", r.name, os.Getpid(), r.n)
		r.mu.Unlock()
		r.change(ctx, random, request)
	}
}

// change installs, changes or removes one integration, as a console would: with the
// revision that it saw.
func (r *replica) change(ctx context.Context, random *rand.Rand, request string) {
	slug := fmt.Sprintf("integration-%d", random.IntN(slugs))
	seen := r.store.State()
	remove, id := random.IntN(10) == 0, newID(random)
	l := line{Request: request, Outcome: begins}
	r.print(l)
	begin := time.Now()
	_, err := r.store.Update(context.WithoutCancel(ctx), request, func(now store.State) ([]store.Write, error) {
		old, expected := now.Find(slug), seen.Find(slug)
		e := store.Entry{By: r.name, ResourceType: "integration"}
		switch {
		case (old == nil) != (expected == nil), old != nil && (old.ID != expected.ID || old.Revision != expected.Revision):
			return nil, errRefused
		case old == nil:
			rec := store.Record{ID: id, Slug: slug, Name: slug, Vendor: "databricks_zerobus", Variant: "default", Enabled: true, Meta: store.Meta{RequestID: request}}
			l.ID, l.Revision, e.Action = id, 1, "integration.installed"
			return []store.Write{{Record: &rec, Entry: e}}, nil
		case remove:
			l.ID, l.Revision, e.Action = old.ID, old.Revision+1, "integration.removed"
			return []store.Write{{Remove: slug, Entry: e}}, nil
		}
		rec := *old
		rec.Enabled, rec.Meta.RequestID = !rec.Enabled, request
		l.ID, l.Revision, e.Action = old.ID, old.Revision+1, "integration.updated"
		return []store.Write{{Record: &rec, Entry: e}}, nil
	})
	l.Took = time.Since(begin)
	switch {
	case err == nil:
		l.Outcome = acknowledged
	case errors.Is(err, errRefused):
		l.Outcome = refused
	case errors.Is(err, store.ErrOutcome):
		l.Outcome = unknown
	default:
		l.Outcome = unavailable
	}
	if err != nil {
		l.Error = err.Error()
	}
	r.print(l)
}

func newID(random *rand.Rand) string {
	const digits = "abcdefghijklmnopqrstuvwxyz0123456789"
	id := []byte("int_")
	for range 12 {
		id = append(id, digits[random.IntN(len(digits))])
	}
	return string(id)
}
