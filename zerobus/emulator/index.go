package emulator

import (
	"cmp"
	"hash/maphash"
	"slices"
)

// idHash stands for an id in the index. 128 bits keep the chance of taking
// two ids for one below 1e-20 at a billion rows, at a quarter of the memory
// the ids themselves would take.
type idHash struct{ a, b uint64 }

var seedA, seedB = maphash.MakeSeed(), maphash.MakeSeed()

func hashID(text []byte) idHash {
	// The zero value means "no id"; a hash is made to differ from it.
	return idHash{maphash.Bytes(seedA, text) | 1, maphash.Bytes(seedB, text)}
}

// idSet is a set of hashes: open addressing, so that a lookup costs one cache
// miss where a map costs three, in many small tables, so that growing one does
// not hold up a request. The zero value is empty.
type idSet struct {
	shards [256]idShard
	size   int
}

type idShard struct {
	slots []idHash // a power of two; zero is free
	used  int
}

// add reports whether the hash was not there before.
func (s *idSet) add(h idHash) bool {
	shard := &s.shards[h.b>>56]
	if (shard.used+1)*4 > len(shard.slots)*3 {
		shard.grow()
	}
	if !shard.put(h) {
		return false
	}
	shard.used++
	s.size++
	return true
}

func (s *idShard) put(h idHash) bool {
	mask := uint64(len(s.slots) - 1)
	for i := h.a >> 1 & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case idHash{}:
			s.slots[i] = h
			return true
		case h:
			return false
		}
	}
}

func (s *idShard) grow() {
	old := s.slots
	s.slots = make([]idHash, max(16, 2*len(old)))
	for _, h := range old {
		if h != (idHash{}) {
			s.put(h)
		}
	}
}

// idIndex counts the values of message_id. It outlives the rows: rows that
// have left the ring stay counted. It is guarded by its table.
type idIndex struct {
	seen    idSet
	repeats map[string]int // text -> times seen, only of those seen more than once
}

func newIDIndex() idIndex {
	return idIndex{repeats: map[string]int{}}
}

// add counts one id; text is called only for one that was there before.
func (x *idIndex) add(h idHash, text func() string) {
	if h == (idHash{}) || x.seen.add(h) {
		return
	}
	t := text()
	if x.repeats[t] == 0 {
		x.repeats[t] = 1
	}
	x.repeats[t]++
}

// Duplicate is a value that several rows of a table share.
type Duplicate struct {
	Value string `json:"value"`
	Count int    `json:"count"` // rows that have it, at least 2
}

// duplicates lists the values counted more than once, the most frequent
// first.
func duplicates(counts map[string]int) []Duplicate {
	out := []Duplicate{}
	for v, n := range counts {
		if n > 1 {
			out = append(out, Duplicate{v, n})
		}
	}
	slices.SortFunc(out, func(a, b Duplicate) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Value, b.Value))
	})
	return out
}
