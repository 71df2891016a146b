package traffic

// source is a splitmix64 generator (Steele, Lea, Flood, 2014): eight bytes of
// state, so that each event has its own and event n is a function of seed and
// n alone.
type source uint64

func (s *source) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	return mix(uint64(*s))
}

// below returns a number in [0, n). Its bias, n in 2^32, does not matter here.
func (s *source) below(n int) int { return int(s.next() >> 32 * uint64(n) >> 32) }

// mix is splitmix64's finalizer, a bijection that spreads every bit.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
