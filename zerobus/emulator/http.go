package emulator

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"
	"go.uber.org/zap"
)

// The paths of the workspace.
const (
	TokenPath   = "/oidc/v1/token"
	IngestPath  = "/api/2.0/streaming-ingestion/ingest"
	ColumnsPath = "/api/2.1/unity-catalog/tables/"                         // followed by catalog.schema.table
	TagsPath    = "/api/2.1/unity-catalog/entity-tag-assignments/columns/" // followed by catalog.schema.table.column and /tags

	MetastorePath  = "/api/2.1/unity-catalog/metastore_summary"
	AssignmentPath = "/api/2.1/unity-catalog/current-metastore-assignment"
	StatementsPath = "/api/2.0/sql/statements"                       // and that followed by an id, and that by /cancel
	WarehousesPath = "/api/2.0/sql/warehouses"                       // and that followed by an id
	CatalogsPath   = "/api/2.1/unity-catalog/catalogs/"              // followed by a name
	SchemasPath    = "/api/2.1/unity-catalog/schemas/"               // followed by catalog.schema
	GrantsPath     = "/api/2.1/unity-catalog/permissions/"           // followed by type and full name
	EffectivePath  = "/api/2.1/unity-catalog/effective-permissions/" // likewise
)

// InsertPath is the path of the REST insert for a table, on the Zerobus endpoint.
func InsertPath(table string) string { return "/zerobus/v1/tables/" + table + "/insert" }

// routes are the workspace's endpoints and, under /emulator/, the admin API.
func (e *Emulator) routes() http.Handler {
	mux := e.mux()
	mux.Handle("POST "+TokenPath, e.endpoint(EndpointToken, maxFormBytes, e.token))
	mux.Handle("POST "+IngestPath, e.endpoint(EndpointIngest, e.cfg.MaxRequestBytes, e.ingest))
	mux.Handle("GET "+ColumnsPath+"{name}", e.endpoint(EndpointColumns, maxFormBytes, e.columns))
	mux.Handle("GET "+TagsPath+"{name}/tags", e.endpoint(EndpointColumns, maxFormBytes, e.tags))
	mux.Handle("GET "+MetastorePath, e.endpoint(EndpointMetastore, maxFormBytes, e.metastore))
	mux.Handle("GET "+AssignmentPath, e.endpoint(EndpointAssignment, maxFormBytes, e.assignment))
	mux.Handle("GET "+CatalogsPath+"{name}", e.endpoint(EndpointCatalog, maxFormBytes, e.describe(kindCatalog)))
	mux.Handle("GET "+SchemasPath+"{name}", e.endpoint(EndpointSchema, maxFormBytes, e.describe(kindSchema)))
	mux.Handle("GET "+GrantsPath+"{type}/{name}", e.endpoint(EndpointPermissions, maxFormBytes, e.permissions(false)))
	mux.Handle("PATCH "+GrantsPath+"{type}/{name}", e.endpoint(EndpointGrant, maxFormBytes, e.changePermissions))
	mux.Handle("GET "+EffectivePath+"{type}/{name}", e.endpoint(EndpointEffective, maxFormBytes, e.permissions(true)))
	mux.Handle("POST "+StatementsPath, e.endpoint(EndpointStatement, maxStatementText, e.execute))
	mux.Handle("GET "+StatementsPath+"/{name}", e.endpoint(EndpointStatementResult, maxFormBytes, e.statement))
	mux.Handle("POST "+StatementsPath+"/{name}/cancel", e.endpoint(EndpointStatementCancel, maxFormBytes, e.cancel))
	mux.Handle("GET "+WarehousesPath, e.endpoint(EndpointWarehouses, maxFormBytes, e.listWarehouses))
	mux.Handle("GET "+WarehousesPath+"/{name}", e.endpoint(EndpointWarehouses, maxFormBytes, e.oneWarehouse))
	// The admin API asks for no credentials. It refuses web pages of other origins.
	mux.Handle("/emulator/", http.NewCrossOriginProtection().Handler(e.admin()))
	return e.active.track(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !e.cfg.NoWorkspaceHeader {
			w.Header().Set(WorkspaceHeader, e.cfg.WorkspaceID)
		}
		mux.ServeHTTP(w, r)
	}))
}

// WorkspaceHeader carries the workspace's id in each answer of the workspace.
const WorkspaceHeader = "X-Databricks-Org-Id"

// restRoutes are what the Zerobus endpoint serves by HTTP/1.1.
func (e *Emulator) restRoutes() http.Handler {
	mux := e.mux()
	mux.Handle("POST "+InsertPath("{name}"), e.endpoint(EndpointInsert, e.cfg.MaxRequestBytes, e.insert))
	return e.active.track(mux)
}

// mux has what both ports serve.
func (e *Emulator) mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusNotFound, noAPI(printable(r.Method)+" "+printable(r.URL.Path)).body(""))
	})
	return mux
}

// reply sends JSON outside the workspace's endpoints.
func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(marshal(v), '\n')) // the client may have left
}

func marshal(v any) []byte {
	body, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowDuplicateNames(true))
	if err != nil {
		return []byte(`{"error":"answer cannot be encoded"}`)
	}
	return body
}

// call is one request to an endpoint, with its body read, or one message on a
// gRPC stream.
type call struct {
	endpoint  string
	number    int64 // of the endpoint's requests, from 1
	header    http.Header
	body      []byte
	requestID string
	principal string          // whose token it has; set by authorize
	gone      <-chan struct{} // closed when the client has left
	kind      string          // the path's type of securable
	query     url.Values
	table     string // the path's name; of the ingest endpoint that of the body, once split is true
	streamID  string // of a message on a gRPC stream, with its offset
	offset    int64

	split   bool     // whether the body has been split into records
	records [][]byte // as JSON
}

// maxFormBytes bounds the body of a token request.
const maxFormBytes = 64 << 10

// handler serves a call. The result is encoded as JSON.
type handler func(*call) (any, *apiError)

// endpoint serves requests with f, or by the fault that applies to one.
func (e *Emulator) endpoint(name string, limit int64, f handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{endpoint: name, number: e.stats.begin(name), header: r.Header, requestID: printable(r.Header.Get("X-Request-Id")), table: r.PathValue("name")}
		c.kind, c.query, c.gone = r.PathValue("type"), r.URL.Query(), r.Context().Done()
		body, err := readBody(r, limit)
		if err != nil {
			e.send(w, r, c, c.answer(nil, err))
			return
		}
		c.body = body
		e.stats.count(func(s *Stats) { s.Bytes += int64(len(body)) })
		serve := func() answer { return c.answer(f(c)) }
		if h := e.fault(c); h != nil {
			e.applyFault(w, r, c, h, serve)
			return
		}
		a := serve()
		e.delay(r, c)
		e.send(w, r, c, a)
	})
}

// delay waits for the configured latency of the endpoints that take rows.
func (e *Emulator) delay(r *http.Request, c *call) {
	if takesRows(c.endpoint) && !e.active.wait(r.Context(), e.cfg.Latency.drawAny()) {
		panic(http.ErrAbortHandler) // the client has left
	}
}

// readBody reads a whole body and unpacks gzip. Neither form may exceed limit.
func readBody(r *http.Request, limit int64) ([]byte, *apiError) {
	sent := &io.LimitedReader{R: r.Body, N: limit + 1}
	src, hint := io.Reader(sent), min(r.ContentLength, limit)
	var err error
	switch strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))) {
	case "", "identity":
	case "gzip":
		var z *gzip.Reader
		if z, err = gzip.NewReader(src); err == nil {
			src, hint = io.LimitReader(z, limit+1), 3*hint
		}
	default:
		return nil, &apiError{status: http.StatusUnsupportedMediaType, code: "INVALID_PARAMETER_VALUE", message: "Content-Encoding must be gzip or absent"}
	}
	var buf bytes.Buffer
	if err == nil {
		buf.Grow(max(int(hint), 0) + bytes.MinRead)
		_, err = buf.ReadFrom(src)
	}
	var large *http.MaxBytesError
	switch {
	case int64(buf.Len()) > limit, sent.N <= 0, errors.As(err, &large):
		return nil, refusal(http.StatusRequestEntityTooLarge, "The request body is larger than "+strconv.FormatInt(limit, 10)+" bytes")
	case err != nil:
		return nil, refusal(http.StatusBadRequest, "The request body cannot be read or unpacked")
	case buf.Cap() > buf.Len()*5/4+bytes.MinRead: // rows that are kept hold on to it
		return bytes.Clone(buf.Bytes()), nil
	}
	return buf.Bytes(), nil
}

// printable keeps what is safe to repeat of a client's text: visible ASCII, at
// most 128 bytes.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x21 || r > 0x7e {
			return -1
		}
		return r
	}, s[:min(len(s), 128)])
}

// answer is a response before it is sent, so that a fault can change it.
type answer struct {
	status    int
	header    http.Header
	body      []byte
	code      string        // error code, for the statistics; "" for success
	cut       *int          // cut the connection after this many bytes of the body
	byteEvery time.Duration // send the body byte by byte; 0 sends it at once
}

func (c *call) answer(v any, err *apiError) answer {
	a := answer{status: http.StatusOK, header: http.Header{"Content-Type": {"application/json"}}}
	if c.endpoint == EndpointToken {
		a.header.Set("Cache-Control", "no-store")
	}
	if err == nil {
		a.body = marshal(v)
		return a
	}
	a.status, a.code, a.body = err.status, err.code, marshal(err.body(c.endpoint))
	if err.numeric != 0 {
		a.header.Set("X-Databricks-Reason-Phrase", err.message)
	}
	if a.status == http.StatusUnauthorized {
		scheme := map[bool]string{true: "Basic", false: "Bearer"}[c.endpoint == EndpointToken]
		a.header.Set("WWW-Authenticate", scheme+` realm="emulator"`)
	}
	return a
}

// send writes an answer.
func (e *Emulator) send(w http.ResponseWriter, r *http.Request, c *call, a answer) {
	code := ""
	if takesRows(c.endpoint) {
		code = a.code
	}
	e.stats.end(c.endpoint, strconv.Itoa(a.status), code)
	if ce := e.log.Check(zap.DebugLevel, "answered"); ce != nil {
		ce.Write(zap.String("endpoint", c.endpoint), zap.Int("status", a.status), zap.String("error_code", a.code), zap.String("request_id", c.requestID))
	}
	h := w.Header()
	for k, v := range a.header {
		h[k] = v
	}
	if c.requestID != "" {
		h.Set("X-Request-Id", c.requestID)
	}
	if a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	// Errors of writes are ignored: they mean that the client has left.
	flush := http.NewResponseController(w)
	switch {
	case a.cut != nil:
		_, _ = w.Write(a.body[:min(*a.cut, len(a.body))])
		_ = flush.Flush() // the header and these bytes arrive before the cut
		panic(http.ErrAbortHandler)
	case a.byteEvery == 0:
		_, _ = w.Write(a.body)
		return
	}
	for i := range a.body {
		_, werr := w.Write(a.body[i : i+1])
		if werr != nil || flush.Flush() != nil || !e.active.wait(r.Context(), a.byteEvery) {
			panic(http.ErrAbortHandler)
		}
	}
}

// splitRecords splits a body into its records without checking them. Only
// hooks and faults need it. A broken body has none.
func (c *call) splitRecords() {
	if c.split || !takesRows(c.endpoint) {
		return
	}
	c.split = true
	var in struct {
		Table   string           `json:"table"`
		Records []jsontext.Value `json:"records"`
	}
	var err error
	if c.endpoint == EndpointIngest {
		err = json.Unmarshal(c.body, &in, jsontext.AllowDuplicateNames(true))
		c.table = in.Table
	} else {
		err = json.Unmarshal(c.body, &in.Records, jsontext.AllowDuplicateNames(true))
	}
	for _, record := range in.Records {
		if err == nil {
			c.records = append(c.records, record)
		}
	}
}

// ingest serves POST /api/2.0/streaming-ingestion/ingest. It stores all rows of
// a request or none.
func (e *Emulator) ingest(c *call) (any, *apiError) {
	if e.apiOff.Load() {
		return nil, noAPI("POST " + IngestPath)
	}
	if err := e.authorize(c); err != nil {
		return nil, err
	}
	n, err := e.storeJSON(c, TransportWorkspace, e.readIngest, noTable)
	return map[string]int{"records_ingested": n}, err
}

// insert serves the REST insert. It stores all rows of a request or none.
func (e *Emulator) insert(c *call) (any, *apiError) {
	if err := e.authorizeEndpoint(c.header.Get("Authorization"), c.table); err != nil {
		return nil, err
	}
	_, err := e.storeJSON(c, TransportREST, e.readInsert, tableNotFound)
	return struct{}{}, err
}

// storeJSON stores the rows that read finds in the call's body; dropped makes
// the answer if the table is dropped meanwhile.
func (e *Emulator) storeJSON(c *call, transport string, read func(*call, *rowReader) (*Table, *apiError), dropped func(string) *apiError) (rows int, _ *apiError) {
	r := newReader(c.body)
	defer r.release()
	r.textTimes = e.cfg.AcceptTextTimestamps
	for {
		t, err := read(c, r)
		if err != nil {
			return 0, err
		}
		again, err := e.store(t, r.schema, r.rows, &batch{at: time.Now(), transport: transport, requestID: c.requestID}, dropped)
		if !again {
			return len(r.rows), err
		}
	}
}

// store keeps rows that fit schema. again is true if the columns have changed
// meanwhile, so that the rows have to be checked against the new ones.
func (e *Emulator) store(t *Table, s *schema, rows []newRow, b *batch, dropped func(string) *apiError) (again bool, _ *apiError) {
	switch err := t.keep(s, rows, b); {
	case err == nil:
		e.stats.count(func(s *Stats) { s.Rows += int64(len(rows)) })
		return false, nil
	case errors.Is(err, errAltered):
		return true, nil
	case errors.Is(err, errDropped):
		return false, dropped(t.name)
	default:
		e.log.Error("rows refused", zap.Error(err))
		return false, refusal(http.StatusInternalServerError, "The rows could not be stored; see the emulator's log")
	}
}

// find looks up a table that a call names and may read (SELECT) or write (MODIFY).
// To write takes explicit grants.
func (e *Emulator) find(c *call, name, privilege string) (*Table, *apiError) {
	t := e.Table(name)
	if t == nil {
		return nil, noTable(printable(name))
	}
	if privilege == PrivilegeSelect {
		return t, e.allowed(c.principal, privilege, t.name)
	}
	if err := e.permit(c.principal, t.name, privilege); err != nil {
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

// readInsert reads the array of rows of a REST insert.
func (e *Emulator) readInsert(c *call, r *rowReader) (*Table, *apiError) {
	t := e.Table(c.table)
	if t == nil {
		return nil, tableNotFound(c.table)
	}
	if err := e.permitEndpoint(t); err != nil {
		return nil, err
	}
	if header := c.header.Get(TableHeader); header != "" && !strings.EqualFold(header, c.table) {
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

// errRefused ends the reading of a body that is refused.
var errRefused = errors.New("refused")

// readIngest reads {"table":…,"records":[…]} in one pass. Records before the
// table are skipped, and read when the table is known.
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
	later, haveRecords := -1, false // later is the position of records that came before the table
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
			if t, refused = e.find(c, string(text), PrivilegeModify); refused != nil {
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
	switch at := r.trailing(); {
	case refused != nil:
		return nil, refused
	case err != nil:
		return nil, invalid(r.malformed(-1, err))
	case at >= 0:
		return nil, invalid(&rowFault{row: -1, at: at, malformed: true, problem: "text after the JSON body"})
	case t == nil:
		return nil, malformed("the field table is missing")
	case !haveRecords:
		return nil, malformed("the field records is missing")
	case later >= 0:
		r.load(c.body[later:], later)
		_ = records() // sets refused
	}
	return t, refused
}

// requests counts the requests being served, for Close to wait on.
type requests struct {
	stop chan struct{} // closed when Close begins: waits end

	mu     sync.Mutex
	all    sync.WaitGroup
	count  int
	closed bool
}

func (r *requests) add(n int) (open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed && n > 0 {
		return false
	}
	r.count += n
	r.all.Add(n)
	return true
}

// close makes waits end and later requests fail.
func (r *requests) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		close(r.stop)
	}
	r.closed = true
}

func (r *requests) active() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// track counts the requests of h.
func (r *requests) track(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.add(1) {
			panic(http.ErrAbortHandler)
		}
		defer r.add(-1)
		h.ServeHTTP(w, req)
	})
}

// wait sleeps for d. It reports false if ctx has ended; Close ends it early.
func (r *requests) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.stop:
		return true
	case <-ctx.Done():
		return false
	}
}
