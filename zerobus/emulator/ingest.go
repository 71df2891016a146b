package emulator

import (
	"errors"
	"mime"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

// IngestRequest is what a hook sees of a request that brings rows: to the
// ingest endpoint, to the REST insert, or a message on a gRPC stream.
type IngestRequest struct {
	Endpoint  string // EndpointIngest, EndpointInsert or EndpointStream
	Number    int64  // 1 for the first of this endpoint since New or Reset
	Table     string
	RequestID string
	StreamID  string // of a gRPC stream, with the message's offset
	Offset    int64
	Rows      [][]byte // as JSON; valid during the call only
}

// OnIngest sets a hook that is asked about every request that brings rows,
// before any fault. A Fault it returns applies to this request, whatever its
// Endpoint, Table, Rows, Count and Probability; nil leaves the request to the
// faults added. The hook runs on the request's goroutine, several at once. A
// nil hook removes it.
func (e *Emulator) OnIngest(hook func(IngestRequest) *Fault) {
	if hook == nil {
		e.hook.Store(nil)
		return
	}
	e.hook.Store(&hook)
}

// bringsRows reports whether requests to an endpoint hold rows.
func bringsRows(endpoint string) bool {
	return endpoint == EndpointIngest || endpoint == EndpointInsert || endpoint == EndpointStream
}

// fault finds what goes wrong with a call, or nil.
func (e *Emulator) fault(c *call) *hit {
	if hook := e.hook.Load(); hook != nil && bringsRows(c.endpoint) {
		f := (*hook)(IngestRequest{
			Endpoint: c.endpoint, Number: c.number, Table: c.tableName(), RequestID: c.requestID,
			StreamID: c.streamID, Offset: c.offset, Rows: c.rows(),
		})
		if f != nil {
			once := *f
			once.Endpoint, once.Table, once.Count, once.Probability = c.endpoint, "", 0, 0
			r, err := newRule(once)
			if err != nil {
				e.log.Error("ingest hook returned a fault that cannot apply", zap.Error(err))
				text := err.Error()
				return &hit{Fault: Fault{Effect: EffectStatus, Status: http.StatusInternalServerError, Message: text}}
			}
			row := 0
			if r.rows != nil {
				row, _ = r.fits(c)
			}
			return &hit{Fault: once, row: max(row, 0), wait: r.Latency.draw(r.dice.NormFloat64)}
		}
	}
	return e.faults.pick(c)
}

// tableName is the table a call names, as far as it can be made out.
func (c *call) tableName() string {
	if c.endpoint != EndpointIngest {
		return c.path
	}
	c.look()
	return c.table
}

// rows are the records of a call, none if the body is broken.
func (c *call) rows() [][]byte {
	c.look()
	return c.records
}

// look splits an ingest body into its rows without judging them. It runs only
// when a hook or a fault asks.
func (c *call) look() {
	if c.split || !bringsRows(c.endpoint) {
		return
	}
	c.split = true
	s := scanner{b: c.body}
	var rows [][]byte
	list := func() bool {
		return s.members('[', func([]byte, bool) bool {
			from := s.pos
			if !s.skip(0) {
				return false
			}
			rows = append(rows, c.body[from:s.pos])
			return true
		})
	}
	if c.endpoint == EndpointInsert {
		if list() {
			c.records = rows
		}
		return
	}
	ok := s.members('{', func(name []byte, _ bool) bool {
		switch string(name) {
		case "table":
			text, _, ok := s.str()
			c.table = string(text)
			return ok
		case "records":
			if s.peek() != '[' {
				break
			}
			return list()
		}
		return s.skip(0)
	})
	if ok {
		c.records = rows
	}
}

var readers = sync.Pool{New: func() any { return new(rowReader) }}

func invalid(f *rowFault) *apiError {
	return &apiError{status: http.StatusBadRequest, code: "INVALID_PARAMETER_VALUE", message: f.Error(), fault: f}
}

func malformed(problem string) *apiError { return invalid(&rowFault{row: -1, problem: problem}) }

// ingest serves POST /api/2.0/streaming-ingestion/ingest. A request is kept
// whole or not at all.
func (e *Emulator) ingest(c *call) answer {
	if e.apiOff.Load() {
		return (&apiError{
			status: http.StatusNotFound, code: "ENDPOINT_NOT_FOUND",
			message: "No API found for 'POST " + IngestPath + "'",
		}).answer(c.endpoint)
	}
	n, err := e.accept(c)
	if err != nil {
		return err.answer(c.endpoint)
	}
	return answer{
		status: http.StatusOK, header: http.Header{"Content-Type": {"application/json"}},
		body: strconv.AppendInt([]byte(`{"records_ingested":`), int64(n), 10),
	}.closed()
}

func (a answer) closed() answer {
	a.body = append(a.body, '}')
	return a
}

func (e *Emulator) accept(c *call) (rows int, _ *apiError) {
	if err := e.authorize(c); err != nil {
		return 0, err
	}
	if media, _, err := mime.ParseMediaType(c.header.Get("Content-Type")); err != nil || media != "application/json" {
		return 0, malformed("Content-Type must be application/json")
	}
	r := readers.Get().(*rowReader)
	defer func() {
		r.b, r.schema = nil, nil // the body's buffer is not the pool's to hold
		readers.Put(r)
	}()
	r.textTimes = e.cfg.AcceptTextTimestamps
	for {
		t, err := e.read(c, r)
		if err != nil {
			return 0, err
		}
		switch err := t.keep(r.accepted(), &batch{at: time.Now(), transport: TransportWorkspace, requestID: c.requestID}); {
		case err == nil:
			e.stats.rows.Add(int64(len(r.rows)))
			return len(r.rows), nil
		case errors.Is(err, errAltered): // judge again by the new columns
		case errors.Is(err, errDropped):
			return 0, noTable(t.name)
		default:
			e.log.Error("rows refused", zap.Error(err))
			return 0, &apiError{status: http.StatusInternalServerError, code: "INTERNAL_ERROR", message: "The rows could not be stored; see the emulator's log"}
		}
	}
}

func noTable(name string) *apiError {
	return &apiError{status: http.StatusNotFound, code: "TABLE_DOES_NOT_EXIST", message: "Table '" + name + "' does not exist."}
}

// find looks up a table that a client named and may use for privilege.
func (e *Emulator) find(name, privilege string) (*Table, *apiError) {
	t := e.Table(name)
	if t == nil {
		return nil, noTable(printable(name))
	}
	if err := e.permit(t.name, privilege); err != nil || privilege != PrivilegeModify {
		return t, err
	}
	return t, t.takesRows()
}

// read goes through {"table":…,"records":[…]} once. Where records stand
// before table, they are stepped over first and read when it is known.
func (e *Emulator) read(c *call, r *rowReader) (t *Table, refused *apiError) {
	*r = rowReader{
		scanner: scanner{b: c.body}, textTimes: r.textTimes, rows: r.rows[:0], ids: r.ids, idText: r.idText,
		seen: r.seen, after: r.after, scratch: r.scratch,
	}
	later := -1 // where records stand, when the table is not known yet
	haveRecords := false
	open := func(at int) {
		s := t.currentSchema()
		r.reset(c.body, s)
		r.pos = at
		if f := r.records(); f != nil {
			refused = invalid(f)
		}
	}
	ok := r.scanner.members('{', func(name []byte, _ bool) bool {
		switch string(name) {
		case "table":
			text, escaped, ok := r.str()
			if !ok {
				return false
			}
			if escaped {
				text = r.unescape(text)
			}
			if t != nil {
				refused = malformed("the field table occurs twice")
				return false
			}
			t, refused = e.find(string(text), PrivilegeModify)
			return refused == nil
		case "records":
			if haveRecords {
				refused = malformed("the field records occurs twice")
				return false
			}
			haveRecords = true
			if t == nil {
				later = r.pos
				return r.skip(0)
			}
			open(r.pos)
			return refused == nil
		}
		refused = malformed("the body has a field other than table and records")
		return false
	})
	switch {
	case refused != nil:
		return nil, refused
	case !ok:
		return nil, invalid(r.malformed(-1))
	}
	if r.space(); r.pos != len(c.body) {
		r.fail("text after the JSON body")
		return nil, invalid(r.malformed(-1))
	}
	switch {
	case t == nil:
		return nil, malformed("the field table is missing")
	case !haveRecords:
		return nil, malformed("the field records is missing")
	case later >= 0:
		open(later)
	}
	return t, refused
}
