package setting

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. As text it is a whole number with an optional unit:
// B, KiB, MiB, GiB (powers of 1024), kB, MB or GB (powers of 1000). Case is ignored.
type Size int64

// Binary multiples of a byte.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

var units = []struct {
	name string
	size Size
}{
	{"KiB", KiB}, {"MiB", MiB}, {"GiB", GiB},
	{"kB", 1000}, {"MB", 1000 * 1000}, {"GB", 1000 * 1000 * 1000},
	{"B", 1}, // last: it is a suffix of all the others
}

// ParseSize reads a size such as 4MiB, 256 KiB or 1048576.
func ParseSize(text string) (Size, error) {
	digits, unit := strings.TrimSpace(text), Size(1)
	for _, u := range units {
		if n := len(digits) - len(u.name); n > 0 && strings.EqualFold(digits[n:], u.name) {
			digits, unit = strings.TrimSpace(digits[:n]), u.size
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0, errors.New("must be a whole number of bytes, with or without one of the units KiB, MiB, GiB, such as 4MiB")
	}
	if n > math.MaxInt64/int64(unit) {
		return 0, errors.New("must be below 8 EiB")
	}
	return Size(n) * unit, nil
}

// String returns the size with the largest binary unit that divides it.
func (s Size) String() string {
	for i := 2; i >= 0; i-- {
		if u := units[i]; s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText returns String, which ParseSize reads back.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets the size from what ParseSize accepts.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}
