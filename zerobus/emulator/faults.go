package emulator

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Faults come from the faults added, from the hook of OnIngest and from the
// scripts of Play. Each is a hit once it applies to a request, and a hit is
// carried out by misbehave: of the Emulator for a request by HTTP, of a
// liveStream before it is open and for a message on it.

// rule is a Fault made ready to apply.
type rule struct {
	Fault
	re   *regexp.Regexp  // of Rows
	ids  map[string]bool // of Rows
	dice *rand.Rand      // guarded by the faultSet, or owned by the one request of a hook's fault
}

func newRule(f Fault) (*rule, error) {
	if err := f.validate(); err != nil {
		return nil, fmt.Errorf("fault: %w", err)
	}
	seed := f.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	r := &rule{Fault: f, dice: rand.New(rand.NewPCG(seed, 0))}
	if f.Rows != nil && f.Rows.Regexp != "" {
		r.re = regexp.MustCompile(f.Rows.Regexp)
	}
	if f.Rows != nil && len(f.Rows.MessageIDs) > 0 {
		r.ids = make(map[string]bool, len(f.Rows.MessageIDs))
		for _, id := range f.Rows.MessageIDs {
			r.ids[id] = true
		}
	}
	return r, nil
}

// fits compares a request with everything but the dice. row is the row that
// Rows matches, or 0.
func (r *rule) fits(c *call) (row int, ok bool) {
	switch {
	case r.Endpoint != "" && r.Endpoint != c.endpoint, !slices.Contains(effects[r.Effect], c.endpoint):
		return 0, false
	case r.Offset != nil && (c.endpoint != EndpointStream || *r.Offset != c.offset):
		return 0, false
	case r.Table != "" && !strings.EqualFold(r.Table, c.tableName()):
		return 0, false
	case r.Rows == nil:
		return 0, true
	}
	row = slices.IndexFunc(c.rows(), r.matches)
	return max(row, 0), row >= 0
}

func (r *rule) matches(row []byte) bool {
	m := r.Rows
	if m.Column != "" {
		text, ok := columnText(row, m.Column)
		if !ok || m.Equals != nil && string(text) != *m.Equals || r.re != nil && !r.re.Match(text) {
			return false
		}
	} else if r.re != nil && !r.re.Match(row) {
		return false
	}
	if r.ids == nil {
		return true
	}
	id, ok := columnText(row, idColumn)
	return ok && r.ids[string(id)]
}

// hit makes a fault of the rule that applies to a request.
func (r *rule) hit(row int) *hit {
	return &hit{Fault: r.Fault, row: row, wait: r.Latency.draw(r.dice.NormFloat64)}
}

// hit is a fault that applies to a request.
type hit struct {
	Fault
	row  int            // the row that Rows matched, or 0
	wait time.Duration  // drawn from Latency
	end  *status.Status // of a script: ends the stream with the effect status; nil uses the Fault's
}

// faultSet holds the faults in the order they were added.
type faultSet struct {
	mu    sync.Mutex
	rules []*rule
	last  int // number of the last ID given
}

// AddFault adds a fault behind those already there and returns it with its ID.
func (e *Emulator) AddFault(f Fault) (Fault, error) {
	f.Hits = 0
	r, err := newRule(f)
	if err != nil {
		return Fault{}, err
	}
	s := &e.faults
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.ID == "" {
		s.last++
		r.ID = "fault-" + strconv.Itoa(s.last)
	}
	if slices.ContainsFunc(s.rules, func(o *rule) bool { return o.ID == r.ID }) {
		return Fault{}, fmt.Errorf("fault: id %q is taken; remove that one first or give another id", r.ID)
	}
	s.rules = append(s.rules, r)
	return r.Fault, nil
}

// Faults lists the faults that still apply, in order.
func (e *Emulator) Faults() []Fault {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	out := make([]Fault, len(e.faults.rules))
	for i, r := range e.faults.rules {
		out[i] = r.Fault
	}
	return out
}

// RemoveFault removes a fault by its ID and reports whether it was there.
func (e *Emulator) RemoveFault(id string) bool {
	return e.faults.remove(func(r *rule) bool { return r.ID == id })
}

// ClearFaults removes all faults.
func (e *Emulator) ClearFaults() { e.faults.remove(func(*rule) bool { return true }) }

func (s *faultSet) remove(which func(*rule) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.rules)
	s.rules = slices.DeleteFunc(slices.Clone(s.rules), which) // pick reads the old ones
	return len(s.rules) < n
}

// any reports whether there is a fault at all.
func (s *faultSet) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rules) > 0
}

// pick returns the first fault that fits the request, or nil. Rows are looked
// at without the lock; take checks that the fault is still there.
func (s *faultSet) pick(c *call) *hit {
	s.mu.Lock()
	rules := s.rules[:len(s.rules):len(s.rules)]
	s.mu.Unlock()
	for _, r := range rules {
		if row, ok := r.fits(c); ok {
			if h := s.take(r, row); h != nil {
				return h
			}
		}
	}
	return nil
}

// take counts one use of the rule, unless the dice or its end say no.
func (s *faultSet) take(r *rule, row int) *hit {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.rules, r)
	if i < 0 || r.Probability > 0 && r.dice.Float64() >= r.Probability {
		return nil
	}
	r.Hits++
	if r.Count > 0 && r.Hits >= r.Count {
		s.rules = slices.Delete(slices.Clone(s.rules), i, i+1)
	}
	return r.hit(row)
}

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
func bringsRows(endpoint string) bool { return slices.Contains(withRows, endpoint) }

// fault finds what goes wrong with a call, and counts it; nil for nothing.
func (e *Emulator) fault(c *call) *hit {
	h := e.hooked(c)
	if h == nil {
		h = e.faults.pick(c)
	}
	if h != nil {
		e.stats.count(func(s *Stats) { s.Faults[h.Effect]++ })
	}
	return h
}

// hooked asks the hook.
func (e *Emulator) hooked(c *call) *hit {
	hook := e.hook.Load()
	if hook == nil || !bringsRows(c.endpoint) {
		return nil
	}
	f := (*hook)(IngestRequest{
		Endpoint: c.endpoint, Number: c.number, Table: c.tableName(), RequestID: c.requestID,
		StreamID: c.streamID, Offset: c.offset, Rows: c.rows(),
	})
	if f == nil {
		return nil
	}
	once := *f
	once.Endpoint, once.Table, once.Count, once.Probability = c.endpoint, "", 0, 0
	r, err := newRule(once)
	if err != nil {
		e.log.Error("ingest hook returned a fault that cannot apply", zap.Error(err))
		return &hit{Fault: Fault{Effect: EffectStatus, Status: http.StatusInternalServerError, Message: err.Error()}}
	}
	row, _ := r.fits(c)
	return r.hit(row)
}

// answer is what the effect status sends by HTTP.
func (f *Fault) answer(endpoint string) answer {
	e := apiError{status: f.Status, code: f.ErrorCode, numeric: f.NumericCode, message: f.Message}
	if e.code == "" {
		e.code = usualCode(endpoint, f.Status)
	}
	if e.message == "" {
		e.message = "scripted fault: " + http.StatusText(f.Status)
	}
	a := e.answer(endpoint)
	switch {
	case f.RetryAfter > 0 && f.AsDate:
		a.header.Set("Retry-After", time.Now().Add(time.Duration(f.RetryAfter)*time.Second).UTC().Format(http.TimeFormat))
	case f.RetryAfter > 0:
		a.header.Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	if f.Body != nil {
		a.body = []byte(*f.Body)
		if *f.Body == "" {
			a.header.Del("Content-Type")
		}
	}
	if f.ContentType != "" {
		a.header.Set("Content-Type", f.ContentType)
	}
	if f.CutAfter != nil {
		a.cut, a.sent = true, min(*f.CutAfter, len(a.body))
	}
	return a
}

// misbehave applies a fault to a request that f serves.
func (e *Emulator) misbehave(w http.ResponseWriter, r *http.Request, c *call, h *hit, f func(*call) answer) {
	if !e.active.wait(r.Context(), h.wait) {
		panic(http.ErrAbortHandler)
	}
	if h.Keep {
		f(c)
	}
	every := time.Duration(0)
	switch h.Effect {
	case EffectStatus:
		e.send(w, r, c, h.answer(c.endpoint), 0)
		return
	case EffectRefuse:
		fault := &rowFault{row: h.row, reason: "REFUSED", problem: "refused by a scripted fault"}
		if h.Rows != nil {
			fault.column = h.Rows.Column
		}
		e.send(w, r, c, invalid(fault).answer(c.endpoint), 0)
		return
	case EffectHang:
		select {
		case <-r.Context().Done():
		case <-e.active.stop:
		}
		panic(http.ErrAbortHandler)
	case EffectCut:
		panic(http.ErrAbortHandler)
	case EffectSlowBody:
		every = 100 * time.Millisecond
		if h.ByteEveryMS > 0 {
			every = time.Duration(h.ByteEveryMS) * time.Millisecond
		}
	}
	a := f(c)
	e.pause(r, c.endpoint)
	if h.Effect == EffectLoseAck && a.status == http.StatusOK { // of a refusal there is no acknowledgement to lose
		panic(http.ErrAbortHandler)
	}
	e.send(w, r, c, a, every)
}

// grpcStatus is what the effect status ends a stream with.
func (h *hit) grpcStatus() *status.Status {
	if h.end != nil {
		return h.end
	}
	code := codeOf(h.Status)
	if h.GRPCCode != "" {
		code = grpcCodes[h.GRPCCode]
	}
	message := h.Message
	if message == "" && code != codes.OK {
		message = "scripted fault: " + codeName(code)
	}
	return withInfo(status.New(code, message), h.ErrorInfo)
}

// response is what an effect sends on a stream besides the usual responses;
// nil for nothing. offset is that of the message it befalls.
func (h *hit) response(offset int64) []byte {
	switch h.Effect {
	case EffectAck:
		if h.AckBy != nil {
			offset += *h.AckBy
			return ackResponse(&offset)
		}
		return ackResponse(h.AckOffset)
	case EffectCloseSignal:
		return closeResponse((*time.Duration)(h.Window))
	case EffectUnknown:
		return unknownResponse()
	}
	return nil
}

// reasonHeader is where the service's edge says why it refuses, with a status
// that may well be OK.
const reasonHeader = "x-databricks-reason-phrase"

// gone is the status of a stream whose client is not there to see it.
var gone = status.New(codes.Canceled, "the connection was cut by a scripted fault")

// beforeHeader applies a fault of the endpoint create that comes before the
// response headers. A status ends the stream.
func (s *liveStream) beforeHeader(h *hit) *status.Status {
	if h.Reason == "" {
		return nil
	}
	if !s.e.active.wait(s.rpc.Context(), h.wait) {
		return gone
	}
	md := metadata.Pairs(reasonHeader, h.Reason)
	if h.InTrailer {
		s.rpc.SetTrailer(md)
	} else if err := s.rpc.SetHeader(md); err != nil {
		return status.Convert(err)
	}
	return h.grpcStatus()
}

// unopened applies a fault to a stream that nobody else sends on: of the
// endpoint create, after create_stream has come, or of a script.
func (s *liveStream) unopened(h *hit) *status.Status {
	if !s.e.active.wait(s.rpc.Context(), h.wait) {
		return gone
	}
	switch h.Effect {
	case EffectStatus:
		return h.grpcStatus()
	case EffectHang, EffectFreeze, EffectCut:
		return s.vanish(h.Effect)
	case EffectGoAway:
		s.conn.sendGoAway()
	}
	if b := h.response(0); b != nil {
		return s.sendNow(b)
	}
	return nil
}

// sendNow sends a response before the stream is open, when nobody else does.
func (s *liveStream) sendNow(b []byte) *status.Status {
	if err := s.rpc.SendMsg(b); err != nil {
		return status.Convert(err)
	}
	return nil
}

// vanish leaves the client without an answer.
func (s *liveStream) vanish(effect string) *status.Status {
	switch effect {
	case EffectCut:
		s.conn.cut()
	case EffectFreeze:
		s.server.freeze(s.conn)
	}
	select {
	case <-s.rpc.Context().Done():
	case <-s.e.active.stop:
	}
	return gone
}

// misbehave applies a fault to a message of an open stream.
func (s *liveStream) misbehave(h *hit) *status.Status {
	if h.Effect != EffectStallAcks && !s.e.active.wait(s.rpc.Context(), h.wait) {
		return gone
	}
	if h.Keep || h.Effect == EffectLoseAck {
		if st := s.keep(); st != nil {
			return st
		}
	}
	switch h.Effect {
	case EffectRefuse:
		return recordStatus("record " + strconv.Itoa(h.row) + " of the message: refused by a scripted fault")
	case EffectCut, EffectFreeze, EffectHang:
		return s.vanish(h.Effect)
	case EffectLoseAck:
		return s.vanish(EffectCut)
	case EffectStatus:
		st := h.grpcStatus()
		if st.Code() == codes.OK { // whatever waits for an ack
			s.push(event{halt: true})
			<-s.rpc.Context().Done()
			return gone
		}
		return st
	case EffectStallAcks:
		if h.wait == 0 {
			h.wait = forever
		}
		s.stall(h.wait)
	}
	if st := s.accept(); st != nil {
		return st
	}
	if h.Effect == EffectGoAway {
		s.conn.sendGoAway()
	}
	if b := h.response(s.req.offset); b != nil {
		s.push(event{response: b, end: h.closing()})
	}
	return nil
}

// closing is how the effect close_signal ends the stream; nil for other effects.
func (h *hit) closing() *time.Duration {
	if h.Effect != EffectCloseSignal {
		return nil
	}
	after := h.EndAfter
	if after == nil {
		after = h.Window
	}
	if after == nil {
		after = new(Duration)
	}
	return (*time.Duration)(after)
}
