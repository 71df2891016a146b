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
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/datafly/bridge/zerobus/zerobuspb"
)

// TableHeader is the metadata key that names the table beside create_stream.
const TableHeader = "x-databricks-zerobus-table-name"

// liveStream is one EphemeralStream being served. One goroutine, the RPC's
// handler, sends; another receives, so that acks, the stream's age and faults
// do not wait for the client.
type liveStream struct {
	e      *Emulator
	server *endpointServer
	rpc    grpc.BidiStreamingServer[pb.EphemeralStreamRequest, pb.EphemeralStreamResponse]
	conn   *conn
	id     string

	// Used by the receiving side, once the stream is open.
	table      *Table
	format     pb.RecordType
	descriptor *rowDescriptor // of the format PROTO
	schema     *schema        // plan was compiled for it
	plan       *protoMessage
	nextOffset int64
	msg        message // the message being served
	proto      protoReader
	json       rowReader

	events  chan event          // from the receiving side to the sending one
	ended   chan *status.Status // the end of the receiving side; OK: half-closed
	woken   chan struct{}       // the acks have changed
	storing sync.Mutex          // held from storing a message's rows to adding them to acks
	mu      sync.Mutex
	acks    ackQueue

	info       StreamInfo // guarded by Emulator.stats
	sidesEnded int        // guarded likewise
}

// event is something that the receiving side wants sent.
type event struct {
	response *pb.EphemeralStreamResponse
	end      *time.Duration // the response announces the stream's end after this time
	halt     bool           // the stream ends now, with OK
}

// message is an EphemeralStreamRequest. Its records alias the received bytes,
// so that storing them copies nothing.
type message struct {
	size    int // in bytes
	create  *pb.CreateIngestStreamRequest
	ingest  bool   // a record or a batch of them
	offset  *int64 // of ingest, like the fields below
	format  pb.RecordType
	records [][]byte
}

// codec is gRPC's own but for messages.
type codec struct{ encoding.CodecV2 }

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*message); ok {
		return m.parse(data.Materialize())
	}
	return c.CodecV2.Unmarshal(data, v)
}

// parse reads a message and retains b. It ignores unknown fields; of a oneof the
// last one counts.
func (m *message) parse(b []byte) error {
	*m = message{size: len(b)}
	return eachField(b, func(num protowire.Number, v []byte, _ uint64) error {
		if v == nil || num > 3 {
			return nil
		}
		*m = message{size: len(b), ingest: num > 1}
		if num == 1 {
			m.create = &pb.CreateIngestStreamRequest{}
			return proto.Unmarshal(v, m.create)
		}
		return eachField(v, func(field protowire.Number, v []byte, n uint64) error {
			switch {
			case field == 1 && v == nil:
				m.offset = proto.Int64(int64(n))
			case (field == 2 || field == 3) && v != nil && num == 2:
				m.format, m.records = pb.RecordType(field-1), [][]byte{v}
			case (field == 2 || field == 3) && v != nil:
				m.format, m.records = pb.RecordType(field-1), nil
				return eachField(v, func(field protowire.Number, record []byte, _ uint64) error {
					if field == 1 && record != nil {
						m.records = append(m.records, record)
					}
					return nil
				})
			}
			return nil
		})
	})
}

// eachField calls each for the fields of a message: v is the contents of a
// length-delimited one and not nil, n the value of a varint.
func eachField(b []byte, each func(num protowire.Number, v []byte, n uint64) error) error {
	for len(b) > 0 {
		num, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v []byte
		var varint uint64
		switch wire {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			varint, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, wire, b)
			num = 0 // of no known type
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := each(num, v, varint); err != nil {
			return err
		}
	}
	return nil
}

// maxGRPCMessage is the transport's limit, whose answer is RESOURCE_EXHAUSTED.
// It is far above MaxRequestBytes, which is checked later, where the answer can
// be chosen.
const maxGRPCMessage = 1 << 30

func (e *Emulator) newGRPC(server *endpointServer) *grpc.Server {
	g := grpc.NewServer(grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}), grpc.WaitForHandlers(true),
		grpc.MaxRecvMsgSize(max(maxGRPCMessage, int(e.cfg.MaxRequestBytes)+1)))
	pb.RegisterZerobusServer(g, zerobusService{e: e, server: server})
	return g
}

// zerobusService implements databricks.zerobus.Zerobus.
type zerobusService struct {
	pb.UnimplementedZerobusServer
	e      *Emulator
	server *endpointServer
}

var statusOK = status.New(codes.OK, "")

// EphemeralStream serves one stream.
func (z zerobusService) EphemeralStream(rpc grpc.BidiStreamingServer[pb.EphemeralStreamRequest, pb.EphemeralStreamResponse]) error {
	e := z.e
	s := &liveStream{
		e: e, server: z.server, rpc: rpc,
		events: make(chan event, 16), ended: make(chan *status.Status, 1), woken: make(chan struct{}, 1),
		acks:  ackQueue{interval: e.cfg.AckInterval, every: e.cfg.AckEvery, latency: e.cfg.Latency.drawAny},
		proto: protoReader{textTimes: e.cfg.AcceptTextTimestamps}, json: rowReader{textTimes: e.cfg.AcceptTextTimestamps},
	}
	if p, ok := peer.FromContext(rpc.Context()); ok {
		if a, ok := p.Addr.(peerAddr); ok {
			s.conn = a.conn
			z.server.idle.remove(s.conn)
		}
	}
	c := &call{endpoint: EndpointCreate, number: e.stats.begin(EndpointCreate), table: metadataOf(rpc.Context(), TableHeader)}
	st := s.create(c)
	if st == nil {
		st = s.serve()
	} else {
		e.stats.endStream(EndpointCreate, st.Code())
	}
	if ce := e.log.Check(zap.DebugLevel, "stream ended"); ce != nil {
		ce.Write(zap.String("stream_id", s.id), zap.String("code", codeName(st.Code())), zap.String("text", st.Message()))
	}
	return st.Err()
}

// create performs the handshake. Nil means that the stream is open.
func (s *liveStream) create(c *call) *status.Status {
	h := s.e.fault(c)
	if h != nil && h.Reason != "" {
		return s.refuseAtEdge(h)
	}
	// Clients built on tonic wait for the response headers before they send
	// their first message.
	if err := s.rpc.SendHeader(metadata.MD{}); err != nil {
		return status.Convert(err)
	}
	st := s.receive()
	if st != nil {
		if st.Code() == codes.OK {
			return badRequest("The stream was closed before create_stream")
		}
		return st
	}
	create := s.msg.create
	if create == nil {
		return badRequest("The first message must be create_stream")
	}
	if script := s.e.scripts.of(create.GetTableName()); script != nil {
		return s.play(script)
	}
	if h != nil {
		if st := s.applyFault(h, false); st != nil {
			return st
		}
	}
	if st := s.open(create); st != nil {
		return st
	}
	id := &s.id
	if h != nil && h.Effect == EffectNoStreamID {
		id = nil
	}
	s.e.stats.streamOpened(s)
	s.e.stats.endStream(EndpointCreate, codes.OK)
	if err := s.rpc.Send(createResponse(id)); err != nil {
		st := status.Convert(err)
		s.e.stats.sideEnded(s, st)
		s.e.stats.sideEnded(s, st)
		return st
	}
	return nil
}

// serve runs an open stream to its end.
func (s *liveStream) serve() *status.Status {
	s.server.streams.Add(1) // endpointServer.close waits: Recv returns once the handler has
	go func() {
		defer s.server.streams.Done()
		st := s.receiveAll(s.serveMessage)
		s.e.stats.sideEnded(s, nil)
		s.ended <- st
	}()
	st := s.send()
	s.e.stats.sideEnded(s, st)
	s.e.stats.endStream(EndpointStream, st.Code())
	return st
}

// receive reads the next message into s.msg, or returns the end of the stream:
// OK if the client has half-closed it.
func (s *liveStream) receive() *status.Status {
	err := s.rpc.RecvMsg(&s.msg)
	st := status.Convert(err)
	switch {
	case err == nil && int64(s.msg.size) > s.e.cfg.MaxRequestBytes:
		c := s.e.cfg.OversizeCode // New has checked that there is a text
		return status.New(c, fmt.Sprintf(oversizeTexts[c], s.msg.size, s.e.cfg.MaxRequestBytes))
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return statusOK
	case st.Code() == codes.Internal && strings.Contains(st.Message(), "unmarshal"):
		return badRequest("the message is not a valid EphemeralStreamRequest")
	}
	return st
}

// receiveAll calls serve for each message until the client half-closes the
// stream, which is OK, or serve ends it with a status.
func (s *liveStream) receiveAll(serve func() *status.Status) *status.Status {
	for {
		st := s.receive()
		if st == nil {
			st = serve()
		}
		if st != nil {
			return st
		}
	}
}

// push passes an event to the sending side.
func (s *liveStream) push(ev event) {
	select {
	case s.events <- ev:
	case <-s.rpc.Context().Done():
	}
}

// metadataOf returns the first value of a key in a call's metadata, or "".
func metadataOf(ctx context.Context, key string) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// open checks create_stream. Nil means that the stream may begin.
func (s *liveStream) open(create *pb.CreateIngestStreamRequest) *status.Status {
	ctx, name := s.rpc.Context(), create.GetTableName()
	if err := s.e.authorizeEndpoint(metadataOf(ctx, "authorization"), name); err != nil {
		return err.grpc()
	}
	header := metadataOf(ctx, TableHeader)
	s.format = pb.RecordType_PROTO
	if create.RecordType != nil {
		s.format = create.GetRecordType()
	}
	switch {
	case header == "" && s.e.cfg.Auth != AuthOff:
		return badRequest("The metadata %s is missing", TableHeader)
	case header != "" && !strings.EqualFold(header, name):
		return badRequest("The metadata %s and table_name of create_stream are not the same", TableHeader)
	case s.format == pb.RecordType_RECORD_TYPE_UNSPECIFIED:
		return badRequest("record_type must not be RECORD_TYPE_UNSPECIFIED")
	case s.format != pb.RecordType_PROTO && s.format != pb.RecordType_JSON:
		return status.New(codes.Unimplemented, fmt.Sprintf("Record type %d is not supported", s.format))
	case strings.Count(name, ".") != 2:
		return badRequest("table_name must be catalog.schema.table")
	}
	s.table = s.e.Table(name)
	if s.table == nil {
		return tableNotFound(name).grpc()
	}
	if err := s.e.permitEndpoint(s.table); err != nil {
		return err.grpc()
	}
	s.id = uuid()
	if s.format == pb.RecordType_JSON {
		return nil // a descriptor is ignored
	}
	if len(create.GetDescriptorProto()) == 0 {
		return badRequest("descriptor_proto is required for the record type PROTO")
	}
	var err error
	if s.descriptor, err = readDescriptor(create.GetDescriptorProto()); err != nil {
		return status.New(codes.InvalidArgument, err.Error())
	}
	return s.compile(s.table.currentSchema())
}

// compile prepares the stream for the table's current columns.
func (s *liveStream) compile(columns *schema) *status.Status {
	if s.schema == columns {
		return nil
	}
	if s.format == pb.RecordType_PROTO {
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

// serveMessage serves one message of an open stream. A status ends the stream.
func (s *liveStream) serveMessage() *status.Status {
	number := s.e.stats.begin(EndpointStream)
	s.e.stats.count(func(f *Stats) { f.Bytes += int64(s.msg.size) })
	switch offset := s.msg.offset; {
	case s.msg.create != nil:
		return badRequest("create_stream was sent twice")
	case !s.msg.ingest:
		return nil // of an unknown kind
	case offset == nil:
		return badRequest("offset_id is missing")
	case *offset != s.nextOffset && !s.e.cfg.AnyOffsets:
		return badRequest("Non-incremental offset: expected %d, actual %d", s.nextOffset, *offset)
	case s.msg.format == pb.RecordType_RECORD_TYPE_UNSPECIFIED:
		return badRequest("The message holds no record")
	case s.msg.format != s.format:
		return badRequest("The record's format is not the stream's record_type")
	}
	s.nextOffset = *s.msg.offset + 1
	if s.e.hook.Load() != nil || !s.e.faults.empty() {
		c := &call{
			endpoint: EndpointStream, number: number, table: s.table.name, streamID: s.id, offset: *s.msg.offset,
			split: true, records: s.rowsAsJSON(),
		}
		if h := s.e.fault(c); h != nil {
			return s.applyFault(h, true)
		}
	}
	return s.accept()
}

// accept stores the records of a message and queues its ack. A flush cannot
// happen between the two.
func (s *liveStream) accept() *status.Status {
	s.storing.Lock()
	defer s.storing.Unlock()
	if st := s.store(); st != nil {
		return st
	}
	s.changeAcks(func(now time.Time) { s.acks.add(*s.msg.offset, len(s.msg.records), now) })
	return nil
}

// store checks and stores the records: all or none.
func (s *liveStream) store() *status.Status {
	for again := true; again; {
		if st := s.compile(s.table.currentSchema()); st != nil {
			return st
		}
		rows, st := s.readRows()
		if st != nil {
			return st
		}
		b := &batch{at: time.Now(), transport: TransportGRPC, streamID: s.id, offset: *s.msg.offset, proto: s.plan}
		var err *apiError
		if again, err = s.e.store(s.table, s.schema, rows, b, tableNotFound); err != nil {
			return err.grpc()
		}
	}
	n := int64(len(s.msg.records))
	s.e.stats.count(func(f *Stats) {
		f.StreamRows += n
		s.info.Messages++
		s.info.Rows += n
		s.info.UnackedRows += n
	})
	return nil
}

// readRows checks the records against the columns.
func (s *liveStream) readRows() ([]newRow, *status.Status) {
	if s.format == pb.RecordType_PROTO {
		s.proto.rows = s.proto.rows[:0]
		for _, record := range s.msg.records {
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
	for _, record := range s.msg.records {
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

// rowsAsJSON are a message's records for faults and hooks; invalid ones are
// empty.
func (s *liveStream) rowsAsJSON() [][]byte {
	if s.format == pb.RecordType_JSON {
		return s.msg.records
	}
	if s.compile(s.table.currentSchema()) != nil {
		return nil
	}
	out := make([][]byte, len(s.msg.records))
	for i, record := range s.msg.records {
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
	age, ack, end := time.NewTimer(forever), time.NewTimer(forever), time.NewTimer(forever)
	defer age.Stop()
	defer ack.Stop()
	defer end.Stop()
	if s.e.cfg.StreamMaxAge > 0 {
		age.Reset(s.e.cfg.StreamMaxAge)
	}
	ending, halfClosed := false, false
	sendEvent := func(ev event) error {
		if ev.end != nil && !ending { // later signals do not postpone the end
			ending = true
			end.Reset(*ev.end)
		}
		return s.rpc.Send(ev.response)
	}
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
			err = sendEvent(ev)
		case <-age.C:
			closing := s.e.cfg.CloseWindow
			err = sendEvent(event{response: closeResponse(&closing), end: &closing})
		case <-end.C:
			return status.New(codes.Unavailable, numbered("Stream timeout reached. Closing the stream (ID: "+s.id+").", codeStreamAge, 0))
		case st := <-s.ended:
			for len(s.events) > 0 && err == nil {
				err = sendEvent(<-s.events)
			}
			if err == nil && st.Code() != codes.OK {
				return st
			}
			halfClosed = true
		case <-s.e.active.stop:
			s.flush()
			return status.New(codes.Unavailable, "The emulator is stopping")
		case <-ctx.Done():
			return status.FromContextError(ctx.Err())
		}
		if err != nil {
			return status.Convert(err)
		}
	}
}

// sendAcks sends an ack if one is due, and returns when to call it again.
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

// ack counts an ack before it is sent: a client that has got it finds it in the figures.
func (s *liveStream) ack(offset, rows int64) error {
	var before int64
	count := func(acks, offset, rows int64) {
		s.e.stats.count(func(f *Stats) {
			f.Acks += acks
			before, s.info.AckedOffset = s.info.AckedOffset, offset
			s.info.UnackedRows -= rows
		})
	}
	count(1, offset, rows)
	err := s.rpc.Send(ackResponse(&offset))
	if err != nil {
		count(-1, before, -rows)
	}
	return err
}

// flush acknowledges all stored messages, due or not.
func (s *liveStream) flush() {
	s.storing.Lock()
	defer s.storing.Unlock()
	s.mu.Lock()
	offset, rows, ok := s.acks.drain()
	s.mu.Unlock()
	if ok {
		_ = s.ack(offset, rows) // the client may have left
	}
}

// changeAcks changes the queue of acks and wakes the sending side.
func (s *liveStream) changeAcks(change func(now time.Time)) {
	s.mu.Lock()
	change(time.Now())
	s.mu.Unlock()
	select {
	case s.woken <- struct{}{}:
	default: // it is awake
	}
}

// createResponse confirms a stream; nil leaves its id out.
func createResponse(id *string) *pb.EphemeralStreamResponse {
	return &pb.EphemeralStreamResponse{Payload: &pb.EphemeralStreamResponse_CreateStreamResponse{
		CreateStreamResponse: &pb.CreateIngestStreamResponse{StreamId: id},
	}}
}

// ackResponse acknowledges all offsets up to this one; nil leaves it out.
func ackResponse(offset *int64) *pb.EphemeralStreamResponse {
	return &pb.EphemeralStreamResponse{Payload: &pb.EphemeralStreamResponse_IngestRecordResponse{
		IngestRecordResponse: &pb.IngestRecordResponse{DurabilityAckUpToOffset: offset},
	}}
}

// closeResponse announces the stream's end in d; nil leaves the duration out.
func closeResponse(d *time.Duration) *pb.EphemeralStreamResponse {
	signal := &pb.CloseStreamSignal{}
	if d != nil {
		signal.Duration = durationpb.New(*d)
	}
	return &pb.EphemeralStreamResponse{Payload: &pb.EphemeralStreamResponse_CloseStreamSignal{CloseStreamSignal: signal}}
}

// unknownResponse is a response of a kind that does not exist yet.
func unknownResponse() *pb.EphemeralStreamResponse {
	r := &pb.EphemeralStreamResponse{}
	r.ProtoReflect().SetUnknown([]byte("\x7a\x05later")) // field 15
	return r
}
