package emulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"go.uber.org/zap"
)

// The paths of the workspace.
const (
	TokenPath   = "/oidc/v1/token"
	IngestPath  = "/api/2.0/streaming-ingestion/ingest"
	ColumnsPath = "/api/2.1/unity-catalog/tables/" // followed by catalog.schema.table
)

// routes are the workspace's endpoints and, under /emulator/, the admin API.
func (e *Emulator) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+TokenPath, e.endpoint(EndpointToken, maxFormBytes, e.token))
	mux.Handle("POST "+IngestPath, e.endpoint(EndpointIngest, e.cfg.MaxRequestBytes, e.ingest))
	mux.Handle("GET "+ColumnsPath+"{name}", e.endpoint(EndpointColumns, maxFormBytes, e.columns))
	mux.Handle("GET "+TagsPath+"{name}/tags", e.endpoint(EndpointColumns, maxFormBytes, e.tags))
	mux.HandleFunc("GET /healthz", healthz)
	// Pages of other origins may not change anything here, though anyone who
	// can open a connection may: the admin API is for loopback.
	mux.Handle("/emulator/", http.NewCrossOriginProtection().Handler(e.admin()))
	mux.HandleFunc("/", noEndpoint)
	return e.active.guard(mux)
}

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

func healthz(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"status": "ok"})
}

func noEndpoint(w http.ResponseWriter, r *http.Request) {
	a := (&apiError{
		status: http.StatusNotFound, code: "ENDPOINT_NOT_FOUND",
		message: "No API found for '" + printable(r.Method) + " " + printable(r.URL.Path) + "'",
	}).answer("")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client may have left
}

// call is one request to an endpoint of the workspace, with its body read.
type call struct {
	endpoint  string
	number    int64 // of the endpoint's requests, from 1
	header    http.Header
	body      []byte
	requestID string
	path      string // the table, where it is known without the body: not the ingest endpoint's
	streamID  string // of a message on a gRPC stream, with its offset
	offset    int64

	split   bool // whether the two below are filled in
	table   string
	records [][]byte
}

// maxFormBytes bounds the body of a token request.
const maxFormBytes = 64 << 10

// endpoint runs f for each request, with faults coming between.
func (e *Emulator) endpoint(name string, limit int64, f func(*call) answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{endpoint: name, number: e.stats.begin(name, 0), header: r.Header, requestID: printable(r.Header.Get("X-Request-Id")), path: r.PathValue("name")}
		body, err := readBody(r, limit)
		if err != nil {
			e.send(w, r, c, err.answer(name), 0)
			return
		}
		defer body.free()
		c.body = body.bytes
		e.stats.count(func(s *Stats) { s.Bytes += int64(len(c.body)) })

		if h := e.fault(c); h != nil {
			e.misbehave(w, r, c, h, f)
			return
		}
		a := f(c)
		e.pause(r, name)
		e.send(w, r, c, a, 0)
	})
}

// pause waits for the configured latency of the endpoints that take rows.
func (e *Emulator) pause(r *http.Request, name string) {
	if bringsRows(name) && !e.active.wait(r.Context(), e.cfg.Latency.drawAny()) {
		panic(http.ErrAbortHandler) // nobody is there to answer
	}
}

// send writes an answer: at once or, with every above 0, byte by byte.
func (e *Emulator) send(w http.ResponseWriter, r *http.Request, c *call, a answer, every time.Duration) {
	code := ""
	if bringsRows(c.endpoint) {
		code = a.code
	}
	e.stats.ended(c.endpoint, strconv.Itoa(a.status), code)
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
	// A failed write means the client has left, which is its own affair.
	if a.cut {
		_, _ = w.Write(a.body[:a.sent])
		_ = http.NewResponseController(w).Flush() // the header and these bytes arrive before the cut
		panic(http.ErrAbortHandler)
	}
	if every <= 0 {
		_, _ = w.Write(a.body)
		return
	}
	flush := http.NewResponseController(w)
	for i := range a.body {
		_, werr := w.Write(a.body[i : i+1])
		if werr != nil || flush.Flush() != nil || !e.active.wait(r.Context(), every) {
			panic(http.ErrAbortHandler)
		}
	}
}

// body is a request body in a reused buffer.
type body struct {
	bytes []byte
	buf   *[]byte
}

var bodies = sync.Pool{New: func() any { return new([]byte) }}

func (b body) free() {
	*b.buf = b.bytes[:0]
	bodies.Put(b.buf)
}

// readBody reads a whole body, unpacking gzip. Neither form may exceed limit.
func readBody(r *http.Request, limit int64) (body, *apiError) {
	b := body{buf: bodies.Get().(*[]byte)}
	b.bytes = (*b.buf)[:0]
	sent := &io.LimitedReader{R: r.Body, N: limit + 1}
	src, hint := io.Reader(sent), min(r.ContentLength, limit)
	var err error
	switch enc := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); enc {
	case "", "identity":
	case "gzip":
		var z *gzip.Reader
		if z, err = gzip.NewReader(src); err == nil {
			src, hint = io.LimitReader(z, limit+1), 3*hint
		}
	default:
		b.free()
		return body{}, &apiError{
			status: http.StatusUnsupportedMediaType, code: "INVALID_PARAMETER_VALUE",
			message: "Content-Encoding must be gzip or absent",
		}
	}
	if err == nil {
		buf := bytes.NewBuffer(slices.Grow(b.bytes, max(int(hint)+bytes.MinRead, bytes.MinRead)))
		_, err = buf.ReadFrom(src)
		b.bytes = buf.Bytes()
		if int64(len(b.bytes)) > limit || sent.N <= 0 {
			err = &http.MaxBytesError{Limit: limit}
		}
	}
	if err != nil {
		b.free()
		return body{}, bodyError(err, limit)
	}
	return b, nil
}

func bodyError(err error, limit int64) *apiError {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return &apiError{
			status: http.StatusRequestEntityTooLarge, code: "REQUEST_TOO_LARGE",
			message: "The request body is larger than " + strconv.FormatInt(limit, 10) + " bytes",
		}
	}
	return &apiError{status: http.StatusBadRequest, code: "INVALID_PARAMETER_VALUE", message: "The request body cannot be read or unpacked"}
}

// printable keeps what is safe to echo of a client's text: visible ASCII, at
// most 128 bytes.
func printable(s string) string {
	s = s[:min(len(s), 128)]
	return strings.Map(func(r rune) rune {
		if r < 0x21 || r > 0x7e {
			return -1
		}
		return r
	}, s)
}

// answer is a response before it is sent, so that a fault can come between.
type answer struct {
	status int
	header http.Header
	body   []byte
	code   string // error code, for the statistics; "" for success
	cut    bool   // the connection is cut after sent bytes of the body
	sent   int
}

func jsonAnswer(status int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error_code":"INTERNAL_ERROR","message":"answer cannot be encoded"}`)
	}
	return answer{status: status, header: http.Header{"Content-Type": {"application/json"}}, body: body}
}

// apiError is a refusal in the shape of the workspace's REST APIs,
// {"error_code":…,"message":…}, or on the token endpoint in OAuth's.
type apiError struct {
	status  int
	code    string
	numeric int // when set, error_code is this number
	message string
	fault   *rowFault // the row to blame, or nil
}

func (e *apiError) answer(endpoint string) answer {
	body := map[string]any{"error_code": e.code, "message": e.message}
	challenge := `Bearer realm="emulator"`
	header := http.Header{}
	if endpoint == EndpointToken {
		body = map[string]any{"error": e.code, "error_description": e.message}
		challenge = `Basic realm="emulator"`
		header.Set("Cache-Control", "no-store")
	} else if e.numeric != 0 {
		body["error_code"] = e.numeric
		header.Set("X-Databricks-Reason-Phrase", e.message)
	}
	if f := e.fault; f != nil && f.reason != "" {
		meta := map[string]string{"row": strconv.Itoa(f.row)}
		if f.column != "" {
			meta["column"] = f.column
		}
		body["details"] = []any{map[string]any{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": f.reason,
			"domain": errorDomain, "metadata": meta,
		}}
	}
	if e.status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", challenge)
	}
	a := jsonAnswer(e.status, body)
	maps.Copy(a.header, header)
	a.code = e.code
	return a
}

// usualCodes are the error codes that go with a status where none is given.
var usualCodes = map[int]string{
	http.StatusBadRequest: "INVALID_PARAMETER_VALUE", http.StatusUnauthorized: "UNAUTHENTICATED", http.StatusForbidden: "PERMISSION_DENIED",
	http.StatusNotFound: "NOT_FOUND", http.StatusRequestEntityTooLarge: "REQUEST_TOO_LARGE", http.StatusTooManyRequests: "REQUEST_LIMIT_EXCEEDED",
	http.StatusNotImplemented: "NOT_IMPLEMENTED", http.StatusServiceUnavailable: "TEMPORARILY_UNAVAILABLE", http.StatusGatewayTimeout: "DEADLINE_EXCEEDED",
}

func usualCode(endpoint string, status int) string {
	if endpoint == EndpointToken {
		switch {
		case status == http.StatusUnauthorized:
			return "invalid_client"
		case status >= 500:
			return "temporarily_unavailable"
		}
		return "invalid_request"
	}
	if code := usualCodes[status]; code != "" {
		return code
	}
	if status >= 500 {
		return "INTERNAL_ERROR"
	}
	return "BAD_REQUEST"
}

// requests counts the requests under way, for Close to wait on.
type requests struct {
	stop chan struct{} // closed when Close begins: waits end
	idle chan struct{} // closed when Close has begun and none is under way

	mu     sync.Mutex
	count  int
	closed bool
}

// enter counts a request; it reports false once Close has begun.
func (r *requests) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.count++
	}
	return !r.closed
}

func (r *requests) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count--; r.closed && r.count == 0 {
		close(r.idle)
	}
}

func (r *requests) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	close(r.stop)
	if r.count == 0 {
		close(r.idle)
	}
}

func (r *requests) underWay() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// guard keeps count of the requests of h.
func (r *requests) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.enter() {
			panic(http.ErrAbortHandler)
		}
		defer r.leave()
		h.ServeHTTP(w, req)
	})
}

// wait sleeps for d. It reports false when the client left; Close ends it
// early.
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

// connSet holds the connections that have not sent a request yet. Shutdown
// would wait up to five seconds for each of them.
type connSet struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (s *connSet) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state != http.StateNew {
		delete(s.conns, c)
		return
	}
	if s.conns == nil {
		s.conns = map[net.Conn]struct{}{}
	}
	s.conns[c] = struct{}{}
}

func (s *connSet) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close() // nothing was asked on it
	}
}
