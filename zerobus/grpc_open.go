package zerobus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/datafly/bridge/zerobus/zerobuspb"
)

// errUnconfirmed and the like are the causes we cancel a stream for.
var (
	errUnconfirmed = fmt.Errorf("the stream was not confirmed within %v", openTimeout)
	errSilent      = fmt.Errorf("no ack came within %v", ackTimeout)
	errWindow      = errors.New("the stream was left with messages unacknowledged") // after an announced end
)

// protocolError is an answer that the service's protocol does not know.
type protocolError struct{ text string }

func (e *protocolError) Error() string { return e.text }

// open opens a stream for the present form of rows and waits until the service
// has confirmed it. in is the slot it is for; nil: it is a side stream. alone
// opens it on a connection of its own.
func (w *wire) open(ctx context.Context, in *slot, alone bool) (*stream, error) {
	if w.isClosed() {
		return nil, w.advice.network(opInsert, errClosed)
	}
	token, err := w.tokens.get(ctx)
	if err != nil {
		return nil, err
	}
	enc := w.enc.Load()
	conn, err := w.conns.get(alone)
	if err != nil {
		return nil, w.advice.network(opInsert, err)
	}
	s := newStream(w, conn, enc, token)
	s.slot = in
	if err := s.create(ctx); err != nil {
		s.cancel(err)
		w.conns.put(conn)
		return nil, err
	}
	if err := w.enlist(s); err != nil {
		s.cancel(err)
		w.conns.put(conn)
		return nil, w.advice.network(opInsert, err)
	}
	return s, nil
}

// create does the handshake. ctx and openTimeout bound it; the stream itself
// lives on.
func (s *stream) create(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.cancel(context.Cause(ctx)) })
	defer stop()
	timer := time.AfterFunc(openTimeout, func() { s.cancel(errUnconfirmed) })
	defer timer.Stop()

	table := s.w.set.table.String()
	call := metadata.AppendToOutgoingContext(s.ctx, "authorization", "Bearer "+s.token, tableHeader, table)
	var err error
	s.rpc, err = s.conn.NewStream(call, &zerobuspb.Zerobus_ServiceDesc.Streams[0], zerobuspb.Zerobus_EphemeralStream_FullMethodName)
	if err != nil {
		return s.refusedToOpen(ctx, err)
	}
	create := &zerobuspb.CreateIngestStreamRequest{TableName: proto.String(table), RecordType: zerobuspb.RecordType_JSON.Enum()}
	if s.enc.format == FormatProtobuf {
		create.RecordType, create.DescriptorProto = zerobuspb.RecordType_PROTO.Enum(), s.enc.descriptor
	}
	// A failure to send is told by the answer.
	_ = s.rpc.SendMsg(&zerobuspb.EphemeralStreamRequest{Payload: &zerobuspb.EphemeralStreamRequest_CreateStream{CreateStream: create}})
	var answer zerobuspb.EphemeralStreamResponse
	if err := s.rpc.RecvMsg(&answer); err != nil {
		return s.refusedToOpen(ctx, err)
	}
	if s.id = clean(answer.GetCreateStreamResponse().GetStreamId(), 100, append(s.w.tokens.hidden(), s.token)...); s.id == "" {
		return s.w.advice.misread(opInsert, 0, &protocolError{"the first answer on the stream names no stream"})
	}
	if !stop() || !timer.Stop() {
		return s.refusedToOpen(ctx, context.Cause(s.ctx)) // it was cancelled at the last moment
	}
	return nil
}

// refusedToOpen explains a stream that did not come about.
func (s *stream) refusedToOpen(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	secrets := append(s.w.tokens.hidden(), s.token)
	if cause := context.Cause(s.ctx); cause != nil {
		if errors.Is(cause, errUnconfirmed) {
			s.w.conns.retire(s.conn)
			return s.w.advice.late(cause)
		}
		return s.w.advice.network(opInsert, cause)
	}
	if fault := s.conn.creds.last(); fault != nil && !s.heard() {
		return s.w.advice.network(opInsert, fault)
	}
	e := s.w.advice.ended(s.ending(err), secrets)
	if e.kind == unauthorized {
		s.w.tokens.drop(s.token)
	}
	return e
}

// heard reports whether the service or its edge answered on this stream.
func (s *stream) heard() bool { return s.ending(nil).heard }

// ending gathers what came with the end of the stream. Called only once it is
// over, or was never there.
func (s *stream) ending(err error) ending {
	var header, trailer metadata.MD
	if s.rpc != nil {
		header, _ = s.rpc.Header()
		trailer = s.rpc.Trailer()
	}
	return endingOf(err, s.id, s.id != "", header, trailer)
}
