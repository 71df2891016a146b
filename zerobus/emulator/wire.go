package emulator

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// The wire of databricks.zerobus.Zerobus/EphemeralStream, read and written by
// hand: records are looked at where they arrived and never copied into
// messages of their own. Names and numbers are those of Databricks' published
// zerobus_service.proto.
const (
	serviceName = "databricks.zerobus.Zerobus"
	methodName  = "EphemeralStream"

	// TableHeader is the metadata key that names the table beside create_stream.
	TableHeader = "x-databricks-zerobus-table-name"

	fieldCreate = 1 // of EphemeralStreamRequest: create_stream
	fieldRecord = 2 // ingest_record
	fieldBatch  = 3 // ingest_record_batch

	recordProto = 1 // RecordType PROTO, and what an absent one means
	recordJSON  = 2 // RecordType JSON
)

// request is one EphemeralStreamRequest. Its slices point into the message.
type request struct {
	payload int // fieldCreate, fieldRecord, fieldBatch, or 0 for none that is known

	table      string
	descriptor []byte
	recordType uint64

	offset    int64
	hasOffset bool
	format    int // recordProto, recordJSON, or 0 where there is no record
	records   [][]byte
}

var errWire = errors.New("the message is not a valid EphemeralStreamRequest")

// parse reads a message. Fields that are not known are passed over; of a oneof
// the last counts.
func (q *request) parse(b []byte) error {
	*q = request{records: q.records[:0]}
	return eachField(b, func(num protowire.Number, v []byte, _ uint64) error {
		if v == nil || num > fieldBatch {
			return nil
		}
		*q = request{payload: int(num), records: q.records[:0], recordType: recordProto}
		if num == fieldCreate {
			return q.parseCreate(v)
		}
		return q.parseRecords(v)
	})
}

func (q *request) parseCreate(b []byte) error {
	return eachField(b, func(num protowire.Number, v []byte, n uint64) error {
		switch {
		case num == 1 && v != nil:
			q.table = string(v)
		case num == 3 && v != nil:
			q.descriptor = v
		case num == 4 && v == nil:
			q.recordType = n
		}
		return nil
	})
}

func (q *request) parseRecords(b []byte) error {
	return eachField(b, func(num protowire.Number, v []byte, n uint64) error {
		switch {
		case num == 1 && v == nil:
			q.offset, q.hasOffset = int64(n), true
		case (num == 2 || num == 3) && v != nil:
			q.format, q.records = int(num)-1, q.records[:0]
			if q.payload == fieldRecord {
				q.records = append(q.records, v)
				return nil
			}
			return eachField(v, func(num protowire.Number, record []byte, _ uint64) error {
				if num == 1 && record != nil {
					q.records = append(q.records, record)
				}
				return nil
			})
		}
		return nil
	})
}

// eachField walks the fields of a message: v is the contents of a
// length-delimited one and not nil, n the value of a varint.
func eachField(b []byte, each func(num protowire.Number, v []byte, n uint64) error) error {
	for len(b) > 0 {
		num, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		var v []byte
		var varint uint64
		known := true
		switch wire {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			varint, n = protowire.ConsumeVarint(b)
		default:
			known = false
			n = protowire.ConsumeFieldValue(num, wire, b)
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if !known {
			continue
		}
		if err := each(num, v, varint); err != nil {
			return err
		}
	}
	return nil
}

// response wraps the contents of field num as an EphemeralStreamResponse.
func response(num protowire.Number, contents []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), contents)
}

// createResponse confirms a stream; "" leaves its id out.
func createResponse(id string) []byte {
	var b []byte
	if id != "" {
		b = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), id)
	}
	return response(1, b)
}

// ackResponse acknowledges all offsets up to this one; nil leaves it out.
func ackResponse(offset *int64) []byte {
	var b []byte
	if offset != nil {
		b = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(*offset))
	}
	return response(2, b)
}

// closeResponse announces the stream's end in d; nil leaves the duration out.
func closeResponse(d *time.Duration) []byte {
	var b []byte
	if d != nil {
		var duration []byte
		if s := int64(*d / time.Second); s != 0 {
			duration = protowire.AppendVarint(protowire.AppendTag(duration, 1, protowire.VarintType), uint64(s))
		}
		if n := int64(*d % time.Second); n != 0 {
			duration = protowire.AppendVarint(protowire.AppendTag(duration, 2, protowire.VarintType), uint64(n))
		}
		b = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), duration)
	}
	return response(3, b)
}

// unknownResponse is a response of a kind that does not exist yet.
func unknownResponse() []byte { return response(15, []byte("later")) }

// rawCodec hands messages through as bytes: *inbound on the way in, []byte on
// the way out.
type rawCodec struct{}

// inbound is a received message. free gives its buffer back.
type inbound struct{ mem.Buffer }

func (m *inbound) free() {
	if m.Buffer != nil {
		m.Free()
		m.Buffer = nil
	}
}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("cannot send a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*inbound)
	if !ok {
		return fmt.Errorf("cannot receive into a %T", v)
	}
	m.Buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
	return nil
}
