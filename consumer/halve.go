package consumer

import "errors"

// A halver owns a run of rows of which the sink may refuse some. Rows are named
// by their position.
type halver interface {
	// sendRows sends rows lo to hi: with Write at first, with Probe once one of
	// them is known to be refused.
	sendRows(lo, hi int, probe bool) error
	// alone takes a row that was refused standing alone. An error ends the search.
	alone(row int, no refused, err error) error
	// split hears that refused rows are about to be sent as two halves.
	split()
}

// writeHalving has h write rows lo to hi, and again in halves what is refused,
// until the bad row stands alone. One bad row among n costs at most
// 2*ceil(log2 n) Probes.
func writeHalving(h halver, lo, hi int, probe bool) error {
	err := h.sendRows(lo, hi, probe)
	var no refused
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &no):
		return err
	case hi-lo == 1:
		return h.alone(lo, no, err)
	}
	h.split()
	mid := lo + (hi-lo)/2
	if err := writeHalving(h, lo, mid, true); err != nil {
		return err
	}
	return writeHalving(h, mid, hi, true)
}

// reach returns the end of the Write that begins with row lo: at most maxRows
// rows and maxBytes bytes, at least one row, and none that is settled already.
func reach(rows [][]byte, settled []bool, lo, maxRows int, maxBytes int64) int {
	hi, size := lo+1, len(rows[lo])
	for hi < len(rows) && !settled[hi] && hi-lo < maxRows && int64(size+len(rows[hi])) <= maxBytes {
		size += len(rows[hi])
		hi++
	}
	return hi
}
