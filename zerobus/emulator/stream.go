package emulator

import (
	"errors"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// liveStream is one EphemeralStream being served. One goroutine, the RPC's
// handler, sends; another receives, so that acks, the stream's age and faults
// do not wait for the client.
type liveStream struct {
	e      *Emulator
	server *endpointServer
	rpc    grpc.ServerStream
	conn   *conn
	id     string

	// Of the receiving side, once the stream is open.
	table      *Table
	format     int            // recordProto or recordJSON
	descriptor *rowDescriptor // recordProto only
	schema     *schema        // what plan was compiled for
	plan       *protoMessage
	expect     int64 // the next offset
	req        request
	proto      protoReader
	json       rowReader

	events  chan event          // from the receiving side to the sending one
	ended   chan *status.Status // how the receiving side has ended; OK: half-closed
	woken   chan struct{}       // the acks have changed
	keeping sync.Mutex          // held from keeping a message's rows to noting them in acks
	mu      sync.Mutex
	acks    ackQueue

	info  StreamInfo // guarded by Emulator.streams
	sides int        // that have left; guarded likewise
}

// event is what the receiving side wants sent.
type event struct {
	response []byte
	end      *time.Duration // the response announces the stream's end in so long
	halt     bool           // the stream ends now, with OK
}

// maxGRPCMessage is what the transport takes; MaxRequestBytes is checked
// behind it, where the answer can be chosen. It is far above what clients send
// by mistake, since the transport's own answer is RESOURCE_EXHAUSTED.
const maxGRPCMessage = 1 << 30

func (e *Emulator) newGRPC(server *endpointServer) *grpc.Server {
	g := grpc.NewServer(
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(max(maxGRPCMessage, int(e.cfg.MaxRequestBytes)+1)),
		grpc.WaitForHandlers(true),
	)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		Streams: []grpc.StreamDesc{{
			StreamName: methodName, ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, rpc grpc.ServerStream) error { return e.serveStream(server, rpc) },
		}},
		Metadata: "zerobus_service.proto",
	}, nil)
	return g
}

var statusOK = status.New(codes.OK, "")

// serveStream is the handler of EphemeralStream.
func (e *Emulator) serveStream(server *endpointServer, rpc grpc.ServerStream) error {
	s := &liveStream{
		e: e, server: server, rpc: rpc,
		events: make(chan event, 16), ended: make(chan *status.Status, 1), woken: make(chan struct{}, 1),
		acks: ackQueue{interval: e.cfg.AckInterval, every: e.cfg.AckEvery, latency: e.cfg.Latency.drawAny},
	}
	s.json.textTimes = e.cfg.AcceptTextTimestamps
	s.proto.textTimes = e.cfg.AcceptTextTimestamps
	if p, ok := peer.FromContext(rpc.Context()); ok {
		if a, ok := p.Addr.(peerAddr); ok {
			s.conn = a.conn
			server.known(s.conn)
		}
	}
	c := &call{endpoint: EndpointCreate, number: e.stats.begin(EndpointCreate), path: tableOf(rpc.Context())}
	st := s.create(c)
	if st == nil {
		st = s.serve()
	} else {
		e.stats.ended(EndpointCreate, st.Code())
	}
	if ce := e.log.Check(zap.DebugLevel, "stream ended"); ce != nil {
		ce.Write(zap.String("stream_id", s.id), zap.String("code", codeName(st.Code())), zap.String("text", st.Message()))
	}
	return st.Err()
}

// create goes through the handshake, with faults coming between. Nil means
// that the stream is open.
func (s *liveStream) create(c *call) *status.Status {
	h := s.e.fault(c)
	if h != nil {
		if st := s.beforeHeader(h); st != nil {
			return st
		}
	}
	// Clients built on tonic send their first message only when they have the
	// response headers: without this both sides would wait for ever.
	if err := s.rpc.SendHeader(metadata.MD{}); err != nil {
		return status.Convert(err)
	}
	var m inbound
	if err := s.rpc.RecvMsg(&m); err != nil {
		if errors.Is(err, io.EOF) {
			return status.New(codes.InvalidArgument, "The stream was closed before create_stream")
		}
		return status.Convert(err)
	}
	defer m.free()
	if size := int64(len(m.ReadOnlyData())); size > s.e.cfg.MaxRequestBytes {
		return s.e.oversize(size)
	}
	if err := s.req.parse(m.ReadOnlyData()); err != nil {
		return status.New(codes.InvalidArgument, err.Error())
	}
	if s.req.payload != fieldCreate {
		return status.New(codes.InvalidArgument, "The first message must be create_stream")
	}
	if script := s.e.scripts.of(s.req.table); script != nil {
		return s.play(script)
	}
	if h != nil {
		if st := s.unopened(h); st != nil {
			return st
		}
	}
	if st := s.open(); st != nil {
		return st
	}
	id := s.id
	if h != nil && h.Effect == EffectNoStreamID {
		id = ""
	}
	s.e.streams.opened(s)
	s.e.stats.ended(EndpointCreate, codes.OK)
	if err := s.rpc.SendMsg(createResponse(id)); err != nil {
		st := status.Convert(err)
		s.e.streams.left(s, st)
		s.e.streams.left(s, st)
		return st
	}
	return nil
}

// serve runs an open stream to its end.
func (s *liveStream) serve() *status.Status {
	s.server.streams.Add(1) // endpointServer.close waits: RecvMsg returns once the handler has
	go func() {
		defer s.server.streams.Done()
		st := s.receive()
		s.e.streams.left(s, nil)
		s.ended <- st
	}()
	st := s.send()
	s.e.streams.left(s, st)
	s.e.stats.ended(EndpointStream, st.Code())
	return st
}

// receive runs the receiving side until the client half-closes, which is OK,
// or the stream cannot go on.
func (s *liveStream) receive() *status.Status {
	for {
		var m inbound
		if err := s.rpc.RecvMsg(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return statusOK
			}
			return status.Convert(err)
		}
		st := s.message(m.ReadOnlyData())
		m.free()
		if st != nil {
			return st
		}
	}
}

// push hands something to the sending side.
func (s *liveStream) push(ev event) {
	select {
	case s.events <- ev:
	case <-s.rpc.Context().Done():
	}
}
