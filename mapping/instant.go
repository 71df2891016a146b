package mapping

import "strconv"

// instant is a point in time: seconds since 1970-01-01T00:00:00Z and
// nanoseconds within that second (0 to 999,999,999, also before 1970).
type instant struct {
	sec  int64
	nano int64
}

func (t instant) micros() int64 { return t.sec*1e6 + t.nano/1e3 }
func (t instant) millis() int64 { return t.sec*1e3 + t.nano/1e6 }
func (t instant) days() int64   { return floorDiv(t.sec, 86400) }

// Delta's TIMESTAMP and DATE reach from year 1 to year 9999.
const (
	minSec = -62135596800
	maxSec = 253402300799
)

func (t instant) inRange() bool { return t.sec >= minSec && t.sec <= maxSec }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// parseInstant reads RFC 3339 with some tolerance: a blank for the T, small t
// and z, 0 to 9 digits of fraction, an offset with or without a colon, no zone
// (taken as UTC), no seconds, or a date alone (midnight UTC); and a number in
// text, see epochInstant. Dates and times of day that do not exist are refused.
func parseInstant(b []byte) (t instant, ok bool) {
	if len(b) < 10 || b[4] != '-' || b[7] != '-' {
		if isNumber(b) {
			return epochInstant(b)
		}
		return t, false
	}
	year, ok1 := num(b[0:4])
	month, ok2 := num(b[5:7])
	day, ok3 := num(b[8:10])
	if !ok1 || !ok2 || !ok3 || year < 1 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return t, false
	}
	t.sec = daysFromCivil(year, month, day) * 86400
	if len(b) == 10 {
		return t, true
	}
	if b = b[10:]; len(b) < 6 || (b[0] != 'T' && b[0] != 't' && b[0] != ' ') || b[3] != ':' {
		return t, false
	}
	hour, ok1 := num(b[1:3])
	minute, ok2 := num(b[4:6])
	if !ok1 || !ok2 || hour > 23 || minute > 59 {
		return t, false
	}
	b = b[6:]
	var sec int64
	if len(b) > 0 && b[0] == ':' {
		if len(b) < 3 {
			return t, false
		}
		if sec, ok = num(b[1:3]); !ok || sec > 60 {
			return t, false
		}
		b = b[3:]
		if len(b) > 0 && (b[0] == '.' || b[0] == ',') {
			n, unit := 1, int64(1e9)
			for ; n < len(b) && b[n]-'0' <= 9; n++ {
				unit /= 10
				t.nano += int64(b[n]-'0') * unit
			}
			if n == 1 || n > 10 {
				return t, false
			}
			b = b[n:]
		}
	}
	offset, ok := parseOffset(b)
	if !ok {
		return t, false
	}
	t.sec += hour*3600 + minute*60 + sec - offset
	if sec == 60 && floorDiv(t.sec, 86400)*86400 != t.sec {
		return t, false // a leap second ends a day of UTC, nothing else
	}
	return t, t.inRange()
}

// parseOffset reads Z, +hh:mm, +hhmm, +hh or nothing, in seconds east.
func parseOffset(b []byte) (sec int64, ok bool) {
	if len(b) == 0 || (len(b) == 1 && (b[0] == 'Z' || b[0] == 'z')) {
		return 0, true
	}
	sign := int64(1)
	switch b[0] {
	case '-':
		sign = -1
	case '+':
	default:
		return 0, false
	}
	b = b[1:]
	if len(b) == 5 && b[2] == ':' {
		h, ok1 := num(b[:2])
		m, ok2 := num(b[3:])
		return sign * (h*3600 + m*60), ok1 && ok2 && h < 24 && m < 60
	}
	if len(b) != 2 && len(b) != 4 {
		return 0, false
	}
	h, ok1 := num(b[:2])
	m, ok2 := num(b[2:])
	return sign * (h*3600 + m*60), ok1 && ok2 && h < 24 && m < 60
}

// num reads decimal digits and nothing else; no digits are zero.
func num(b []byte) (v int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	return v, true
}

// epochInstant reads a JSON number as time since 1970, its unit decided by its
// size: below 1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds,
// else nanoseconds. A fraction counts down to the nanosecond.
func epochInstant(text []byte) (t instant, ok bool) {
	var buf [64]byte
	d, ok := parseDecimal(buf[:0], text)
	if !ok {
		return t, false
	}
	whole := len(d.digits) - d.scale // digits left of the point
	unit := 0                        // power of ten of one unit in nanoseconds
	switch {
	case whole <= 11:
		unit = 9
	case whole <= 14:
		unit = 6
	case whole <= 17:
		unit = 3
	case whole > 19:
		return t, false
	}
	var sec, nano int64
	for i, c := range d.digits {
		v := int64(c - '0')
		power := whole - 1 - i + unit // of ten, in nanoseconds
		switch {
		case power >= 9:
			sec += v * pow10(power-9)
		case power >= 0:
			nano += v * pow10(power)
		}
	}
	if d.neg {
		sec, nano = -sec, -nano
		if nano < 0 {
			sec, nano = sec-1, nano+1e9
		}
	}
	t = instant{sec, nano}
	return t, t.inRange()
}

func pow10(n int) int64 {
	v := int64(1)
	for ; n > 0; n-- {
		v *= 10
	}
	return v
}

func daysIn(year, month int64) int64 {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysFromCivil counts days since 1970-01-01 in the proleptic Gregorian
// calendar. It counts years from March, so that the leap day ends a year
// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
func daysFromCivil(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := floorDiv(year, 400)
	yoe := year - era*400
	doy := (153*(month-3)+2)/5 + day - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

// civilFromDays is the way back.
func civilFromDays(days int64) (year, month, day int64) {
	days += 719468
	era := floorDiv(days, 146097)
	doe := days - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = doy - (153*mp+2)/5 + 1
	month = mp + 3
	year = yoe + era*400
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

// appendDate appends yyyy-mm-dd in UTC.
func (t instant) appendDate(dst []byte) []byte {
	y, m, d := civilFromDays(t.days())
	dst = pad(dst, y, 4)
	dst = append(dst, '-')
	dst = pad(dst, m, 2)
	dst = append(dst, '-')
	return pad(dst, d, 2)
}

// appendRFC3339 appends date and time in UTC to the microsecond, without
// trailing zeros in the fraction, and the given zone mark.
func (t instant) appendRFC3339(dst []byte, zone string) []byte {
	dst = t.appendDate(dst)
	s := t.sec - t.days()*86400
	dst = append(dst, 'T')
	dst = pad(dst, s/3600, 2)
	dst = append(dst, ':')
	dst = pad(dst, s/60%60, 2)
	dst = append(dst, ':')
	dst = pad(dst, s%60, 2)
	if us := t.nano / 1e3; us > 0 {
		dst = append(dst, '.')
		dst = pad(dst, us, 6)
		for dst[len(dst)-1] == '0' {
			dst = dst[:len(dst)-1]
		}
	}
	return append(dst, zone...)
}

// pad appends v, which is not negative, with zeros up to the width.
func pad(dst []byte, v int64, width int) []byte {
	limit := int64(1)
	for n := 1; n < width; n++ {
		limit *= 10
	}
	for ; limit > 1 && v < limit; limit /= 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, v, 10)
}
