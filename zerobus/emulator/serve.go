package emulator

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"go.uber.org/zap"
)

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
		c := &call{endpoint: name, number: e.stats.begin(name), header: r.Header, requestID: printable(r.Header.Get("X-Request-Id")), path: r.PathValue("name")}
		body, err := readBody(r, limit)
		if err != nil {
			e.send(w, r, c, err.answer(name), 0)
			return
		}
		defer body.free()
		c.body = body.bytes
		e.stats.received.Add(int64(len(c.body)))

		h := e.fault(c)
		if h == nil {
			a := f(c)
			e.pause(r, name)
			e.send(w, r, c, a, 0)
			return
		}
		e.misbehave(w, r, c, h, f)
	})
}

// pause waits for the configured latency of the endpoints that take rows.
func (e *Emulator) pause(r *http.Request, name string) {
	if (name == EndpointIngest || name == EndpointInsert) && !e.active.wait(r.Context(), e.cfg.Latency.drawAny()) {
		panic(http.ErrAbortHandler) // nobody is there to answer
	}
}

// send writes an answer: at once or, with every above 0, byte by byte.
func (e *Emulator) send(w http.ResponseWriter, r *http.Request, c *call, a answer, every time.Duration) {
	e.stats.answered(c.endpoint, a)
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
	src := io.Reader(sent)
	hint := min(r.ContentLength, limit)
	switch enc := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); enc {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(src)
		if err != nil {
			b.free()
			return body{}, bodyError(err, limit)
		}
		src, hint = io.LimitReader(z, limit+1), 3*hint
	default:
		b.free()
		return body{}, &apiError{
			status: http.StatusUnsupportedMediaType, code: "INVALID_PARAMETER_VALUE",
			message: "Content-Encoding must be gzip or absent",
		}
	}
	var err error
	b.bytes, err = appendAll(b.bytes, src, hint)
	if int64(len(b.bytes)) > limit || sent.N <= 0 {
		err = &http.MaxBytesError{Limit: limit}
	}
	if err != nil {
		b.free()
		return body{}, bodyError(err, limit)
	}
	return b, nil
}

// appendAll reads src to its end; hint is how much to expect.
func appendAll(dst []byte, src io.Reader, hint int64) ([]byte, error) {
	if need := max(int(hint)+1, 512); cap(dst) < need {
		dst = make([]byte, 0, need)
	}
	for {
		n, err := src.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
	}
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
