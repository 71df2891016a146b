package ops

import "sync"

// maxSeries bounds each family whose labels are words chosen by other
// packages. Those words come from closed sets; the bound holds even if one day
// they do not, so that no event can grow the process's memory through a label.
const maxSeries = 2000

// series caches the children of one family by their labels: looking a child up
// in a prometheus vector hashes the label values and may allocate, this does
// not. Safe for concurrent use.
type series[K comparable, V any] struct {
	create func(K) V
	limit  int // most entries kept; 0 is no limit
	other  K   // stands for every key past the limit

	mu sync.RWMutex // guards the map
	m  map[K]V
}

func newSeries[K comparable, V any](limit int, other K, create func(K) V) *series[K, V] {
	return &series[K, V]{create: create, limit: limit, other: other, m: make(map[K]V)}
}

// get returns the child of k and makes it on first use.
func (s *series[K, V]) get(k K) V {
	s.mu.RLock()
	v, ok := s.m[k]
	s.mu.RUnlock()
	if ok {
		return v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.m[k]; ok {
		return v
	}
	if s.limit > 0 && len(s.m) >= s.limit {
		k = s.other
		if v, ok := s.m[k]; ok {
			return v
		}
	}
	v = s.create(k)
	s.m[k] = v
	return v
}

// drop forgets the child of k and runs remove under the same lock, so that a
// concurrent get either sees the old child or makes a new one.
func (s *series[K, V]) drop(k K, remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, k)
	remove()
}
