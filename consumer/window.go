package consumer

// window remembers how the last rows of a partition fared at the sink, to tell
// a schema fault from poison: a column that was dropped makes every row
// refused, and dead-lettering all of them would only move the topic elsewhere.
type window struct {
	outcome [windowSize]bool // true: refused
	next    int
	filled  int
	refused int
}

const (
	windowSize = 200
	// schemaFaultMin and half of the window are what it takes to call
	// refusals a schema fault.
	schemaFaultMin = 50
)

func (w *window) add(refused bool) {
	if w.filled == windowSize {
		if w.outcome[w.next] {
			w.refused--
		}
	} else {
		w.filled++
	}
	w.outcome[w.next] = refused
	if refused {
		w.refused++
	}
	w.next = (w.next + 1) % windowSize
}

func (w *window) accept(rows int) {
	for range min(rows, windowSize) {
		w.add(false)
	}
}

// refuse notes one refused row and tells whether this is a schema fault.
func (w *window) refuse() bool {
	w.add(true)
	return w.refused >= schemaFaultMin && w.refused*2 >= w.filled
}
