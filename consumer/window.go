package consumer

// window remembers how the last events of a partition fared, to tell a schema
// fault from poison: a column that was dropped makes every row refused, and
// dead-lettering all of them would only move the topic elsewhere. Its size is a
// few numbers until something is refused.
type window struct {
	outcome []*tally // ring of windowSize; nil: accepted. Nil before the first refusal
	next    int
	filled  int
	tallies map[cause]*tally // of what is in the ring
}

// cause is what refusals have in common. The sink's are all of one, the zero
// value: which column a row was refused for is not always said.
type cause struct{ column, code string }

// tally counts the refusals of one cause in the ring.
type tally struct {
	cause
	n int
}

const (
	windowSize = 200
	// schemaFaultMin and half of the window are what it takes to call
	// refusals a schema fault.
	schemaFaultMin = 50
)

func (w *window) add(t *tally) {
	if old := w.outcome[w.next]; old != nil {
		if old.n--; old.n == 0 {
			delete(w.tallies, old.cause)
		}
	}
	w.filled = min(w.filled+1, windowSize)
	w.outcome[w.next] = t
	w.next = (w.next + 1) % windowSize
}

func (w *window) accept(n int) {
	if len(w.tallies) == 0 {
		w.filled = min(w.filled+n, windowSize)
		return
	}
	for range min(n, windowSize) {
		w.add(nil)
	}
}

// refuse notes one refusal and tells whether this is a schema fault.
func (w *window) refuse(c cause) bool {
	if w.outcome == nil {
		w.outcome, w.tallies = make([]*tally, windowSize), make(map[cause]*tally)
	}
	t := w.tallies[c]
	if t == nil {
		t = &tally{cause: c}
		w.tallies[c] = t
	}
	t.n++ // before add, which may count down the same tally
	w.add(t)
	return t.n >= schemaFaultMin && t.n*2 >= w.filled
}

// count returns how many refusals of a cause the window holds.
func (w *window) count(c cause) int {
	if t := w.tallies[c]; t != nil {
		return t.n
	}
	return 0
}
