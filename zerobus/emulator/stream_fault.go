package emulator

import (
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

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
	return ending(h.grpcStatus())
}

// ending makes a status end the stream even when its code is OK, which nil
// stands for elsewhere.
func ending(st *status.Status) *status.Status {
	if st == nil {
		return statusOK
	}
	return st
}

// beforeResponse applies a fault of the endpoint create after create_stream
// has come.
func (s *liveStream) beforeResponse(h *hit) *status.Status {
	if !s.e.active.wait(s.rpc.Context(), h.wait) {
		return gone
	}
	switch h.Effect {
	case EffectStatus:
		return ending(h.grpcStatus())
	case EffectHang, EffectFreeze, EffectCut:
		return s.vanish(h.Effect)
	case EffectGoAway:
		s.conn.sendGoAway()
	case EffectUnknown:
		return s.sendNow(unknownResponse())
	case EffectAck:
		return s.sendNow(ackResponse(h.ackOffset(0)))
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
	switch h.Effect {
	case EffectRefuse:
		return recordStatus("record " + strconv.Itoa(h.row) + " of the message: refused by a scripted fault")
	case EffectCut, EffectFreeze:
		return s.vanish(h.Effect)
	case EffectStatus, EffectHang:
		if h.Keep {
			if st := s.keep(); st != nil {
				return st
			}
		}
		if h.Effect == EffectHang {
			return s.vanish(h.Effect)
		}
		return s.halt(h.grpcStatus())
	case EffectLoseAck:
		if st := s.keep(); st != nil {
			return st // there was no ack to lose
		}
		return s.vanish(EffectCut)
	case EffectStallAcks:
		if h.wait == 0 {
			h.wait = forever
		}
		s.stall(h.wait)
	}
	if st := s.accept(); st != nil {
		return st
	}
	switch h.Effect {
	case EffectGoAway:
		s.conn.sendGoAway()
	case EffectCloseSignal:
		s.push(event{end: h.closing()})
	case EffectAck:
		s.push(event{response: ackResponse(h.ackOffset(s.req.offset))})
	case EffectUnknown:
		s.push(event{response: unknownResponse()})
	}
	return nil
}

// halt ends an open stream with a status; with OK it ends in peace, whatever
// waits for an ack.
func (s *liveStream) halt(st *status.Status) *status.Status {
	if st.Code() != codes.OK {
		return st
	}
	s.push(event{halt: true})
	<-s.rpc.Context().Done()
	return gone
}

func (f *Fault) closing() *closing {
	c := &closing{}
	if f.Window != nil {
		d := time.Duration(*f.Window)
		c.window, c.endAfter = &d, d
	}
	if f.EndAfter != nil {
		c.endAfter = time.Duration(*f.EndAfter)
	}
	return c
}

// ackOffset is what the effect ack acknowledges; nil for no offset at all.
func (f *Fault) ackOffset(offset int64) *int64 {
	if f.AckBy != nil {
		offset += *f.AckBy
		return &offset
	}
	return f.AckOffset
}
