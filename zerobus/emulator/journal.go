package emulator

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// journal appends rows to a file, one JSON object a line:
//
//	{"table":"datafly.events.stream","at":"2026-01-02T03:04:05.6Z","transport":"workspace","row":{…}}
//	{"table":"datafly.events.stream","cleared":true}
//
// The rows of a request are written by one call before they are acknowledged.
// The file is not synced: rows survive the end of the process, not of the machine.
type journal struct {
	path string // "": nothing is written

	mu   sync.Mutex
	file *os.File
	end  int64 // length of the whole lines in the file
}

type journalLine struct {
	Table     string         `json:"table"`
	At        time.Time      `json:"at,omitzero"`
	Transport string         `json:"transport,omitzero"`
	RequestID string         `json:"request_id,omitzero"`
	StreamID  string         `json:"stream_id,omitzero"`
	Offset    int64          `json:"offset,omitzero"`
	Cleared   bool           `json:"cleared,omitzero"`
	Row       jsontext.Value `json:"row,omitzero"`
}

func (l *journalLine) batch() *batch {
	return &batch{at: l.At, transport: cmp.Or(l.Transport, TransportWorkspace), requestID: l.RequestID, streamID: l.StreamID, offset: l.Offset}
}

// open reads the file, calls each for every line, cuts off an incomplete last
// line and leaves the file ready for appending.
func (j *journal) open(each func(*journalLine)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.path == "" || j.file != nil {
		return nil
	}
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open rows file: %w; give a path that can be written", err)
	}
	var end int64
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file; give another path")
	}
	if err == nil {
		end, err = readLines(f, each)
	}
	if err == nil {
		err = f.Truncate(end)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("load rows file %s: %w", j.path, err), f.Close())
	}
	j.file, j.end = f, end
	return nil
}

// readLines returns the length of the whole lines it read. A process that is
// killed while it writes leaves a last line without its newline.
func readLines(f io.Reader, each func(*journalLine)) (end int64, err error) {
	r := bufio.NewReaderSize(f, 1<<16)
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if err == io.EOF {
			return end, nil
		}
		if err != nil {
			return end, err
		}
		var l journalLine
		if json.Unmarshal(line, &l, jsontext.AllowDuplicateNames(true)) != nil || l.Table == "" || !l.Cleared && !bytes.HasPrefix(l.Row, []byte("{")) {
			return end, fmt.Errorf("line %d is not a row record; repair it or move the file away", n)
		}
		each(&l)
		end += int64(len(line))
	}
}

// append writes the rows of one request.
func (j *journal) append(table string, rows []storedRow) error {
	if j.path == "" {
		return nil
	}
	lines := make([]journalLine, len(rows))
	for i, r := range rows {
		b := r.batch
		lines[i] = journalLine{
			Table: table, At: b.at.UTC(), Transport: b.transport,
			RequestID: b.requestID, StreamID: b.streamID, Offset: b.offset, Row: r.json(),
		}
	}
	return j.write(lines...)
}

// cleared records that a table has lost all its rows.
func (j *journal) cleared(table string) error {
	return j.write(journalLine{Table: table, Cleared: true})
}

// write appends lines. What a failed write leaves behind is cut off again, so
// that the file holds whole lines only.
func (j *journal) write(lines ...journalLine) error {
	if j.path == "" || len(lines) == 0 {
		return nil
	}
	var text bytes.Buffer
	for i := range lines {
		if err := json.MarshalWrite(&text, &lines[i], jsontext.PreserveRawStrings(true), jsontext.AllowDuplicateNames(true)); err != nil {
			return fmt.Errorf("write rows file %s: %w", j.path, err)
		}
		text.WriteByte('\n')
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return fmt.Errorf("write rows file %s: it is not open; call Open or Start first", j.path)
	}
	if _, err := j.file.WriteAt(text.Bytes(), j.end); err != nil {
		return fmt.Errorf("write rows file: %w; free space or give another path", errors.Join(err, j.file.Truncate(j.end)))
	}
	j.end += int64(text.Len())
	return nil
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
