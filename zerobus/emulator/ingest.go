package emulator

import (
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

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
	r := newReader(c.body)
	defer r.release()
	var rows [][]byte
	list := func() error {
		if err := r.open('['); err != nil {
			return err
		}
		for r.dec.PeekKind() != ']' {
			v, err := r.dec.ReadValue()
			if err != nil {
				return err
			}
			rows = append(rows, v)
		}
		_, err := r.dec.ReadToken()
		return err
	}
	read := list
	if c.endpoint == EndpointIngest {
		read = func() error {
			return r.members(func(name []byte) (err error) {
				switch kind := r.dec.PeekKind(); {
				case string(name) == "records" && kind == '[':
					return list()
				case string(name) == "table" && kind == '"':
					name, err = r.name()
					c.table = string(name)
					return err
				}
				return r.skip()
			})
		}
	}
	if read() == nil {
		c.records = rows
	}
}

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
	err := e.authorize(c)
	n := 0
	if err == nil {
		n, err = e.keepJSON(c, TransportWorkspace, e.readIngest, noTable)
	}
	if err != nil {
		return err.answer(c.endpoint)
	}
	return jsonBody(strconv.AppendInt([]byte(`{"records_ingested":`), int64(n), 10), '}')
}

// insert serves the REST insert. A request is kept whole or not at all.
func (e *Emulator) insert(c *call) answer {
	err := e.authorizeEndpoint(c.header.Get("Authorization"), c.path)
	if err == nil {
		_, err = e.keepJSON(c, TransportREST, e.readInsert, tableNotFound)
	}
	if err != nil {
		return err.answer(c.endpoint)
	}
	return jsonBody([]byte("{}"))
}

func jsonBody(body []byte, end ...byte) answer {
	return answer{status: http.StatusOK, header: http.Header{"Content-Type": {"application/json"}}, body: append(body, end...)}
}

// keepJSON keeps the rows that read makes of the call's body; gone is the
// answer when the table is dropped meanwhile.
func (e *Emulator) keepJSON(c *call, transport string, read func(*call, *rowReader) (*Table, *apiError), gone func(string) *apiError) (rows int, _ *apiError) {
	r := newReader(c.body)
	defer r.release()
	r.textTimes = e.cfg.AcceptTextTimestamps
	for again := true; again; {
		t, err := read(c, r)
		if err != nil {
			return 0, err
		}
		again, err = e.keep(t, r.schema, r.rows, &batch{at: time.Now(), transport: transport, requestID: c.requestID}, gone)
		if err != nil {
			return 0, err
		}
	}
	return len(r.rows), nil
}

// keep stores rows that fit schema. With again true the columns have changed
// meanwhile, and the rows are to be judged by the new ones.
func (e *Emulator) keep(t *Table, s *schema, rows []newRow, b *batch, gone func(string) *apiError) (again bool, _ *apiError) {
	switch err := t.keep(s, rows, b); {
	case err == nil:
		e.stats.count(func(s *Stats) { s.Rows += int64(len(rows)) })
		return false, nil
	case errors.Is(err, errAltered):
		return true, nil
	case errors.Is(err, errDropped):
		return false, gone(t.name)
	default:
		e.log.Error("rows refused", zap.Error(err))
		return false, &apiError{status: http.StatusInternalServerError, code: "INTERNAL_ERROR", message: "The rows could not be stored; see the emulator's log"}
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

// wantJSON refuses a body of another media type.
func wantJSON(c *call) *apiError {
	if media, _, err := mime.ParseMediaType(c.header.Get("Content-Type")); err != nil || media != "application/json" {
		return malformed("Content-Type must be application/json")
	}
	return nil
}

// readInsert goes through the array of rows of a REST insert.
func (e *Emulator) readInsert(c *call, r *rowReader) (*Table, *apiError) {
	t := e.Table(c.path)
	if t == nil {
		return nil, tableNotFound(c.path)
	}
	if err := e.permitEndpoint(t); err != nil {
		return nil, err
	}
	if header := c.header.Get(TableHeader); header != "" && !strings.EqualFold(header, c.path) {
		return nil, malformed("The header " + TableHeader + " does not name the table of the path")
	}
	if err := wantJSON(c); err != nil {
		return nil, err
	}
	r.load(c.body, 0)
	r.begin(t.currentSchema())
	fault := r.records()
	if at := r.trailing(); fault == nil && at >= 0 {
		fault = &rowFault{row: -1, at: at, malformed: true, problem: "trailing characters"}
	}
	if fault != nil {
		err := invalid(fault)
		err.message = numbered(recordErrorText+fault.jsonProblem(), codeRecord, stateOfRecord)
		return nil, err
	}
	return t, nil
}

// errRefused ends the reading of a body whose refusal is known.
var errRefused = errors.New("refused")

// readIngest goes through {"table":…,"records":[…]} once. Where records stand
// before table, they are stepped over first and read when it is known.
func (e *Emulator) readIngest(c *call, r *rowReader) (t *Table, refused *apiError) {
	if err := wantJSON(c); err != nil {
		return nil, err
	}
	refuse := func(err *apiError) error {
		refused = err
		return errRefused
	}
	records := func() error {
		r.begin(t.currentSchema())
		if f := r.records(); f != nil {
			return refuse(invalid(f))
		}
		return nil
	}
	later, haveRecords := -1, false // later is where records stand when the table is not known yet
	r.load(c.body, 0)
	err := r.members(func(name []byte) error {
		switch string(name) {
		case "table":
			if kind := r.dec.PeekKind(); kind != '"' && kind > 0 {
				return errUnexpected
			}
			text, err := r.name()
			if err != nil {
				return err
			}
			if t != nil {
				return refuse(malformed("the field table occurs twice"))
			}
			if t, refused = e.find(string(text), PrivilegeModify); refused != nil {
				return errRefused
			}
			return nil
		case "records":
			if haveRecords {
				return refuse(malformed("the field records occurs twice"))
			}
			haveRecords = true
			if t == nil {
				later = r.next()
				return r.skip()
			}
			return records()
		}
		return refuse(malformed("the body has a field other than table and records"))
	})
	switch {
	case refused != nil:
		return nil, refused
	case err != nil:
		return nil, invalid(r.malformed(-1, err))
	}
	if at := r.trailing(); at >= 0 {
		return nil, invalid(&rowFault{row: -1, at: at, malformed: true, problem: "text after the JSON body"})
	}
	switch {
	case t == nil:
		return nil, malformed("the field table is missing")
	case !haveRecords:
		return nil, malformed("the field records is missing")
	case later >= 0:
		r.load(c.body[later:], later)
		_ = records() // refused says what there is to say
	}
	return t, refused
}
