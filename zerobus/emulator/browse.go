package emulator

// Count is how many rows have been kept since the table was created or
// reset, whether or not they are still in the ring.
func (t *Table) Count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return int(t.count)
}

// Bytes is the size of these rows as they arrived.
func (t *Table) Bytes() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.bytes
}

// Distinct is the number of different non-NULL values of a column. For
// message_id it counts every row ever kept, unless Config.NoIndex is set; for any other column it reads the
// rows still in the ring.
func (t *Table) Distinct(column string) int {
	if column == idColumn && !t.noIndex {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return t.ids.seen.size
	}
	return len(t.counts(column))
}

// Duplicates lists the values of a column that more than one row has, the
// most frequent first, over the same rows as Distinct.
func (t *Table) Duplicates(column string) []Duplicate {
	if column == idColumn && !t.noIndex {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return duplicates(t.ids.repeats)
	}
	return duplicates(t.counts(column))
}

func (t *Table) counts(column string) map[string]int {
	counts := map[string]int{}
	var r rowReader
	for _, row := range t.snapshot(0) {
		if text, ok := r.column(row.JSON, column); ok {
			counts[string(text)]++
		}
	}
	return counts
}

// Newest returns up to n rows, the newest first.
func (t *Table) Newest(n int) []Row {
	if n <= 0 {
		return nil
	}
	rows := t.snapshot(n)
	for i, j := 0, len(rows)-1; i < j; i, j = i+1, j-1 {
		rows[i], rows[j] = rows[j], rows[i]
	}
	return rows
}

// Rows returns the rows in the ring for which keep is true, the oldest first;
// nil keeps all. keep runs without a lock held.
func (t *Table) Rows(keep func(Row) bool) []Row {
	rows := t.snapshot(0)
	if keep == nil {
		return rows
	}
	out := rows[:0]
	for _, r := range rows {
		if keep(r) {
			out = append(out, r)
		}
	}
	return out
}

// Stream returns the rows in the ring that came by one gRPC stream, in the
// order they were kept, which is that of their offsets.
func (t *Table) Stream(id string) []Row {
	return t.Rows(func(r Row) bool { return r.StreamID == id && id != "" })
}

// snapshot lists the newest n rows (0: all that are kept), the oldest first.
func (t *Table) snapshot(n int) []Row {
	return t.asRows(t.held(n))
}

// asRows shows rows, the last of which is the table's row number last.
func (t *Table) asRows(rows []storedRow, last int64) []Row {
	out := make([]Row, len(rows))
	for i, s := range rows {
		b := s.batch
		out[i] = Row{
			Seq: last - int64(len(rows)-1-i), ReceivedAt: b.at, Transport: b.transport,
			RequestID: b.requestID, StreamID: b.streamID, Offset: b.offset, JSON: s.json(),
		}
	}
	return out
}

// held copies the newest n rows (0: all) of the ring, the oldest first, and
// says which number the last of them has.
func (t *Table) held(n int) (rows []storedRow, last int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	held := len(t.ring)
	if n == 0 || n > held {
		n = held
	}
	rows = make([]storedRow, n)
	for i := range rows {
		rows[i] = t.ring[(t.oldest+held-n+i)%held]
	}
	return rows, t.count
}
