package emulator

import (
	"cmp"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ScriptStep is one step of a script: one of CreateStream, RecordAck,
// CloseStreamSignal and StreamError.
type ScriptStep interface{ step() }

// CreateStream confirms a stream, after Delay, with StreamID or, if that is
// empty, with test_stream_<n>.
type CreateStream struct {
	StreamID string
	Delay    time.Duration
}

// RecordAck acknowledges up to Offset when the message of this offset has
// come, after Delay.
type RecordAck struct {
	Offset int64
	Delay  time.Duration
}

// CloseStreamSignal announces the stream's end at the next message, after
// Delay. The script ends the stream, or does not.
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

func (CreateStream) step()      {}
func (RecordAck) step()         {}
func (CloseStreamSignal) step() {}
func (StreamError) step()       {}

// Script makes a table's gRPC streams follow steps, as the mock servers in
// Databricks' SDK repositories do: nothing else of the stream is judged, not
// its token, its table, its descriptor, its records or their offsets, and
// nothing is kept. Where the script stands survives reconnects. A stream that
// is created goes on to the next CreateStream or StreamError, passing over
// other steps, and is confirmed when there is none. Each message is held
// against the step the script stands at: a RecordAck for another offset waits,
// a CreateStream is passed over. After the last step there is silence.
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
	mu    sync.Mutex
	table map[string]*Script
	count int // streams of all scripts, for their default ids
}

// of returns a table's script, or nil.
func (x *scripts) of(table string) *Script {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.table[table]
}

// number counts a stream of a script.
func (x *scripts) number() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.count++
	return x.count
}

// Play makes the gRPC streams for a table follow a script from now on; the
// table need not exist. It replaces a script that was there. No steps at all
// make a script of silence.
func (e *Emulator) Play(table string, steps ...ScriptStep) *Script {
	s := &Script{steps: steps, highest: -1}
	e.scripts.mu.Lock()
	defer e.scripts.mu.Unlock()
	if e.scripts.table == nil {
		e.scripts.table = map[string]*Script{}
	}
	e.scripts.table[table] = s
	return s
}

// StopPlaying ends a table's script; streams opened from now on are served as
// usual.
func (e *Emulator) StopPlaying(table string) {
	e.scripts.mu.Lock()
	defer e.scripts.mu.Unlock()
	delete(e.scripts.table, table)
}

// Append adds steps to the script's end.
func (s *Script) Append(steps ...ScriptStep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, steps...)
}

// Played is how many steps the script has gone through.
func (s *Script) Played() int { return s.read(func() int { return s.at }) }

// Streams is how many streams were asked for.
func (s *Script) Streams() int { return s.read(func() int { return s.streams }) }

// Records is how many records have come, those of batches counted singly.
func (s *Script) Records() int { return s.read(func() int { return s.records }) }

// HighestOffset is the highest offset_id that has come; -1 for none.
func (s *Script) HighestOffset() int64 { return int64(s.read(func() int { return int(s.highest) })) }

func (s *Script) read(get func() int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return get()
}

// create goes to the next step that concerns a stream being created. It
// returns the stream's id and the step as a fault.
func (s *Script) create(id string) (string, *hit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams++
	for i := s.at; i < len(s.steps); i++ {
		switch step := s.steps[i].(type) {
		case CreateStream:
			s.at = i + 1
			return cmp.Or(step.StreamID, id), &hit{wait: step.Delay}
		case StreamError:
			s.at = i + 1
			return id, step.hit()
		}
	}
	return id, &hit{}
}

// message returns the step that a message brings up, as a fault, or nil.
func (s *Script) message(q *request) *hit {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records += len(q.records)
	if q.hasOffset {
		s.highest = max(s.highest, q.offset)
	}
	if s.at >= len(s.steps) {
		return nil
	}
	step := s.steps[s.at]
	ack, isAck := step.(RecordAck)
	if isAck && (!q.hasOffset || ack.Offset != q.offset) {
		return nil
	}
	s.at++
	switch step := step.(type) {
	case RecordAck:
		return &hit{Fault: Fault{Effect: EffectAck, AckOffset: &step.Offset}, wait: step.Delay}
	case CloseStreamSignal:
		return &hit{Fault: Fault{Effect: EffectCloseSignal, Window: (*Duration)(&step.Duration)}, wait: step.Delay}
	case StreamError:
		return step.hit()
	}
	return nil
}

func (e StreamError) hit() *hit {
	h := &hit{Fault: Fault{Effect: EffectStatus}, wait: e.Delay, end: e.Status}
	if h.end == nil {
		h.end = statusOK
	}
	return h
}

// play serves a stream by its script, from create_stream on.
func (s *liveStream) play(script *Script) *status.Status {
	id, h := script.create("test_stream_" + strconv.Itoa(s.e.scripts.number()))
	if st := s.unopened(h); st != nil {
		return st
	}
	if st := s.sendNow(createResponse(id)); st != nil {
		return st
	}
	return s.receive(func(b []byte) *status.Status {
		if err := s.req.parse(b); err != nil {
			return status.New(codes.InvalidArgument, err.Error())
		}
		if s.req.payload != fieldRecord && s.req.payload != fieldBatch {
			return nil
		}
		if h := script.message(&s.req); h != nil {
			return s.unopened(h)
		}
		return nil
	})
}
