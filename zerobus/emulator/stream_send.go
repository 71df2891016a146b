package emulator

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// send runs the sending side until the stream's end and returns its status.
func (s *liveStream) send() *status.Status {
	ctx := s.rpc.Context()
	age := time.NewTimer(forever)
	defer age.Stop()
	if s.e.cfg.StreamMaxAge > 0 {
		age.Reset(s.e.cfg.StreamMaxAge)
	}
	ack := time.NewTimer(forever)
	defer ack.Stop()
	end := time.NewTimer(forever)
	defer end.Stop()
	ending := false
	sendEvent := func(ev event) error {
		if ev.end != nil && !ending { // signals that follow do not put off the end
			ending = true
			end.Reset(*ev.end)
		}
		return s.rpc.SendMsg(ev.response)
	}
	halfClosed := false
	for {
		next, more, err := s.sendAcks()
		switch {
		case err != nil:
			return status.Convert(err)
		case more:
			ack.Reset(time.Until(next))
		case halfClosed:
			return statusOK
		default:
			ack.Stop()
		}
		select {
		case <-ack.C:
		case <-s.woken:
		case ev := <-s.events:
			if ev.halt {
				return statusOK
			}
			if err = sendEvent(ev); err != nil {
				return status.Convert(err)
			}
		case <-age.C:
			window := s.e.cfg.CloseWindow
			if err := sendEvent(event{response: closeResponse(&window), end: &window}); err != nil {
				return status.Convert(err)
			}
		case <-end.C:
			return status.New(codes.Unavailable, numbered("Stream timeout reached. Closing the stream (ID: "+s.id+").", codeStreamAge, 0))
		case st := <-s.ended:
			for len(s.events) > 0 {
				if err := sendEvent(<-s.events); err != nil {
					return status.Convert(err)
				}
			}
			if st.Code() != codes.OK {
				return st
			}
			halfClosed = true
		case <-s.e.active.stop:
			s.flush()
			return status.New(codes.Unavailable, "The emulator is stopping")
		case <-ctx.Done():
			return status.FromContextError(ctx.Err())
		}
	}
}

// sendAcks sends what is due, and says when there will be more to send.
func (s *liveStream) sendAcks() (next time.Time, more bool, err error) {
	s.mu.Lock()
	offset, rows, ok := s.acks.take(time.Now())
	next, more = s.acks.next()
	s.mu.Unlock()
	if ok {
		err = s.ack(offset, rows)
	}
	return next, more, err
}

func (s *liveStream) ack(offset, rows int64) error {
	if err := s.rpc.SendMsg(ackResponse(&offset)); err != nil {
		return err
	}
	s.e.streams.acked(s, offset, rows)
	return nil
}

// flush acknowledges all that has been kept, due or not.
func (s *liveStream) flush() {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	s.mu.Lock()
	offset, rows, ok := s.acks.drain()
	s.mu.Unlock()
	if ok {
		_ = s.ack(offset, rows) // a client that has left needs none
	}
}

// stored notes a message whose rows have been kept.
func (s *liveStream) stored(offset int64, rows int) {
	s.mu.Lock()
	s.acks.add(offset, rows, time.Now())
	s.mu.Unlock()
	s.wake()
}

// stall keeps all acks back for d.
func (s *liveStream) stall(d time.Duration) {
	s.mu.Lock()
	s.acks.hold(time.Now(), d)
	s.mu.Unlock()
	s.wake()
}

func (s *liveStream) wake() {
	select {
	case s.woken <- struct{}{}:
	default: // it is about to look anyway
	}
}
