package emulator

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

// Faults come from AddFault, from the hook of OnIngest and from the scripts of
// Play. Each becomes a hit when it applies to a request. Emulator.applyFault
// carries out a hit by HTTP, liveStream.applyFault on a stream.

// hit is a fault that applies to a request.
type hit struct {
	Fault
	row  int            // the row that Rows matched, or 0
	wait time.Duration  // drawn from Latency
	end  *status.Status // of a script: the status to end the stream with; nil uses the Fault's
}

// rule is a Fault prepared for matching.
type rule struct {
	Fault
	re     *regexp.Regexp // of Rows
	random *rand.Rand     // guarded by the faultSet
}

func newRule(f Fault) (*rule, error) {
	if err := f.validate(); err != nil {
		return nil, fmt.Errorf("fault: %w", err)
	}
	r := &rule{Fault: f, random: rand.New(rand.NewPCG(cmp.Or(f.Seed, rand.Uint64()), 0))}
	if f.Rows != nil && f.Rows.Regexp != "" {
		r.re = regexp.MustCompile(f.Rows.Regexp)
	}
	return r, nil
}

// match returns a hit if the rule matches a request, whatever its probability.
func (r *rule) match(c *call) *hit {
	h := &hit{Fault: r.Fault}
	if r.Endpoint != "" && r.Endpoint != c.endpoint || !slices.Contains(effects[r.Effect], c.endpoint) || r.Offset != nil && *r.Offset != c.offset {
		return nil
	}
	if r.Table != "" || r.Rows != nil {
		c.splitRecords()
	}
	if r.Table != "" && !strings.EqualFold(r.Table, c.table) {
		return nil
	}
	if r.Rows != nil {
		if h.row = slices.IndexFunc(c.records, r.matchRow); h.row < 0 {
			return nil
		}
	}
	return h
}

func (r *rule) matchRow(row []byte) bool {
	m, text, ok := r.Rows, row, true
	if m.Column != "" {
		text, ok = columnText(row, m.Column)
	}
	if !ok || m.Equals != nil && string(text) != *m.Equals || r.re != nil && !r.re.Match(text) {
		return false
	}
	if len(m.MessageIDs) == 0 {
		return true
	}
	id, ok := columnText(row, idColumn)
	return ok && slices.Contains(m.MessageIDs, string(id))
}

// faultSet holds the faults in the order they were added.
type faultSet struct {
	mu    sync.Mutex
	rules []*rule
	last  int // number of the last ID given
}

// AddFault adds a fault after the present ones and returns it with its ID.
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

// Faults lists the present faults in order.
func (e *Emulator) Faults() []Fault {
	e.faults.mu.Lock()
	defer e.faults.mu.Unlock()
	out := make([]Fault, len(e.faults.rules))
	for i, r := range e.faults.rules {
		out[i] = r.Fault
	}
	return out
}

// RemoveFault removes a fault by its ID and reports whether it existed.
func (e *Emulator) RemoveFault(id string) bool {
	return e.faults.remove(func(r *rule) bool { return r.ID == id })
}

// ClearFaults removes all faults.
func (e *Emulator) ClearFaults() { e.faults.remove(func(*rule) bool { return true }) }

func (s *faultSet) remove(which func(*rule) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.rules)
	s.rules = slices.DeleteFunc(s.rules, which)
	return len(s.rules) < n
}

func (s *faultSet) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rules) == 0
}

// pick returns the first fault that applies to a request, or nil.
func (s *faultSet) pick(c *call) *hit {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.rules {
		h := r.match(c)
		if h == nil || r.Probability > 0 && r.random.Float64() >= r.Probability {
			continue
		}
		h.wait = r.Latency.draw(r.random.NormFloat64)
		if r.Hits++; r.Count > 0 && r.Hits >= r.Count {
			s.rules = slices.Delete(s.rules, i, i+1)
		}
		return h
	}
	return nil
}

// IngestRequest is a request that contains rows: to the ingest endpoint, to the
// REST insert, or a message on a gRPC stream.
type IngestRequest struct {
	Endpoint  string // EndpointIngest, EndpointInsert or EndpointStream
	Number    int64  // 1 for the first of this endpoint since New or Reset
	Table     string
	RequestID string
	StreamID  string // of a gRPC stream, with the message's offset
	Offset    int64
	Rows      [][]byte // as JSON; valid during the call only
}

// OnIngest sets a hook that is called for every request that contains rows,
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

// fault finds the fault that applies to a call, and counts it; nil for none.
func (e *Emulator) fault(c *call) *hit {
	h := e.hookFault(c)
	if h == nil {
		h = e.faults.pick(c)
	}
	if h != nil {
		e.stats.count(func(s *Stats) { s.Faults[h.Effect]++ })
	}
	return h
}

func (e *Emulator) hookFault(c *call) *hit {
	hook := e.hook.Load()
	if hook == nil || !takesRows(c.endpoint) {
		return nil
	}
	c.splitRecords()
	f := (*hook)(IngestRequest{
		Endpoint: c.endpoint, Number: c.number, Table: c.table, RequestID: c.requestID,
		StreamID: c.streamID, Offset: c.offset, Rows: c.records,
	})
	if f == nil {
		return nil
	}
	once := *f
	once.Endpoint, once.Table, once.Count, once.Probability = c.endpoint, "", 0, 0
	r, err := newRule(once)
	if err != nil {
		e.log.Error("ingest hook returned an invalid fault", zap.Error(err))
		return &hit{Fault: Fault{Effect: EffectStatus, Status: http.StatusInternalServerError, Message: err.Error()}}
	}
	h := r.match(c)
	if h == nil { // the hook's fault applies without a matching row, too
		h = &hit{Fault: r.Fault}
	}
	h.wait = r.Latency.draw(r.random.NormFloat64)
	return h
}

// answer is what the effect status sends by HTTP.
func (f *Fault) answer(c *call) answer {
	a := c.answer(nil, &apiError{
		status: f.Status, numeric: f.NumericCode,
		code:    cmp.Or(f.ErrorCode, usualCode(c.endpoint, f.Status)),
		message: cmp.Or(f.Message, "scripted fault: "+http.StatusText(f.Status)),
	})
	if f.RetryAfter > 0 {
		a.header.Set("Retry-After", strconv.Itoa(f.RetryAfter))
		if f.AsDate {
			a.header.Set("Retry-After", time.Now().Add(time.Duration(f.RetryAfter)*time.Second).UTC().Format(http.TimeFormat))
		}
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
	a.cut = f.CutAfter
	return a
}

// applyFault carries out a fault on a request; serve is the usual handling.
func (e *Emulator) applyFault(w http.ResponseWriter, r *http.Request, c *call, h *hit, serve func() answer) {
	if !e.active.wait(r.Context(), h.wait) {
		panic(http.ErrAbortHandler)
	}
	if h.Keep {
		serve()
	}
	var a answer
	switch h.Effect {
	case EffectStatus:
		a = h.answer(c)
	case EffectRefuse:
		fault := &rowFault{row: h.row, reason: "REFUSED", problem: "refused by a scripted fault"}
		if h.Rows != nil {
			fault.column = h.Rows.Column
		}
		a = c.answer(nil, invalid(fault))
	case EffectHang:
		select {
		case <-r.Context().Done():
		case <-e.active.stop:
		}
		panic(http.ErrAbortHandler)
	case EffectCut:
		panic(http.ErrAbortHandler)
	default:
		a = serve()
		e.delay(r, c)
		if h.Effect == EffectLoseAck && a.status == http.StatusOK { // a refusal has no acknowledgement to lose
			panic(http.ErrAbortHandler)
		}
		if h.Effect == EffectSlowBody {
			a.byteEvery = time.Duration(cmp.Or(h.ByteEveryMS, 100)) * time.Millisecond
		}
	}
	e.send(w, r, c, a)
}

// grpcStatus is what the effect status ends a stream with.
func (h *hit) grpcStatus() *status.Status {
	if h.end != nil {
		return h.end
	}
	c := codeOf(h.Status)
	if h.GRPCCode != "" {
		c = codes.Code(code.Code_value[h.GRPCCode])
	}
	message := h.Message
	if message == "" && c != codes.OK {
		message = "scripted fault: " + codeName(c)
	}
	return withInfo(status.New(c, message), h.ErrorInfo)
}

// event is what an effect sends on a stream besides the usual responses; nil
// for nothing. offset is that of the message it applies to.
func (h *hit) event(offset int64) *event {
	switch h.Effect {
	case EffectAck:
		if h.AckBy != nil {
			offset += *h.AckBy
			return &event{response: ackResponse(&offset)}
		}
		return &event{response: ackResponse(h.AckOffset)}
	case EffectCloseSignal:
		end := cmp.Or(h.EndAfter, h.Window, new(Duration))
		return &event{response: closeResponse((*time.Duration)(h.Window)), end: (*time.Duration)(end)}
	case EffectUnknown:
		return &event{response: unknownResponse()}
	}
	return nil
}

// reasonHeader is where the service's edge puts the reason of a refusal, whose
// status may be OK.
const reasonHeader = "x-databricks-reason-phrase"

// clientGone is the status of a stream whose client cannot receive it.
var clientGone = status.New(codes.Canceled, "the connection was cut by a scripted fault")

// refuseAtEdge applies a fault with a Reason, before the response headers.
func (s *liveStream) refuseAtEdge(h *hit) *status.Status {
	if !s.e.active.wait(s.rpc.Context(), h.wait) {
		return clientGone
	}
	md := metadata.Pairs(reasonHeader, h.Reason)
	if h.InTrailer {
		s.rpc.SetTrailer(md)
	} else if err := s.rpc.SetHeader(md); err != nil {
		return status.Convert(err)
	}
	return h.grpcStatus()
}

// applyFault carries out a fault on a stream: on a message of an open stream
// or, with open false, on its creation or a step of a script. A status ends the
// stream.
func (s *liveStream) applyFault(h *hit, open bool) *status.Status {
	if h.Effect != EffectStallAcks && !s.e.active.wait(s.rpc.Context(), h.wait) {
		return clientGone
	}
	if open && (h.Keep || h.Effect == EffectLoseAck) {
		if st := s.store(); st != nil {
			return st
		}
	}
	switch h.Effect {
	case EffectRefuse:
		return recordStatus("record " + strconv.Itoa(h.row) + " of the message: refused by a scripted fault")
	case EffectCut, EffectLoseAck, EffectFreeze, EffectHang:
		return s.leaveUnanswered(h.Effect)
	case EffectStatus:
		st := h.grpcStatus()
		if !open || st.Code() != codes.OK {
			return st
		}
		s.push(event{halt: true}) // even if messages wait for acks
		<-s.rpc.Context().Done()
		return clientGone
	case EffectStallAcks:
		s.changeAcks(func(now time.Time) { s.acks.hold(now, cmp.Or(h.wait, forever)) })
	}
	offset := int64(0)
	if open {
		if st := s.accept(); st != nil {
			return st
		}
		offset = *s.msg.offset
	}
	if h.Effect == EffectGoAway {
		s.conn.sendGoAway()
	}
	if ev := h.event(offset); ev != nil && open {
		s.push(*ev)
	} else if ev != nil {
		return s.sendNow(ev.response)
	}
	return nil
}

// sendNow sends a response while the sending side does not run.
func (s *liveStream) sendNow(r *pb.EphemeralStreamResponse) *status.Status {
	if err := s.rpc.Send(r); err != nil {
		return status.Convert(err)
	}
	return nil
}

// leaveUnanswered waits until the client leaves or the emulator stops.
func (s *liveStream) leaveUnanswered(effect string) *status.Status {
	switch effect {
	case EffectCut, EffectLoseAck:
		s.conn.cut()
	case EffectFreeze:
		s.server.freeze(s.conn)
	}
	select {
	case <-s.rpc.Context().Done():
	case <-s.e.active.stop:
	}
	return clientGone
}

// ScriptStep is one step of a script: one of CreateStream, RecordAck,
// CloseStreamSignal and StreamError.
type ScriptStep interface{ hit() *hit }

// CreateStream confirms a stream, after Delay, with StreamID or, if that is
// empty, with test_stream_<n>.
type CreateStream struct {
	StreamID string
	Delay    time.Duration
}

// RecordAck acknowledges up to Offset when the message with this offset has
// arrived, after Delay.
type RecordAck struct {
	Offset int64
	Delay  time.Duration
}

// CloseStreamSignal announces the stream's end at the next message, after
// Delay. Only the script ends the stream.
type CloseStreamSignal struct {
	Duration time.Duration
	Delay    time.Duration
}

// StreamError ends the stream with Status, after Delay: when a stream is being
// created or at the next message.
type StreamError struct {
	Status *status.Status
	Delay  time.Duration
}

func (s CreateStream) hit() *hit { return &hit{wait: s.Delay} }

func (s RecordAck) hit() *hit {
	return &hit{Fault: Fault{Effect: EffectAck, AckOffset: &s.Offset}, wait: s.Delay}
}

func (s CloseStreamSignal) hit() *hit {
	return &hit{Fault: Fault{Effect: EffectCloseSignal, Window: (*Duration)(&s.Duration)}, wait: s.Delay}
}

func (s StreamError) hit() *hit {
	return &hit{Fault: Fault{Effect: EffectStatus}, wait: s.Delay, end: cmp.Or(s.Status, statusOK)}
}

// Script makes a table's gRPC streams follow steps, like the mock servers in
// Databricks' SDK repositories: nothing else of the stream is checked, and
// nothing is stored. The position in the script survives reconnects. A new
// stream skips to the next CreateStream or StreamError, and is confirmed when
// there is none. Each message is compared with the current step: a RecordAck
// for another offset waits, a CreateStream is skipped. After the last step
// nothing is sent.
type Script struct {
	mu      sync.Mutex
	steps   []ScriptStep
	at      int
	streams int
	highest int64
	records int
}

// scripts are the scripts by table, as the client writes its name.
type scripts struct {
	table sync.Map     // name -> *Script
	count atomic.Int64 // streams of all scripts, for their default ids
}

// of returns a table's script, or nil.
func (x *scripts) of(table string) *Script {
	s, _ := x.table.Load(table)
	script, _ := s.(*Script)
	return script
}

// Play makes the gRPC streams for a table follow a script from now on; the
// table need not exist. It replaces the table's script. Without steps nothing
// is sent.
func (e *Emulator) Play(table string, steps ...ScriptStep) *Script {
	s := &Script{steps: steps, highest: -1}
	e.scripts.table.Store(table, s)
	return s
}

// StopPlaying ends a table's script; streams opened from now on are served as
// usual.
func (e *Emulator) StopPlaying(table string) { e.scripts.table.Delete(table) }

// Append adds steps to the script's end.
func (s *Script) Append(steps ...ScriptStep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, steps...)
}

// Played is how many steps are done.
func (s *Script) Played() int { return s.read(func() int { return s.at }) }

// Streams is how many streams clients have opened.
func (s *Script) Streams() int { return s.read(func() int { return s.streams }) }

// Records is how many records have arrived, those of batches counted singly.
func (s *Script) Records() int { return s.read(func() int { return s.records }) }

// HighestOffset is the highest offset_id that has arrived; -1 for none.
func (s *Script) HighestOffset() int64 { return int64(s.read(func() int { return int(s.highest) })) }

func (s *Script) read(get func() int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return get()
}

// create skips to the next step for a new stream. It returns the stream's id,
// of which id is the default, and the step as a fault.
func (s *Script) create(id string) (string, *hit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams++
	for i := s.at; i < len(s.steps); i++ {
		step, isCreate := s.steps[i].(CreateStream)
		if _, isError := s.steps[i].(StreamError); isCreate || isError {
			s.at = i + 1
			return cmp.Or(step.StreamID, id), s.steps[i].hit()
		}
	}
	return id, &hit{}
}

// message returns the step that a message triggers, as a fault, or nil.
func (s *Script) message(m *message) *hit {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records += len(m.records)
	if m.offset != nil {
		s.highest = max(s.highest, *m.offset)
	}
	if s.at >= len(s.steps) {
		return nil
	}
	step := s.steps[s.at]
	if ack, isAck := step.(RecordAck); isAck && (m.offset == nil || ack.Offset != *m.offset) {
		return nil
	}
	s.at++
	if _, isCreate := step.(CreateStream); isCreate {
		return nil
	}
	return step.hit()
}

// play serves a stream by its script, after create_stream.
func (s *liveStream) play(script *Script) *status.Status {
	id, h := script.create("test_stream_" + strconv.FormatInt(s.e.scripts.count.Add(1), 10))
	if st := s.applyFault(h, false); st != nil {
		return st
	}
	if st := s.sendNow(createResponse(&id)); st != nil {
		return st
	}
	return s.receiveAll(func() *status.Status {
		if !s.msg.ingest {
			return nil
		}
		if h := script.message(&s.msg); h != nil {
			return s.applyFault(h, false)
		}
		return nil
	})
}
