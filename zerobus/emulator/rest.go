package emulator

import (
	"errors"
	"mime"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"
)

// InsertPath is the path of the REST insert for a table of the Zerobus
// endpoint.
func InsertPath(table string) string { return "/zerobus/v1/tables/" + table + "/insert" }

// restRoutes are what the Zerobus endpoint serves by HTTP/1.1.
func (e *Emulator) restRoutes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+InsertPath("{name}"), e.endpoint(EndpointInsert, e.cfg.MaxRequestBytes, e.insert))
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("/", noEndpoint)
	return e.active.guard(mux)
}

// insert serves the REST insert. A request is kept whole or not at all.
func (e *Emulator) insert(c *call) answer {
	if err := e.insertRows(c); err != nil {
		return err.answer(c.endpoint)
	}
	return answer{status: http.StatusOK, header: http.Header{"Content-Type": {"application/json"}}, body: []byte("{}")}
}

func (e *Emulator) insertRows(c *call) *apiError {
	if err := e.authorizeEndpoint(c.header.Get("Authorization"), c.path); err != nil {
		return err
	}
	t := e.Table(c.path)
	if t == nil {
		return tableNotFound(c.path)
	}
	if err := e.permitEndpoint(t); err != nil {
		return err
	}
	if header := c.header.Get(TableHeader); header != "" && !strings.EqualFold(header, c.path) {
		return malformed("The header " + TableHeader + " does not name the table of the path")
	}
	if media, _, err := mime.ParseMediaType(c.header.Get("Content-Type")); err != nil || media != "application/json" {
		return malformed("Content-Type must be application/json")
	}
	r := readers.Get().(*rowReader)
	defer func() {
		r.b, r.schema = nil, nil // the body's buffer is not the pool's to hold
		readers.Put(r)
	}()
	r.textTimes = e.cfg.AcceptTextTimestamps
	for {
		r.reset(c.body, t.currentSchema())
		fault := r.records()
		if fault == nil {
			if r.space(); r.pos < len(c.body) {
				r.fail("trailing characters")
				fault = r.malformed(-1)
			}
		}
		if fault != nil {
			if r.problem != "" {
				fault.problem, fault.column = r.problem, ""
			}
			err := invalid(fault)
			err.message = numbered(recordErrorText+fault.jsonProblem(r.pos+1), codeRecord, stateOfRecord)
			return err
		}
		switch err := t.keep(r.accepted(), &batch{at: time.Now(), transport: TransportREST, requestID: c.requestID}); {
		case err == nil:
			e.stats.rows.Add(int64(len(r.rows)))
			return nil
		case errors.Is(err, errAltered): // judge again by the new columns
		case errors.Is(err, errDropped):
			return tableNotFound(t.name)
		default:
			e.log.Error("rows refused", zap.Error(err))
			return &apiError{status: http.StatusInternalServerError, code: "INTERNAL_ERROR", message: "The rows could not be stored; see the emulator's log"}
		}
	}
}
