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

// idIndex counts the values of message_id. It outlives the rows: rows that
// have left the ring stay counted. It is guarded by its table.
type idIndex struct {
	seen    map[idHash]struct{}
	repeats map[string]int // text -> times seen, only of those seen more than once
}

func newIDIndex() idIndex {
	return idIndex{seen: map[idHash]struct{}{}, repeats: map[string]int{}}
}

// add counts one id; text is called only for one that was there before.
func (x *idIndex) add(h idHash, text func() string) {
	if h == (idHash{}) {
		return
	}
	n := len(x.seen)
	x.seen[h] = struct{}{}
	if len(x.seen) > n {
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
