package emulator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// rule is a Fault made ready to apply.
type rule struct {
	Fault
	rows *rowMatcher

	dice *rand.Rand // guarded by the faultSet, or owned by the one request of a hook's fault
}

func newRule(f Fault) (*rule, error) {
	if err := f.validate(); err != nil {
		return nil, fmt.Errorf("fault: %w", err)
	}
	seed := f.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	r := &rule{Fault: f, dice: rand.New(rand.NewPCG(seed, 0))}
	if f.Rows != nil {
		r.rows = newRowMatcher(*f.Rows)
	}
	return r, nil
}

// faultSet holds the faults in the order they were added.
type faultSet struct {
	mu    sync.Mutex
	rules []*rule
	last  int // number of the last ID given
}

func (s *faultSet) add(f Fault) (Fault, error) {
	f.Hits = 0
	r, err := newRule(f)
	if err != nil {
		return Fault{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.ID == "" {
		s.last++
		r.ID = "fault-" + strconv.Itoa(s.last)
	}
	if slices.ContainsFunc(s.rules, func(o *rule) bool { return o.ID == r.ID }) {
		return Fault{}, fmt.Errorf("fault: id %q is taken; remove that one first or give another id", r.ID)
	}
	s.rules = append(s.rules, r)
	return r.Fault, nil
}

// any reports whether there is a fault at all.
func (s *faultSet) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rules) > 0
}

func (s *faultSet) list() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Fault, len(s.rules))
	for i, r := range s.rules {
		out[i] = r.Fault
	}
	return out
}

func (s *faultSet) remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.rules)
	s.rules = slices.DeleteFunc(s.rules, func(r *rule) bool { return r.ID == id })
	return len(s.rules) < n
}

func (s *faultSet) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = nil
}

// hit is a fault that applies to a request.
type hit struct {
	Fault
	row  int           // the row that Rows matched, or 0
	wait time.Duration // drawn from Latency
}

// pick returns the first fault that fits the request, or nil.
func (s *faultSet) pick(c *call) *hit {
	s.mu.Lock()
	if len(s.rules) == 0 {
		s.mu.Unlock()
		return nil
	}
	rules := slices.Clone(s.rules)
	s.mu.Unlock()
	for _, r := range rules {
		// Rows are looked at without the lock; whether the fault is still
		// there is settled when it is taken.
		if row, ok := r.fits(c); ok {
			if h := s.take(r, row); h != nil {
				return h
			}
		}
	}
	return nil
}

// take counts one use of the rule, unless the dice or its end say no.
func (s *faultSet) take(r *rule, row int) *hit {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.rules, r)
	if i < 0 || r.Probability > 0 && r.dice.Float64() >= r.Probability {
		return nil
	}
	r.Hits++
	if r.Count > 0 && r.Hits >= r.Count {
		s.rules = slices.Delete(slices.Clone(s.rules), i, i+1)
	}
	return &hit{Fault: r.Fault, row: row, wait: r.Latency.draw(r.dice.NormFloat64)}
}

// fits holds everything but the dice against a request.
func (r *rule) fits(c *call) (row int, ok bool) {
	if r.Endpoint != "" && r.Endpoint != c.endpoint || !possible(r.Effect, c.endpoint) {
		return 0, false
	}
	if r.Offset != nil && (c.endpoint != EndpointStream || *r.Offset != c.offset) {
		return 0, false
	}
	if r.Table != "" && !strings.EqualFold(r.Table, c.tableName()) {
		return 0, false
	}
	if r.rows == nil {
		return 0, true
	}
	row = slices.IndexFunc(c.rows(), r.rows.match)
	return row, row >= 0
}

func (m *RowMatch) validate() error {
	var errs []error
	if m.Equals == nil && m.Regexp == "" && len(m.MessageIDs) == 0 {
		errs = append(errs, errors.New("rows: want equals, regexp or message_ids"))
	}
	if m.Equals != nil && m.Column == "" {
		errs = append(errs, errors.New("rows: equals wants a column"))
	}
	if m.Column != "" && m.Equals == nil && m.Regexp == "" {
		errs = append(errs, fmt.Errorf("rows: column %q wants equals or regexp", m.Column))
	}
	if _, err := regexp.Compile(m.Regexp); err != nil {
		errs = append(errs, fmt.Errorf("rows: regexp: %w", err))
	}
	return errors.Join(errs...)
}

// rowMatcher is a RowMatch made ready to apply. It is safe for concurrent use.
type rowMatcher struct {
	RowMatch
	re  *regexp.Regexp
	ids map[string]bool
}

// newRowMatcher wants a RowMatch that validates.
func newRowMatcher(m RowMatch) *rowMatcher {
	out := &rowMatcher{RowMatch: m}
	if m.Regexp != "" {
		out.re = regexp.MustCompile(m.Regexp)
	}
	if len(m.MessageIDs) > 0 {
		out.ids = make(map[string]bool, len(m.MessageIDs))
		for _, id := range m.MessageIDs {
			out.ids[id] = true
		}
	}
	return out
}

func (m *rowMatcher) match(row []byte) bool {
	if m.Column != "" {
		text, ok := columnText(row, m.Column)
		if !ok || m.Equals != nil && string(text) != *m.Equals || m.re != nil && !m.re.Match(text) {
			return false
		}
	} else if m.re != nil && !m.re.Match(row) {
		return false
	}
	if m.ids != nil {
		id, ok := columnText(row, idColumn)
		return ok && m.ids[string(id)]
	}
	return true
}

func retryAfter(seconds int, asDate bool) string {
	if asDate {
		return time.Now().Add(time.Duration(seconds) * time.Second).UTC().Format(http.TimeFormat)
	}
	return strconv.Itoa(seconds)
}

// AddFault adds a fault behind those already there and returns it with its ID.
func (e *Emulator) AddFault(f Fault) (Fault, error) { return e.faults.add(f) }

// Faults lists the faults that still apply, in order.
func (e *Emulator) Faults() []Fault { return e.faults.list() }

// RemoveFault removes a fault by its ID and reports whether it was there.
func (e *Emulator) RemoveFault(id string) bool { return e.faults.remove(id) }

// ClearFaults removes all faults.
func (e *Emulator) ClearFaults() { e.faults.clear() }
