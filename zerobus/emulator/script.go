package emulator

import (
	"errors"
	"io"
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

func (x *scripts) of(table string) *Script {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.table[table]
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
func (s *Script) HighestOffset() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.highest
}

func (s *Script) read(get func() int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return get()
}

// play serves a stream by its script, from create_stream on.
func (s *liveStream) play(script *Script) *status.Status {
	s.e.scripts.mu.Lock()
	s.e.scripts.count++
	id := "test_stream_" + strconv.Itoa(s.e.scripts.count)
	s.e.scripts.mu.Unlock()
	script.mu.Lock()
	script.streams++
	script.mu.Unlock()

	var first ScriptStep = CreateStream{}
	script.mu.Lock()
	for i := script.at; i < len(script.steps); i++ {
		switch step := script.steps[i].(type) {
		case CreateStream, StreamError:
			first, script.at = step, i+1
		default:
			continue
		}
		break
	}
	script.mu.Unlock()
	switch step := first.(type) {
	case StreamError:
		s.e.active.wait(s.rpc.Context(), step.Delay)
		return ending(step.Status)
	case CreateStream:
		s.e.active.wait(s.rpc.Context(), step.Delay)
		if step.StreamID != "" {
			id = step.StreamID
		}
	}
	if st := s.sendNow(createResponse(id)); st != nil {
		return st
	}
	for {
		var m inbound
		if err := s.rpc.RecvMsg(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return statusOK
			}
			return status.Convert(err)
		}
		err := s.req.parse(m.ReadOnlyData())
		m.free()
		if err != nil {
			return status.New(codes.InvalidArgument, err.Error())
		}
		if s.req.payload == fieldRecord || s.req.payload == fieldBatch {
			if st := s.playMessage(script); st != nil {
				return st
			}
		}
	}
}

// playMessage holds the message in s.req against the script's step.
func (s *liveStream) playMessage(script *Script) *status.Status {
	ctx := s.rpc.Context()
	script.mu.Lock()
	script.records += len(s.req.records)
	var step ScriptStep
	if script.at < len(script.steps) {
		step = script.steps[script.at]
	}
	if s.req.hasOffset {
		script.highest = max(script.highest, s.req.offset)
	}
	if ack, ok := step.(RecordAck); ok && (!s.req.hasOffset || ack.Offset != s.req.offset) {
		step = nil
	}
	if step != nil {
		script.at++
	}
	script.mu.Unlock()
	switch step := step.(type) {
	case RecordAck:
		s.e.active.wait(ctx, step.Delay)
		return s.sendNow(ackResponse(&step.Offset))
	case CloseStreamSignal:
		s.e.active.wait(ctx, step.Delay)
		return s.sendNow(closeResponse(&step.Duration))
	case StreamError:
		s.e.active.wait(ctx, step.Delay)
		return ending(step.Status)
	}
	return nil
}
