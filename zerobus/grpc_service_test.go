package zerobus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/datafly/bridge/zerobus"
	"github.com/datafly/bridge/zerobus/zerobuspb"
)

// service speaks the wire of Zerobus as far as the client needs it. handle
// serves stream n, from 1; its default is (*served).serve.
type service struct {
	zerobuspb.UnimplementedZerobusServer
	handle func(n int, s *served) error

	mu      sync.Mutex // guards the fields below
	streams []*served
	rows    []string // durable, in the order of their becoming so
}

// served is one stream as the service sees it.
type served struct {
	grpc.BidiStreamingServer[zerobuspb.EphemeralStreamRequest, zerobuspb.EphemeralStreamResponse]
	service *service
	id      string
	md      metadata.MD
	create  *zerobuspb.CreateIngestStreamRequest
	opened  time.Time
	closed  bool  // the client closed its side
	next    int64 // offset expected next
	waiting []arrived
}

// arrived is one message.
type arrived struct {
	offset int64
	rows   []string
}

func (s *service) EphemeralStream(stream grpc.BidiStreamingServer[zerobuspb.EphemeralStreamRequest, zerobuspb.EphemeralStreamResponse]) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	one := &served{BidiStreamingServer: stream, service: s, md: md, opened: time.Now()}
	s.mu.Lock()
	s.streams = append(s.streams, one)
	n := len(s.streams)
	handle := s.handle
	s.mu.Unlock()
	one.id = fmt.Sprintf("stream-%d", n)
	if handle == nil {
		return one.serve()
	}
	return handle(n, one)
}

// serve confirms the stream, acknowledges every message at once and ends the
// stream at a row that holds "poison".
func (s *served) serve() error {
	if err := s.confirm(); err != nil {
		return err
	}
	return s.take(-1)
}

// take serves n messages, or all if n is negative.
func (s *served) take(n int) error {
	for ; n != 0; n-- {
		m, err := s.message()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, row := range m.rows {
			if strings.Contains(row, "poison") {
				return status.Error(codes.InvalidArgument, "Record decoder/encoder error: unrecognized field name 'poison' at line 1 column 2. Error Code: 4044, Error State: 3.")
			}
		}
		if err := s.ack(m.offset); err != nil {
			return err
		}
	}
	return nil
}

// ask receives what the stream is to be.
func (s *served) ask() error {
	if err := s.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	first, err := s.Recv()
	if err != nil {
		return err
	}
	if s.create = first.GetCreateStream(); s.create == nil {
		return status.Error(codes.InvalidArgument, "first message must be CreateStream")
	}
	return nil
}

// confirm does the service's part of the handshake, as far as it is not done.
func (s *served) confirm() error {
	if s.create == nil {
		if err := s.ask(); err != nil {
			return err
		}
	}
	return s.Send(&zerobuspb.EphemeralStreamResponse{Payload: &zerobuspb.EphemeralStreamResponse_CreateStreamResponse{
		CreateStreamResponse: &zerobuspb.CreateIngestStreamResponse{StreamId: proto.String(s.id)}}})
}

// message receives one message and checks its offset.
func (s *served) message() (arrived, error) {
	in, err := s.Recv()
	if errors.Is(err, io.EOF) {
		s.service.set(func() { s.closed = true })
	}
	if err != nil {
		return arrived{}, err
	}
	batch := in.GetIngestRecordBatch()
	if batch == nil || batch.OffsetId == nil {
		return arrived{}, status.Errorf(codes.InvalidArgument, "not a batch with an offset: %v", in)
	}
	m := arrived{offset: batch.GetOffsetId()}
	if m.offset != s.next {
		return arrived{}, status.Errorf(codes.InvalidArgument, "Non-incremental offset: expected %d, actual %d", s.next, m.offset)
	}
	s.next++
	if s.create.GetRecordType() == zerobuspb.RecordType_JSON {
		m.rows = batch.GetJsonBatch().GetRecords()
	} else {
		for _, r := range batch.GetProtoEncodedBatch().GetRecords() {
			m.rows = append(m.rows, string(r))
		}
	}
	s.waiting = append(s.waiting, m)
	return m, nil
}

// keep makes everything up to the offset durable.
func (s *served) keep(upTo int64) {
	s.service.mu.Lock()
	defer s.service.mu.Unlock()
	for len(s.waiting) > 0 && s.waiting[0].offset <= upTo {
		s.service.rows = append(s.service.rows, s.waiting[0].rows...)
		s.waiting = s.waiting[1:]
	}
}

// ack makes everything up to the offset durable and acknowledges it.
func (s *served) ack(upTo int64) error {
	s.keep(upTo)
	return s.say(proto.Int64(upTo))
}

// say sends an ack whatever is durable; nil: one without an offset.
func (s *served) say(upTo *int64) error {
	return s.Send(&zerobuspb.EphemeralStreamResponse{Payload: &zerobuspb.EphemeralStreamResponse_IngestRecordResponse{
		IngestRecordResponse: &zerobuspb.IngestRecordResponse{DurabilityAckUpToOffset: upTo}}})
}

// signal announces the stream's end; nil: without a duration.
func (s *served) signal(in *durationpb.Duration) error {
	return s.Send(&zerobuspb.EphemeralStreamResponse{Payload: &zerobuspb.EphemeralStreamResponse_CloseStreamSignal{
		CloseStreamSignal: &zerobuspb.CloseStreamSignal{Duration: in}}})
}

// receive takes one message and sends nothing.
func (s *served) receive() error {
	_, err := s.message()
	return err
}

// half waits until the client closes its side.
func (s *served) half() error {
	if m, err := s.message(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("message %d and %w, want the end", m.offset, err)
	}
	return nil
}

// raw sends bytes as an answer.
func (s *served) raw(text []byte) error {
	answer := &zerobuspb.EphemeralStreamResponse{}
	if err := proto.Unmarshal(text, answer); err != nil {
		return err
	}
	return s.Send(answer)
}

// hang waits until the client gives the stream up.
func (s *served) hang() error {
	<-s.Context().Done()
	return s.Context().Err()
}

func (s *service) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *service) stored() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.rows...)
}

func (s *service) opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

func (s *service) stream(n int) *served {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[n-1]
}

// streaming is a bench whose rows go over gRPC.
type streaming struct {
	bench
	svc *service
}

var nopLog = zap.NewNop()

func grpcConfig() zerobus.Config {
	cfg := config("https://abc-12345.cloud.databricks.com")
	cfg.Transport, cfg.Endpoint, cfg.WorkspaceID = zerobus.TransportGRPC, "http://127.0.0.1:8091", "1234567890123456"
	return cfg
}

// streamed returns a client over an in-memory connection to svc, for use in a
// synctest bubble. change may be nil.
func streamed(t *testing.T, svc *service, change func(*zerobus.Config)) streaming {
	t.Helper()
	return overBuffers(t, svc, change, func(dial func(context.Context) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
		return func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }
	})
}

// tappedStream is streamed with a hand on the connections.
func tappedStream(t *testing.T, svc *service) (streaming, *recordingDialer) {
	t.Helper()
	tap := &recordingDialer{}
	return overBuffers(t, svc, nil, func(dial func(context.Context) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
		tap.dial = dial
		return tap.Dial
	}), tap
}

func overBuffers(t *testing.T, svc *service, change func(*zerobus.Config),
	over func(func(context.Context) (net.Conn, error)) func(context.Context, string) (net.Conn, error), options ...grpc.ServerOption) streaming {
	t.Helper()
	obs := &observed{}
	b := overObserved(t, svc, change, over, obs, options...)
	b.obs = obs
	return b
}

// observedStreams is streamed with another Observer.
func observedStreams(t *testing.T, svc *service, obs zerobus.Observer) streaming {
	t.Helper()
	return overObserved(t, svc, nil, func(dial func(context.Context) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
		return func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }
	}, obs)
}

func overObserved(t *testing.T, svc *service, change func(*zerobus.Config),
	over func(func(context.Context) (net.Conn, error)) func(context.Context, string) (net.Conn, error), obs zerobus.Observer, options ...grpc.ServerOption) streaming {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(append(options, grpc.MaxRecvMsgSize(10<<20))...)
	zerobuspb.RegisterZerobusServer(server, svc)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	space := newWorkspace()
	cfg := grpcConfig()
	if change != nil {
		change(&cfg)
	}
	core, logs := observer.New(zap.DebugLevel)
	c, err := zerobus.NewDialed(cfg, zap.New(core), obs, inMemory{space}, over(listener.DialContext))
	if err != nil {
		t.Fatalf("NewDialed: %v", err)
	}
	t.Cleanup(func() {
		c.Close()
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("Serve: %v", err)
		}
	})
	return streaming{bench{c, space, logs, nil}, svc}
}
