package emulator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// journal appends rows to a file, one JSON object a line:
//
//	{"table":"datafly.events.stream","at":"2026-01-02T03:04:05.6Z","transport":"workspace","row":{…}}
//	{"table":"datafly.events.stream","cleared":true}
//
// A request's rows are written by one call before they are acknowledged, and
// not synced: rows survive the end of the process, not of the machine.
type journal struct {
	path string // "": nothing is written

	mu   sync.Mutex
	file *os.File
	end  int64 // length of the whole lines in the file
}

type journalLine struct {
	Table     string          `json:"table"`
	At        time.Time       `json:"at,omitzero"`
	Transport string          `json:"transport,omitempty"`
	RequestID string          `json:"request_id,omitempty"`
	StreamID  string          `json:"stream_id,omitempty"`
	Offset    int64           `json:"offset,omitempty"`
	Cleared   bool            `json:"cleared,omitempty"`
	Row       json.RawMessage `json:"row,omitempty"`
}

func (l journalLine) batch() *batch {
	b := &batch{at: l.At, transport: l.Transport, requestID: l.RequestID, streamID: l.StreamID, offset: l.Offset}
	if b.transport == "" {
		b.transport = TransportWorkspace
	}
	return b
}

// open reads the file, hands every line to each, cuts off a torn last line and
// leaves the file ready for appending.
func (j *journal) open(each func(journalLine)) error {
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

// readLines returns the length of the whole lines it read. A last line
// without its newline is what a process killed in mid-write leaves behind.
func readLines(f io.Reader, each func(journalLine)) (end int64, err error) {
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
		if err := json.Unmarshal(line, &l); err != nil || l.Table == "" || !l.Cleared && !bytes.HasPrefix(l.Row, []byte("{")) {
			return end, fmt.Errorf("line %d is not a row record; repair it or move the file away", n)
		}
		each(l)
		end += int64(len(line))
	}
}

// rows appends the rows of one request.
func (j *journal) rows(table string, rows []storedRow) error {
	if j.path == "" || len(rows) == 0 {
		return nil
	}
	b := rows[0].batch
	head, err := json.Marshal(journalLine{
		Table: table, At: b.at.UTC(), Transport: b.transport,
		RequestID: b.requestID, StreamID: b.streamID, Offset: b.offset,
	})
	if err != nil {
		return fmt.Errorf("write rows file %s: %w", j.path, err)
	}
	var lines []byte
	for _, r := range rows {
		row := r.json()
		if bytes.ContainsAny(row, "\n\r") { // blanks between tokens; strings cannot hold them
			v := jsontext.Value(bytes.Clone(row))
			if err := v.Compact(); err != nil {
				return fmt.Errorf("write rows file %s: %w", j.path, err)
			}
			row = v
		}
		lines = append(append(lines, head[:len(head)-1]...), `,"row":`...)
		lines = append(append(lines, row...), '}', '\n')
	}
	return j.write(lines)
}

// cleared notes that a table has lost all its rows.
func (j *journal) cleared(table string) error {
	line, err := json.Marshal(journalLine{Table: table, Cleared: true})
	if err != nil || j.path == "" {
		return err
	}
	return j.write(append(line, '\n'))
}

// write appends lines. What a failed write leaves behind is cut off again, so
// that the file holds whole lines only.
func (j *journal) write(lines []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return fmt.Errorf("write rows file %s: it is not open; call Open or Start first", j.path)
	}
	if _, err := j.file.WriteAt(lines, j.end); err != nil {
		return fmt.Errorf("write rows file: %w; free space or give another path", errors.Join(err, j.file.Truncate(j.end)))
	}
	j.end += int64(len(lines))
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
