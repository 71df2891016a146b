package emulator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
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
	c := &call{endpoint: EndpointCreate, number: e.stats.begin(EndpointCreate, 0), path: tableOf(rpc.Context())}
	st := s.create(c)
	if st == nil {
		st = s.serve()
	} else {
		e.stats.streamEnded(EndpointCreate, st.Code())
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
	s.e.stats.streamEnded(EndpointCreate, codes.OK)
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
		st := s.receive(s.message)
		s.e.streams.left(s, nil)
		s.ended <- st
	}()
	st := s.send()
	s.e.streams.left(s, st)
	s.e.stats.streamEnded(EndpointStream, st.Code())
	return st
}

// receive hands each message to take until the client half-closes, which is OK,
// or take ends the stream with a status.
func (s *liveStream) receive(take func([]byte) *status.Status) *status.Status {
	for {
		var m inbound
		if err := s.rpc.RecvMsg(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return statusOK
			}
			return status.Convert(err)
		}
		st := take(m.ReadOnlyData())
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

// tableOf is the table that a call's metadata names, or "".
func tableOf(ctx context.Context) string { return one(ctx, TableHeader) }

func one(ctx context.Context, key string) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// open judges create_stream, which is in s.req. Nil means that the stream may
// begin.
func (s *liveStream) open() *status.Status {
	ctx := s.rpc.Context()
	if err := s.e.authorizeEndpoint(one(ctx, "authorization"), s.req.table); err != nil {
		return err.grpc()
	}
	header := tableOf(ctx)
	switch {
	case header == "" && s.e.cfg.Auth == AuthOff: // a client of its own making
	case header == "":
		return status.New(codes.InvalidArgument, "The metadata "+TableHeader+" is missing")
	case !strings.EqualFold(header, s.req.table):
		return status.New(codes.InvalidArgument, "The metadata "+TableHeader+" and table_name of create_stream are not the same")
	}
	switch s.req.recordType {
	case recordProto, recordJSON:
	case 0:
		return status.New(codes.InvalidArgument, "record_type must not be RECORD_TYPE_UNSPECIFIED")
	default:
		return status.New(codes.Unimplemented, fmt.Sprintf("Record type %d is not supported", s.req.recordType))
	}
	if strings.Count(s.req.table, ".") != 2 {
		return status.New(codes.InvalidArgument, "table_name must be catalog.schema.table")
	}
	s.table = s.e.Table(s.req.table)
	if s.table == nil {
		return tableNotFound(s.req.table).grpc()
	}
	if err := s.e.permitEndpoint(s.table); err != nil {
		return err.grpc()
	}
	s.id = uuid()
	s.format = int(s.req.recordType)
	if s.format == recordJSON {
		return nil // a descriptor is of no use, and no harm
	}
	if len(s.req.descriptor) == 0 {
		return status.New(codes.InvalidArgument, "descriptor_proto is required for the record type PROTO")
	}
	d, err := readDescriptor(s.req.descriptor)
	if err != nil {
		return status.New(codes.InvalidArgument, err.Error())
	}
	s.descriptor = d
	return s.compile(s.table.currentSchema())
}

// compile makes the stream ready for the table's columns as they are now.
func (s *liveStream) compile(columns *schema) *status.Status {
	if s.schema == columns {
		return nil
	}
	if s.format == recordProto {
		plan, fault := compileRow(s.descriptor, columns, s.e.cfg.Schema)
		if fault != nil {
			return fault.status()
		}
		s.plan = plan
	}
	s.schema = columns
	return nil
}

// uuid is a random UUID, version 4.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// message takes one message of an open stream. A status ends the stream.
func (s *liveStream) message(b []byte) *status.Status {
	if limit := s.e.cfg.MaxRequestBytes; int64(len(b)) > limit {
		return s.e.oversize(int64(len(b)))
	}
	if err := s.req.parse(b); err != nil {
		return status.New(codes.InvalidArgument, err.Error())
	}
	number := s.e.stats.begin(EndpointStream, len(b))
	if s.req.payload == 0 {
		return nil // of a kind that is not known here
	}
	if st := s.judge(); st != nil {
		return st
	}
	if s.e.hook.Load() != nil || s.e.faults.any() {
		c := &call{
			endpoint: EndpointStream, number: number, path: s.table.name, streamID: s.id, offset: s.req.offset,
			split: true, records: s.rowsAsJSON(),
		}
		if h := s.e.fault(c); h != nil {
			return s.misbehave(h)
		}
	}
	return s.accept()
}

// judge checks all of a message but its records.
func (s *liveStream) judge() *status.Status {
	q := &s.req
	switch {
	case q.payload == fieldCreate:
		return status.New(codes.InvalidArgument, "create_stream was sent twice")
	case !q.hasOffset:
		return status.New(codes.InvalidArgument, "offset_id is missing")
	case q.offset != s.expect && !s.e.cfg.AnyOffsets:
		return status.New(codes.InvalidArgument, fmt.Sprintf("Non-incremental offset: expected %d, actual %d", s.expect, q.offset))
	case q.format == 0:
		return status.New(codes.InvalidArgument, "The message holds no record")
	case q.format != s.format:
		return status.New(codes.InvalidArgument, "The record's format is not the stream's record_type")
	}
	s.expect = q.offset + 1
	return nil
}

// accept keeps the records of a message and has them acknowledged. A flush
// does not come between the two.
func (s *liveStream) accept() *status.Status {
	s.keeping.Lock()
	defer s.keeping.Unlock()
	if st := s.keep(); st != nil {
		return st
	}
	s.stored(s.req.offset, len(s.req.records))
	return nil
}

// keep validates and stores the records: all or none.
func (s *liveStream) keep() *status.Status {
	for again := true; again; {
		if st := s.compile(s.table.currentSchema()); st != nil {
			return st
		}
		rows, st := s.read()
		if st != nil {
			return st
		}
		at := &batch{at: time.Now(), transport: TransportGRPC, streamID: s.id, offset: s.req.offset, proto: s.plan}
		var err *apiError
		if again, err = s.e.keep(s.table, s.schema, rows, at, tableNotFound); err != nil {
			return err.grpc()
		}
	}
	s.e.streams.kept(s, len(s.req.records))
	return nil
}

// read validates the records against the columns.
func (s *liveStream) read() ([]newRow, *status.Status) {
	if s.format == recordProto {
		s.proto.rows = s.proto.rows[:0]
		for _, record := range s.req.records {
			if problem := s.proto.row(s.plan, record); problem != "" {
				if s.proto.field != "" {
					problem = "field '" + s.proto.field + "': " + problem
				}
				return nil, recordStatus(problem)
			}
		}
		return s.proto.rows, nil
	}
	r := &s.json
	r.begin(s.schema)
	for _, record := range s.req.records {
		r.load(record, 0)
		fault := r.row()
		if at := r.trailing(); fault == nil && at >= 0 {
			fault = &rowFault{at: at, problem: "trailing characters"}
		}
		if fault != nil {
			return nil, recordStatus(fault.jsonProblem())
		}
	}
	return r.rows, nil
}

// rowsAsJSON are a message's records for faults and hooks to look at; those
// that are no rows are empty.
func (s *liveStream) rowsAsJSON() [][]byte {
	if s.format == recordJSON {
		return s.req.records
	}
	if s.compile(s.table.currentSchema()) != nil {
		return nil
	}
	out := make([][]byte, len(s.req.records))
	for i, record := range s.req.records {
		out[i] = []byte("{}")
		var r protoReader
		if r.row(s.plan, record) == "" {
			out[i] = s.plan.appendJSON(nil, record)
		}
	}
	return out
}

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
