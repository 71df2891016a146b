package zerobus

import (
	"fmt"

	grpcencoding "google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/datafly/bridge/zerobus/zerobuspb"
)

const (
	// maxMessage is the largest message Databricks' own clients send: the
	// service's bound of 10 MiB less 64 KiB.
	maxMessage = 10<<20 - 64<<10

	// chunk is the size of the pieces a message is copied into. It is the
	// largest that gRPC's pool has below 1 MiB; a frame on the wire is half.
	chunk = 32 << 10

	// headMax bounds what stands before the rows: three tags, two lengths and
	// an offset.
	headMax = 3 + 2*5 + 10
)

// message is one batch on its way over a stream. The rows are copied once, into
// pooled pieces that gRPC gives back when they are on the wire: it may hold a
// message after the caller of Write is gone.
type message struct {
	json   bool
	rows   int
	size   int // of body
	body   mem.BufferSlice
	offset int64
	sent   bool       // gRPC took it, whole
	done   chan error // takes the outcome; never blocks who settles
	settle func()     // called once when the stream is done with it
}

// newMessage encodes rows as the batch of a message: a repeated field 1.
func newMessage(rows [][]byte, json bool) *message {
	m := &message{json: json, rows: len(rows), size: bodySize(rows), done: make(chan error, 1)}
	w := chunkWriter{left: m.size}
	var head [1 + 10]byte
	for _, row := range rows {
		w.write(protowire.AppendVarint(append(head[:0], 1<<3|byte(protowire.BytesType)), uint64(len(row))))
		w.write(row)
	}
	m.body = w.done()
	return m
}

// bodySize returns the bytes of the repeated field.
func bodySize(rows [][]byte) int {
	n := 0
	for _, row := range rows {
		n += 1 + protowire.SizeBytes(len(row))
	}
	return n
}

// chunkWriter fills pooled pieces.
type chunkWriter struct {
	left int // bytes still to come
	out  mem.BufferSlice
	cur  *[]byte
	n    int // bytes in cur
}

func (w *chunkWriter) write(p []byte) {
	w.left -= len(p)
	for len(p) > 0 {
		if w.cur == nil {
			w.cur, w.n = mem.DefaultBufferPool().Get(min(chunk, len(p)+w.left)), 0
		}
		c := copy((*w.cur)[w.n:], p)
		p, w.n = p[c:], w.n+c
		if w.n == len(*w.cur) {
			w.out, w.cur = append(w.out, mem.NewBuffer(w.cur, mem.DefaultBufferPool())), nil
		}
	}
}

func (w *chunkWriter) done() mem.BufferSlice { return w.out } // the last piece was cut to size

// head returns the bytes before the body:
//
//	EphemeralStreamRequest.ingest_record_batch (3) {
//	  IngestRecordBatchRequest.offset_id (1)
//	  IngestRecordBatchRequest.proto_encoded_batch (2) or json_batch (3) { body }
//	}
func (m *message) head() []byte {
	field := protowire.Number(2)
	if m.json {
		field = 3
	}
	in := make([]byte, 0, headMax)
	in = protowire.AppendTag(in, 1, protowire.VarintType)
	in = protowire.AppendVarint(in, uint64(m.offset))
	in = protowire.AppendTag(in, field, protowire.BytesType)
	in = protowire.AppendVarint(in, uint64(m.size))

	out := make([]byte, 0, headMax)
	out = protowire.AppendTag(out, 3, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(len(in)+m.size))
	return append(out, in...)
}

// drop gives the pieces back unsent.
func (m *message) drop() {
	m.body.Free()
	m.body = nil
	m.settle()
}

// codec carries messages as they are, and everything else as protobuf.
type codec struct{}

var _ grpcencoding.CodecV2 = codec{}

// Name is empty so that the content type is plain application/grpc.
func (codec) Name() string { return "" }

// Marshal hands a message's body over to gRPC.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *message:
		out := make(mem.BufferSlice, 0, len(v.body)+1)
		out = append(append(out, mem.SliceBuffer(v.head())), v.body...)
		v.body = nil
		return out, nil
	case *zerobuspb.EphemeralStreamRequest:
		data, err := proto.Marshal(v)
		if err != nil {
			return nil, err
		}
		return mem.BufferSlice{mem.SliceBuffer(data)}, nil
	}
	return nil, fmt.Errorf("cannot send a %T", v)
}

// Unmarshal reads an answer. Those of the service are a few bytes.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	answer, ok := v.(*zerobuspb.EphemeralStreamResponse)
	if !ok {
		return fmt.Errorf("cannot receive a %T", v)
	}
	return proto.Unmarshal(data.Materialize(), answer)
}
